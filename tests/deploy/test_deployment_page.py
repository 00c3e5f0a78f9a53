import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy import Gallery

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def examples(heading):
    """The Python examples below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def here(tmp_path, model, encoded, monkeypatch):
    """A folder as the examples expect it: a model, 42 images of which every seventh is the same, and a query."""
    (tmp_path / "gallery").mkdir()
    for i in range(42):
        (tmp_path / "gallery" / f"{i:02}.jpg").write_bytes(encoded[i % 7])
    (tmp_path / "query.jpg").write_bytes(encoded[3])
    shutil.copy(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)


def test_the_gallery_of_the_page_finds_the_query_by_the_cameras_asked_for(here, capsys):
    use, edit, *_ = examples("Searching a gallery")
    exec(use, {})
    lines = set(capsys.readouterr().out.splitlines())
    copies = {f"1.000 {i:02}.jpg of camera {i // 10}" for i in range(3, 42, 7)}
    assert lines and {line.split()[-1] for line in lines} <= {"0", "3"}
    assert lines & copies == {line for line in copies if line[-1] in "03"}
    exec(edit, {"Gallery": Gallery})
    assert Gallery.load("people").names == [f"{i:02}.jpg" for i in range(1, 42)]


def test_the_search_of_the_page_finds_the_query_in_the_gallery(here, capsys):
    exec(examples("Searching a gallery")[2], {})
    lines = set(capsys.readouterr().out.splitlines())
    assert len(lines) == 5 and lines < {f"1.000 gallery/{i:02}.jpg" for i in range(3, 42, 7)}


def test_the_index_of_the_page_finds_the_same(here, capsys):
    pytest.importorskip("faiss", reason="approximate search needs faiss: pip install faiss-cpu")
    seen = {}
    *_, search, index = examples("Searching a gallery")
    exec(search, seen)
    exact = seen["found"]
    exec(index, seen)
    assert capsys.readouterr().out.endswith("1.0 of what is nearest is found\n")
    np.testing.assert_array_equal(seen["found"].rows, exact.rows)
    np.testing.assert_array_equal(seen["index"].nearest(seen["query"], k=5).rows, exact.rows)
