"""The page of a run: what stands on it, that it is whole HTML, and that nothing on it can do harm."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from evaluate.classification_evaluate import run_eval as classification
from evaluate.market_evaluate import run_eval as market
from evaluate.protocol import Scored
from tests.evaluate.pages import EVALUATIONS, FACTS, RESOLVED, STEPS, Packed, predictions_of, scored_by

HOSTILE = '<script>alert("x")</script><img src=https://evil.example/x.png onerror=alert(1)>'
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "report.md"


def test_the_page_tells_how_the_run_went(page):
    told = page().text
    for words in ("exp1", "finished", "epoch 2 of 2", "resnet18", "64 × 32", "softmax + triplet", "best mAP 0.6875",
                  "0 0.0625 0.5000 23", "★ best 1 0.6875 0.5000 23", "2 0.4375 0.5000 23", "kiln 1.2.3"):
        assert words in told
    # 20 laps of 2 s, a quarter of each waiting for data, and 3 evaluations of 5 s; 101 to 120 images/s
    assert "training 40 s of that, waiting for data 10 s 3 evaluations 15 s images per second, the median 110" in told


def test_keys_that_differ_from_their_defaults_are_marked(page):
    told = page()
    assert "● img_h 64" in told.text and "● img_w" not in told.text
    assert 'batches_dir "/packed"' in told.text
    assert "no effect" not in told.text


def test_the_doctor_is_heard(page):
    told = page().text
    assert "train 1,234 30 6 0 4 to 40, median 24" in told
    assert "warning: train: 1 identity with one image Effect: an effect. Remedy: a remedy." in told
    assert "3.0 GiB, too much" in page(FACTS._replace(doctor=["/packed: 3.0 GiB, too much"])).text


def test_curves_say_in_words_what_they_draw(page):
    said = [svg["aria-label"] for svg in page().all("svg") if "aria-label" in svg]
    assert said[0] == ("Loss: loss from 9 to 0.4500, least 0.4500, most 9; loss/softmax from 6 to 0.3000, "
                       "least 0.3000, most 6; loss/triplet from 3 to 0.1500, least 0.1500, most 3")
    assert said[1].startswith("Learning rate: backbone, neck from 0.0100 to 0.0100")  # equal lines are one
    assert said[3] == "Metrics: mAP from 0.0625 to 0.4375, least 0.0625, most 0.6875"  # the others do not change
    assert "best: epoch 1" in page().text


def test_everything_on_the_page_has_a_name_for_those_who_do_not_see_it(page, splits):
    told = page(scored=scored_by(market, splits.__getitem__))
    assert told.all("html") == [{"lang": "en"}]
    names = [name for name, _ in told.elements]
    assert names.count("table") == names.count("caption") >= 6
    assert all(image["alt"] for image in told.all("img"))
    assert all("aria-label" in svg or svg.get("aria-hidden") for svg in told.all("svg"))
    headings = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(following <= heading + 1 for heading, following in zip(headings, headings[1:], strict=False))
    targets = {attributes["id"] for _, attributes in told.elements if "id" in attributes}
    assert {link["href"] for link in told.all("a")} <= {f"#{name}" for name in targets}


def test_the_page_needs_nothing_but_itself(page, splits, tmp_path):
    told = page(scored=scored_by(market, splits.__getitem__))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert not told.all("script") and not told.all("link")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in told.all("img"))
    assert len(told.all("img")) == 3 * 3 * 11
    assert len(text) < 5e6
    assert "prefers-color-scheme: dark" in text


def test_intervals_stand_beside_the_means(page):
    # Means of two draws of 0 and 1 are 0, 1/2 or 1: the middle 95 % end on 0 and 1. Equal values have no spread.
    values = {"mAP": np.array([0.0, np.nan, 1.0]), "rank1": np.array([0.25, np.nan, 0.25])}
    told = page(scored=Scored("queries", values, ranked_by="mAP")).text
    assert "means over 2 queries" in told
    assert "mAP 0.5000 0.0000 1.0000" in told and "rank1 0.2500 0.2500 0.2500" in told
    assert "0 to 1 (95 %)" in told


def test_the_evaluator_of_the_documentation_has_intervals(page, splits):
    own = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)[1], own)
    told = page(scored=scored_by(own["run_eval"], splits.__getitem__)).text
    assert "means over 31 images" in told and re.search(r"norm ([0-9.]+ ){3}", told)


def test_a_search_that_scores_no_query_has_all_but_its_rank_lists(page, splits):
    scored = scored_by(market, splits.__getitem__)._replace(values={}, others={"mean": 0.5})
    told = page(scored=scored).text
    assert "genuine pairs" in told and "query \\ gallery" in told
    assert "Worst queries" not in told and not page(scored=scored).all("img")


def test_an_evaluator_that_gives_metrics_alone_has_no_intervals(page):
    facts = FACTS._replace(resolved={**RESOLVED, "evaluation_params": {"type": "own.nearer"}})
    for scored in (None, Scored("", {}, {"nearer": 0.5})):
        assert "No intervals: own.nearer does not say what its metrics are the means of." in page(facts, scored).text


def test_a_page_says_why_its_best_snapshot_was_not_measured_again(page):
    told = page(scored="gone.lmdb: no such split").text
    assert "No intervals: gone.lmdb: no such split." in told and "does not say" not in told
    unnamed = FACTS._replace(resolved={**RESOLVED, "evaluation_params": None})
    assert "No intervals: no evaluator is named." in page(unnamed).text


def test_a_run_that_diverged_has_a_page_that_says_so(page):
    rows = [*STEPS[:5], {**STEPS[5], "loss": math.nan, "loss/triplet": math.inf}]
    told = page(FACTS._replace(rows=rows)).text
    assert "Not finite, which no line can show: loss (first at step 6), loss/triplet (first at step 6)." in told


def test_exports_stand_in_a_table(page):
    line = {"epoch": 1, "step": 10, "export": "model.onnx", "precision": "fp32", "metrics": {"rank1": 0.5, "mAP": 0.25}}
    told = page(FACTS._replace(rows=[*FACTS.rows, line])).text
    assert "model.onnx fp32 1 mAP 0.2500 – – – –" in told and "Exports" not in page().text


def test_what_a_damaged_status_does_not_say_is_left_out(page):
    told = page(FACTS._replace(status={"state": "dead"})).text
    assert told.startswith("exp1: report exp1 dead Curves") and "Versions" not in told


def test_hostile_names_stay_text(page, fan):
    measured = [{**row, "evaluation": {"mAP": 0.5, HOSTILE: row["epoch"] / 4}} for row in EVALUATIONS]
    facts = FACTS._replace(
        name=HOSTILE, doctor=[HOSTILE], changed={HOSTILE}, resolved={**RESOLVED, HOSTILE: HOSTILE},
        rows=[*STEPS, *measured, {"export": HOSTILE, "precision": HOSTILE}],
        status={**FACTS.status, "error": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    evil = Scored("queries", {HOSTILE: np.array([0.0, 1.0])}, {}, HOSTILE)
    classified = scored_by(classification, predictions_of(3, [(0, 1)]).__getitem__)
    for scored in (HOSTILE, evil, scored_by(market, fan), classified):
        told = page(facts, scored, Packed(f"{HOSTILE}\udcff"))
        assert not told.all("script")
        assert all(image["src"].startswith("data:") and "onerror" not in image for image in told.all("img"))
        assert HOSTILE in told.text


@pytest.mark.parametrize("facts", [
    FACTS._replace(status={"state": "dead"}, rows=[]),
    FACTS._replace(status={**FACTS.status, "best": None, "state": "starting", "steps": None}, rows=[]),
    FACTS._replace(status={**FACTS.status, "best": None}, rows=STEPS[:1], doctor=[]),
    FACTS._replace(status={**FACTS.status, "best": None}, rows=EVALUATIONS[:1]),
    FACTS._replace(status={**FACTS.status, "best": None}, resolved={**RESOLVED, "evaluation_params": None}),
])
def test_a_run_of_which_little_is_known_has_a_page_too(page, facts):
    assert "best metric none" in page(facts).text


def test_a_page_that_cannot_be_written_leaves_the_old_one(page, fan, tmp_path):
    page()
    before = (tmp_path / "report.html").read_bytes()

    class Damaged(Packed):
        def image(self, split, row):
            raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        page(scored=scored_by(market, fan), packed=Damaged())
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == before
