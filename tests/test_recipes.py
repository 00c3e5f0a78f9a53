"""Every recipe is a params.json that holds, and says what it is."""

from pathlib import Path

import pytest

from evaluate import EVALUATORS
from params import load
from trainer.build import tables
from trainer.rules import RULES

RECIPES = sorted((Path(__file__).parent.parent / "params" / "recipes").glob("*.json"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_and_says_what_it_is(recipe):
    loaded = load(recipe, tables(EVALUATORS), overrides=["parallels=[]"], rules=RULES)
    assert loaded.notices == ()
    about = loaded.params.about
    assert about["what"] and about["command"]
    assert recipe.stem == "demo" or f"params/recipes/{recipe.name}" in about["command"]
    root = recipe.parent.parent.parent
    assert Path(loaded.params.working_dir).parent in (root, root / "demo")


def test_the_pages_name_every_recipe():
    page = (RECIPES[0].parent.parent.parent / "docs" / "recipes.md").read_text()
    assert [recipe.name for recipe in RECIPES if f"`{recipe.name}`" not in page] == []
