"""The gate for files of lower precision, on a real set and a network of five layers."""

import re

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import export
from data.archive import Meta, Record, open_archive, write_archive
from evaluate.protocol import scored_of
from params.schema import Params
from trainer import build
from trainer.gate import Gate, Trained
from trainer.onnx_writer import ExportError, write_onnx
from trainer.output import Output
from trainer.predict import run_network
from trainer.proof import ProofError
from trainer.splits import Splits


class Small(nn.Module):
    """Its layers `convolution.2` and `neck` have large weights for a channel that is always 0, where asked for."""

    def __init__(self, outliers=()):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU())
        self.neck = nn.Linear(24, 8)
        with torch.no_grad():
            for layer, after in ((0, self.convolution[2]), (4, self.neck)):
                self.convolution[layer].weight[0] = 0
                self.convolution[layer].bias[0] = -1
                after.weight[:, 0] = 1e5 if after in [self.get_submodule(name) for name in outliers] else 0

    def forward(self, images):
        features = self.convolution((images.float() - 120) / 60).mean(dim=(2, 3))
        return Output(features, self.neck(features))


@pytest.fixture
def make_gate(figures, one_registry):
    """A gate for a network, whose metric is how far a file's embeddings of queries are from the network's."""
    def make(network, *, folder=figures, mode="max", evaluated=True):
        name = "nearness" if mode == "max" else "distance"
        params = Params.model_validate({
            "batches_dir": str(folder), "img_h": 64, "img_w": 32, "num_preprocess_workers": 0,
            **({"evaluation_params": {"type": "market_evaluate", "mode": mode}} if evaluated else {})})

        def score(config, predict):
            distance = float(np.abs(predict("query").embeddings - by_network("query").embeddings).mean())
            return {name: 1 - distance if mode == "max" else distance}

        model = Trained({"params": {}}, params, network.eval(), build.preprocessing(params), Splits(str(folder)),
                        scored_of(score) if evaluated else None, logits=False)
        by_network = model.predict(run_network(network, logits=False))
        return Gate(model, model.evaluate(by_network).metrics, export.open_file)
    return make


def lowered(gate, folder, precision="int8", most_drop=0.01):
    write_onnx(gate.model.network, folder / "exact.onnx", gate.model.preprocessing, input_format="uint8_nhwc",
               logits=False)
    return gate.lowered(folder / "exact.onnx", folder / "lower.onnx", precision, most_drop)


@pytest.mark.parametrize(("precision", "mode"), [("fp16", "max"), ("int8", "min")])
def test_a_file_within_the_budget_passes_whole_and_its_cost_is_measured(make_gate, tmp_path, precision, mode):
    proof, cost = lowered(make_gate(Small(), mode=mode), tmp_path, precision)
    assert (list(cost.kept), cost.layers) == ([], 4)
    assert cost.sizes == tuple((tmp_path / name).stat().st_size for name in ("exact.onnx", "lower.onnx"))
    assert list(cost.seconds) == [1, 32] and all(0 < value for pair in cost.seconds.values() for value in pair)
    (exact,), (lower,) = cost.exact.metrics.values(), proof.metrics.values()
    assert 0 < (exact - lower if mode == "max" else lower - exact) < 0.01
    assert proof.agreements[0].cosine < cost.exact.agreements[0].cosine


@pytest.mark.parametrize(("outliers", "count"), [(["neck"], 1), (["neck", "convolution.2"], 2)])
def test_over_the_budget_the_layers_that_cost_most_stay_in_float32(make_gate, tmp_path, outliers, count):
    proof, cost = lowered(make_gate(Small(outliers)), tmp_path)
    assert {layer.name for layer in cost.kept} == {*outliers} and len(cost.kept) == count
    assert all(layer.likeness < 0.9999 for layer in cost.kept)
    assert proof.metrics["nearness"] > 0.99


def test_a_budget_that_cannot_be_met_is_refused_with_the_figures_and_the_layers(make_gate, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.gate.NAMED", 1)
    with pytest.raises(ProofError) as refused:
        lowered(make_gate(Small(), mode="min"), tmp_path, most_drop=0)
    assert re.fullmatch(
        r"int8: distance: 0\.0\d+ of the file, 0\.0000 of the snapshot: a drop of 0\.0\d+, at most 0 allowed, even "
        r"with 2 of 4 layers left in float32 \((neck|convolution\.\d) 0\.9{3}\d{3} and 1 more\)", str(refused.value))


def test_a_run_without_evaluator_gets_no_lower_precision(make_gate, tmp_path):
    with pytest.raises(ExportError, match="^int8: the run has no evaluator, so that nothing says what it would cost; "):
        lowered(make_gate(Small(), evaluated=False), tmp_path)


def test_ranges_come_from_training_images_and_from_no_others(make_gate, archives, tmp_path):
    def graph():
        lowered(make_gate(Small(), folder=archives), tmp_path)
        return onnx.load(tmp_path / "lower.onnx").graph

    def cut(split):
        archive = open_archive(archives / f"{split}.lmdb")
        images = [archive.read(i) for i in range(len(archive))]
        (archives / f"{split}.lmdb").unlink()
        records = [Record(image, 0, 0, -1, f"{i}.jpg") for i, image in enumerate(images[:3])]
        write_archive(archives / f"{split}.lmdb", records, Meta("folder", split, ["one"]))

    before = graph()
    cut("query")
    cut("gallery")
    assert graph() == before
    cut("train")
    assert graph() != before


def test_a_file_that_does_not_open_is_not_proven(make_gate, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ProofError, match=r"^the file cannot be used: .*model\.onnx: onnxruntime cannot open it[^\n]*$"):
        make_gate(Small()).proven(tmp_path / "model.onnx")
