"""Write params/params.schema.json and docs/parameters.md: python -m docs.generate."""

import json
from pathlib import Path

from evaluate import EVALUATORS
from params.reference import json_schema, markdown
from trainer.build import tables

ROOT = Path(__file__).resolve().parent.parent


def files() -> dict[Path, str]:
    """Each generated file and what belongs in it."""
    menu = tables(EVALUATORS)
    return {
        ROOT / "params" / "params.schema.json": json.dumps(json_schema(menu), indent=1) + "\n",
        ROOT / "docs" / "parameters.md": markdown(menu),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
