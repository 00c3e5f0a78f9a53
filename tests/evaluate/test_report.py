"""The page of a run: what stands on it, that it is whole HTML, and that nothing on it can do harm."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.checks import Finding
from data.doctor import Report
from data.doctor import Summary as Split
from data.records import Predictions
from evaluate.classification_evaluate import run_eval as classification
from evaluate.market_evaluate import run_eval as market
from evaluate.protocol import Scored
from evaluate.report.page import Facts, write_report
from evaluate.report.pictures import Pictures
from evaluate.retrieval_evaluate import run_eval as retrieval

HOSTILE = '<script>alert("x")</script><img src=https://evil.example/x.png onerror=alert(1)>'
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "report.md"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page's text and elements; every element that was opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(f" {data} ")

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


class Packed:
    """Images of one colour each, and classes of one name."""

    def __init__(self, name="{}"):
        self.name = name

    def image(self, split, row):
        return Image.new("RGB", (300, 600), (row % 256, 80, 160))

    def class_names(self, split):
        return [self.name.format(label) for label in range(100)]


STEPS = [{"epoch": 1 + step // 11, "step": step, "loss": 9.0 / step, "loss/softmax": 6.0 / step,
          "loss/triplet": 3.0 / step, "lr/backbone": 0.01, "lr/neck": 0.01, "lr/classifier": 0.02,
          "images_per_second": 100.0 + step, "data_wait": 0.25, "seconds": 2.0} for step in range(1, 21)]
EVALUATIONS = [{"epoch": epoch, "step": 10 * epoch, "evaluation": {"mAP": value, "rank1": 0.5, "queries": 23.0},
                "seconds": 5.0} for epoch, value in ((0, 0.0625), (1, 0.6875), (2, 0.4375))]
RESOLVED = {
    "epoch": 2, "img_h": 64, "img_w": 32, "batches_dir": "/packed",
    "losses": [{"type": "softmax"}, {"type": "triplet"}],
    "model_params": {"backbone": "resnet18", "neck": {"type": "bnneck"}}, "about": {"what": "no effect"},
    "evaluation_params": {"type": "market_evaluate"},
}
DOCTOR = Report("/packed", [Split("train", 1234, 30, 6, 0, 4, 24.0, 40, {})],
                [Finding("warning", "singletons", "train: 1 identity with one image", "an effect", "a remedy")])
FACTS = Facts("exp1", {"state": "finished", "epoch": 2, "step": 20, "steps": 20, "error": None, "heartbeat": 0,
                       "best": {"metric": "mAP", "value": 0.6875, "epoch": 1}},
              [*STEPS, *EVALUATIONS], RESOLVED, {"img_h"}, [DOCTOR], {"kiln": "1.2.3"})


@pytest.fixture
def page(tmp_path):
    """Write the page of these facts and read it."""
    def written(facts=FACTS, scored=None, packed=None):
        path = tmp_path / "report.html"
        write_report(path, facts, scored, packed or Packed())
        return Page(path.read_text(encoding="utf-8"))
    return written


def scored_by(run_eval, predict):
    return run_eval.scored({}, predict)


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
    told = page(scored=Scored("queries", values, finest="mAP")).text
    assert "means over 2 queries" in told
    assert "mAP 0.5000 0.0000 1.0000" in told and "rank1 0.2500 0.2500 0.2500" in told
    assert "0 to 1 (95 %)" in told


def test_the_evaluator_of_the_documentation_has_intervals(page, splits):
    own = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)[1], own)
    told = page(scored=scored_by(own["run_eval"], splits.__getitem__)).text
    assert "means over 31 images" in told and re.search(r"norm ([0-9.]+ ){3}", told)


def test_an_evaluator_that_gives_metrics_alone_has_no_intervals(page):
    facts = FACTS._replace(resolved={**RESOLVED, "evaluation_params": {"type": "own.nearer"}})
    for scored in (None, Scored("", {}, {"nearer": 0.5})):
        assert "No intervals: own.nearer does not say what its metrics are the means of." in page(facts, scored).text


@pytest.fixture
def fan(reid):
    """One query; of the gallery wrong, right, wrong, right count, at 10, 20, 40 and 50 degrees."""
    angles = np.radians([0, 10, 20, 30, 40, 50])
    gallery = np.column_stack([np.cos(angles), np.sin(angles)])
    return reid(([[1, 0]], [4], [1]), (gallery, [4, 0, 4, -1, 9, 4], [1, 1, 2, 2, 2, 3]))


def test_rank_lists_frame_and_mark_what_is_right_and_what_is_wrong(page, fan):
    told = page(scored=scored_by(market, fan), packed=Packed("class {}"))
    assert [image["alt"] for image in told.all("img")][:5] == [
        "query: class 4, camera 1", "wrong: class 0, camera 1, similarity 0.985",
        "right: class 4, camera 2, similarity 0.940", "wrong: class 9, camera 2, similarity 0.766",
        "right: class 4, camera 3, similarity 0.643"]
    frames = [item.get("class") for item in told.all("li") if item.get("class") in ("query", "right", "wrong")]
    assert frames == ["query", "wrong", "right", "wrong", "right"] * 3  # the worst, the median and the best one
    assert "query class 4 camera 1 ✗ 0.985 class 0 camera 1 ✓ 0.940" in told.text
    assert "mAP 0.5000" in told.text


def test_pairs_cameras_and_missing_impostors_are_told(page, fan):
    told = page(scored=scored_by(market, fan)).text
    assert "2 genuine pairs (of one class) and 2 impostors (of two), query against gallery" in told
    assert "far=1e-2 needs 3,000 impostors, has 2" in told
    # by camera 2 alone: right before wrong; by camera 3: right alone; by camera 1 nothing
    assert "query \\ gallery 1 2 3 1 – 1.000 1.000 1.000 1.000" in told


def test_retrieval_without_cameras_has_rank_lists_and_no_table_of_cameras(page):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 5)
    predictions = Predictions(
        (np.eye(12)[labels] + 0.3 * rng.standard_normal((60, 12))).astype(np.float32), None, labels, np.full(60, -1))
    told = page(scored=scored_by(retrieval, {"test": predictions}.__getitem__)).text
    assert "Worst queries by map@r" in told and "no camera" not in told
    assert "120 genuine pairs" in told and "Cameras" not in told


def predictions_of(classes, wrong):
    """Every class 4 times, each right but for (class, said) of its last image."""
    labels = np.repeat(np.arange(classes), 4)
    logits = np.eye(classes, dtype=np.float32)[labels]
    for true, said in wrong:
        logits[4 * true + 3] = np.eye(classes)[said]
    return {"val": Predictions(np.ones((len(labels), 2), np.float32), logits, labels, np.full(len(labels), -1))}


def test_few_classes_have_a_confusion_matrix(page):
    told = page(scored=scored_by(classification, predictions_of(3, [(1, 2)]).__getitem__), packed=Packed("c{}")).text
    assert "class \\ said c0 c1 c2 c0 4 0 0 c1 0 3 1 c2 0 0 4" in told
    assert "class taken for images of c1 c2 1 4" in told
    # 11 of 12 right
    assert "top1 0.9167" in told and "means over 12 images" in told


def test_many_classes_have_the_pairs_that_are_confused_most(page):
    told = page(scored=scored_by(classification, predictions_of(40, [(7, 30)]).__getitem__), packed=Packed("c{}")).text
    assert "class \\ said" not in told and "class taken for images of c7 c30 1 4" in told
    right = page(scored=scored_by(classification, predictions_of(40, []).__getitem__))
    assert "No image was taken for another class than its own." in right.text


def test_a_class_that_the_split_does_not_name_has_its_number(page):
    told = page(scored=scored_by(classification, predictions_of(120, [(7, 110)]).__getitem__), packed=Packed("c{}"))
    assert "class taken for images of c7 class 110 1 4" in told.text


def test_hostile_names_stay_text(page, fan):
    facts = FACTS._replace(
        name=HOSTILE, versions={HOSTILE: HOSTILE}, doctor=[HOSTILE], changed={HOSTILE},
        rows=[*STEPS, *({**row, "evaluation": {"mAP": 0.5, HOSTILE: row["epoch"] / 4}} for row in EVALUATIONS)],
        status={**FACTS.status, "error": HOSTILE}, resolved={**RESOLVED, HOSTILE: HOSTILE})
    evil = Scored("queries", {HOSTILE: np.array([0.0, 1.0])}, {}, HOSTILE)
    for scored in (evil, scored_by(market, fan), scored_by(classification, predictions_of(3, [(0, 1)]).__getitem__)):
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


def test_images_that_the_page_has_no_room_for_are_left_out():
    pictures = Pictures(Packed(), budget=2000)
    uris = [pictures.uri("query", row) for row in range(10)]
    kept = [uri for uri in uris if uri]
    assert 0 < len(kept) < 10 and sum(map(len, kept)) <= 2000


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
