"""The drawn set: Market's layout, the same from the same seed, and not to be told apart by colour alone."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from data.doctor import diagnose
from data.drawing import PATTERNS, Figure, some_person, some_view
from data.figures import main, write_figures
from data.pack import pack
from data.sources import SOURCES
from params.plugin import Choice

MARKET = Choice("market1501")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set of eight identities."""
    out = tmp_path_factory.mktemp("figures") / "set"
    write_figures(out, identities=8)
    return out


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.jpg")}


def test_the_same_seed_draws_the_same_bytes(drawn, tmp_path):
    write_figures(tmp_path / "again", identities=8)
    assert files(tmp_path / "again") == files(drawn)
    write_figures(tmp_path / "other", identities=8, seed=1)
    assert set(files(tmp_path / "other").values()).isdisjoint(files(drawn).values())


def test_half_of_the_identities_are_for_training(drawn):
    splits = SOURCES.build(MARKET, root=drawn)
    assert list(splits["train"].class_names) == ["0001", "0002", "0003", "0004"]
    assert list(splits["gallery"].class_names) == ["0000", "0005", "0006", "0007", "0008"]
    assert {item.class_name for item in splits["gallery"].items} == {None, *splits["gallery"].class_names}
    assert {item.camera for item in splits["train"].items} == {1, 2, 3, 4, 5, 6}


def test_the_doctor_finds_nothing_in_it(drawn, tmp_path):
    pack(MARKET, drawn, tmp_path / "packed")
    assert diagnose(tmp_path / "packed").findings == []


def test_pictures_have_the_size_of_market(drawn):
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((64, 128), "RGB")


def test_mean_colour_does_not_tell_who_it_is(tmp_path):
    write_figures(tmp_path / "set", identities=40)
    splits = SOURCES.build(MARKET, root=tmp_path / "set")
    query, gallery = (
        [(item, np.asarray(Image.open(tmp_path / "set" / item.path)).mean((0, 1))) for item in splits[name].items
         if item.class_name] for name in ("query", "gallery"))
    right = []
    for asked, colour in query:
        others = [(np.abs(colour - seen).sum(), item.class_name) for item, seen in gallery
                  if (item.class_name, item.camera) != (asked.class_name, asked.camera)]
        right.append(min(others)[1] == asked.class_name)
    assert np.mean(right) < 0.2


def test_every_pattern_and_side_of_a_person_looks_different():
    rng = np.random.default_rng(0)
    person, view = some_person(rng)._replace(bag="backpack"), some_view(rng)
    pictures = []
    for pattern in PATTERNS:
        for front in (True, False):
            canvas = Image.new("RGB", (128, 256))
            Figure(canvas, person._replace(pattern=pattern), view._replace(front=front)).draw()
            pictures.append(np.asarray(canvas, int))
    assert all(np.abs(one - other).sum() > 1000 for one, other in combinations(pictures, 2))


def test_a_folder_that_is_there_is_left_alone(drawn, capsys):
    before = files(drawn)
    with pytest.raises(SystemExit) as left:
        main([str(drawn), "--identities", "4"])
    assert left.value.code == 2 and f"{drawn}: exists already" in capsys.readouterr().err
    assert files(drawn) == before


def test_the_program_draws_what_is_asked(tmp_path, capsys):
    assert main([str(tmp_path / "set"), "--identities", "4", "--seed", "3"]) == 0
    count = len(files(tmp_path / "set"))
    assert capsys.readouterr().out == f"{tmp_path / 'set'}: {count} images of 4 identities by 6 cameras\n"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
