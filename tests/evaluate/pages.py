"""Pages of reports, read as their readers do, and what is written on them."""

from html.parser import HTMLParser

import numpy as np
from PIL import Image

from data.findings import Finding
from data.doctor import Report
from data.doctor import Summary as Split
from data.records import Predictions
from evaluate.report.page import Facts

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
                [Finding("warning", "train: 1 identity with one image", "an effect", "a remedy", "singletons")])
FACTS = Facts("exp1", {"state": "finished", "epoch": 2, "step": 20, "steps": 20, "error": None, "heartbeat": 0,
                       "best": {"metric": "mAP", "value": 0.6875, "epoch": 1}, "versions": {"kiln": "1.2.3"}},
              [*STEPS, *EVALUATIONS], RESOLVED, {"img_h"}, [DOCTOR])


def scored_by(run_eval, predict):
    return run_eval.scored({}, predict)


def predictions_of(classes, wrong):
    """Every class 4 times, each right but for (class, said) of its last image."""
    labels = np.repeat(np.arange(classes), 4)
    logits = np.eye(classes, dtype=np.float32)[labels]
    for true, said in wrong:
        logits[4 * true + 3] = np.eye(classes)[said]
    return {"val": Predictions(np.ones((len(labels), 2), np.float32), logits, labels, np.full(len(labels), -1))}
