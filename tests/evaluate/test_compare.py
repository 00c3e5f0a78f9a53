"""Two runs on the same queries."""

import json
import re

import numpy as np
import pytest

from data.archive import Meta, Record, open_archive, write_archive
from data.records import DataError
from evaluate.bootstrap import paired
from evaluate.compare import as_json, compared, refuse_other_images, refuse_other_metrics, table
from evaluate.protocol import Scored

FIRST = np.array([1.0, np.nan, 0.5, 0.25, 0.75])
SECOND = np.array([0.5, np.nan, 0.5, 0.0, 0.5])


@pytest.fixture
def archive(tmp_path):
    """Write and open an archive of three images; `first` changes what is known of the first one."""
    def made(name, **first):
        known = {"image": b"pixels", "label": 0, "camera": 1, "sequence": -1, "path": "a.jpg"}
        records = [Record(**{**known, **first}), Record(**known), Record(**known)]
        write_archive(tmp_path / name, records, Meta("folder", "query", ["a", "b"]))
        return open_archive(tmp_path / name)
    return made


def test_a_difference_is_that_of_the_queries_that_count():
    found = compared(Scored("queries", {"mAP": FIRST}), Scored("queries", {"mAP": SECOND}))
    assert found["mAP"] == (0.625, 0.375, paired(FIRST[[0, 2, 3, 4]], SECOND[[0, 2, 3, 4]]), "4 queries")
    assert found["mAP"].difference.mean == 0.25


def test_a_run_does_not_differ_from_itself():
    found = compared(Scored("queries", {"mAP": FIRST}), Scored("queries", {"mAP": FIRST}))
    assert found["mAP"].difference == (0, 0, 0, 1)


def test_what_is_said_to_people_is_what_is_said_to_machines():
    found = compared(Scored("queries", {"mAP": FIRST}), Scored("queries", {"mAP": SECOND}))
    params = {"lr.base_lr": (0.1, 0.2)}
    said = json.loads(as_json(["a", "b"], found, params))
    assert said["metrics"]["mAP"]["difference"] == 0.25
    assert (said["runs"], said["params"]) == (["a", "b"], {"lr.base_lr": [0.1, 0.2]})
    header, line, over, _, param = table(["a", "b"], found, params)
    assert line.split()[:4] == ["mAP", "0.6250", "0.3750", "+0.2500"]
    assert len(header) == len(line)
    assert over == "paired over 4 queries; the difference is a - b"
    assert param == "  lr.base_lr  0.1  0.2"
    assert list(table(["a", "b"], found, {}))[-1] == "no params differ"


@pytest.mark.parametrize("second, said", [
    (Scored("queries", {"mAP": np.nan_to_num(SECOND)}), "mAP: over 4 queries of one run and other 5 queries"),
    (Scored("images", {"mAP": SECOND}), "mAP: over 4 queries of one run and other 4 images"),
    (Scored("images", {"top1": SECOND}), "no metric is known by query in both runs: mAP in one, top1 in the other"),
    (Scored("", {}, {"mAP": 0.5}), "no metric is known by query in both runs: mAP in one, none in the other"),
    (Scored("queries", {"mAP": SECOND}, asked=["test"]), r"asked for other splits \(val and test\)"),
])
def test_means_over_something_else_are_refused_in_one_line(second, said):
    with pytest.raises(DataError, match=said) as error:
        compared(Scored("queries", {"mAP": FIRST}, asked=["val"]), second._replace(asked=second.asked or ["val"]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("params, said", [
    ({"evaluation_params.ap": ("standard", "trapezoid")},
     'same: evaluation_params.ap "standard" and "trapezoid"; give both one with --set evaluation_params.ap=...'),
    ({"evaluation_params.split": ("val", "test")}, "--set evaluation_params.split=..."),
    ({"evaluation_params.type": ("a.b", None), "evaluation_params.k": ([1], None)},
     "not the same: evaluation_params.type \"a.b\" and null; give both one with --set 'evaluation_params={...}'"),
])
def test_params_by_which_one_name_means_two_metrics_are_refused(params, said):
    with pytest.raises(DataError, match=re.escape(said)):
        refuse_other_metrics({"lr.base_lr": (1, 2), **params})


def test_runs_may_differ_in_how_they_train_and_rank():
    keys = "lr.base_lr", "evaluation_params.every", "evaluation_params.spectral", "evaluation_params.rerank.k1"
    refuse_other_metrics(dict.fromkeys(keys, (1, 2)))


def test_archives_with_the_same_images_are_one_set_wherever_they_lie(archive):
    refuse_other_images("query", archive("one.lmdb"), archive("other.lmdb", path="elsewhere/a.jpg"))


@pytest.mark.parametrize("first, said", [
    ({"label": 1}, "differ in labels or cameras"), ({"camera": 2}, "differ in labels or cameras"),
    ({"image": b"other pixels"}, r"1 of 3 images differ, the first of them .*one\.lmdb: record 0"),
])
def test_archives_with_other_images_are_refused(archive, first, said):
    with pytest.raises(DataError, match=said):
        refuse_other_images("query", archive("one.lmdb"), archive("other.lmdb", **first))


def test_archives_of_other_sizes_are_refused(archive, tmp_path):
    write_archive(tmp_path / "small.lmdb", [Record(b"pixels", 0, 1, -1, "a.jpg")], Meta("folder", "query", ["a", "b"]))
    with pytest.raises(DataError, match="query: .*one.lmdb has 3 images, .*small.lmdb 1; compare runs on one set"):
        refuse_other_images("query", archive("one.lmdb"), open_archive(tmp_path / "small.lmdb"))
