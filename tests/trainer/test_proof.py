import numpy as np
import pytest
import torch
from torch import nn

from data.records import Batch
from trainer.onnx_writer import Deployed
from trainer.output import Output
from trainer.predict import predict, run_network
from trainer.proof import BATCH_SIZES, ProofError, prove


class Linear(nn.Module):
    """uint8 (B, 3, 4, 4) -> Output with two classifiers and margins."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(48, 8)
        self.classifiers = nn.ModuleList([nn.Linear(8, 5), nn.Linear(8, 5)])

    def forward(self, images):
        embedding = self.embedding(images.float().flatten(1) / 255 - 0.5)
        lengths = embedding.norm(dim=1)
        return Output(embedding, embedding, [f(embedding) for f in self.classifiers], lengths, norms=lengths)


@pytest.fixture
def network():
    return Linear().eval()


@pytest.fixture
def by_network(network):
    return run_network(network, logits=True)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


def test_a_network_agrees_with_itself_at_every_batch_size(by_network, pixels):
    agreements = prove(by_network, by_network, pixels)
    assert tuple(agreement.batch_size for agreement in agreements) == BATCH_SIZES == (1, 2, 3, 7, 16)
    for agreement in agreements:
        assert agreement.cosine == pytest.approx(1, abs=1e-9)
        assert agreement.max_abs < 1e-6
        assert list(agreement.relative) == ["logits", "margins", "norms"] and max(agreement.relative.values()) < 1e-6


def test_every_image_is_seen_at_every_batch_size_and_few_are_repeated(by_network, pixels):
    seen = {size: 0 for size in BATCH_SIZES}

    def count(images):
        seen[len(images)] = seen.get(len(images), 0) + 1
        return by_network(images)

    prove(by_network, count, pixels[:5])
    assert seen[1] >= 16 and seen[2] >= 8 and seen[3] == 5 and seen[7] == 2 and seen[16] == 1


def test_a_file_that_is_wrong_from_a_batch_size_on_is_caught_there(by_network, pixels):
    def first_of_the_batch(images):
        said = by_network(images)
        return said if len(images) < 3 else {name: value[[0] * len(value)] for name, value in said.items()}

    with pytest.raises(ProofError, match=r"^batch of 3: cosine -?0\.\d+ to the network, at least"):
        prove(by_network, first_of_the_batch, pixels)


def test_swapped_channels_are_caught(by_network, pixels):
    with pytest.raises(ProofError, match="^batch of 1: cosine"):
        prove(by_network, lambda images: by_network(images[..., ::-1].copy()), pixels)


@pytest.mark.parametrize("name", ["logits", "margins", "norms"])
def test_every_other_output_is_proven_too_and_named(by_network, pixels, name):
    def off(images):
        said = dict(by_network(images))
        said[name] = said[name] * 1.01
        return said

    with pytest.raises(ProofError, match=rf"^batch of 1: {name} of network and file differ by 1\.00% of"):
        prove(by_network, off, pixels)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_dead_file_is_caught(by_network, pixels, value):
    def dead(images):
        return {**by_network(images), "embeddings": np.full((len(images), 8), value, np.float32)}

    with pytest.raises(ProofError, match="batch of 1: cosine (0.000000|nan)"):
        prove(by_network, dead, pixels)


def test_a_file_that_takes_one_batch_size_is_caught(by_network, pixels):
    def fixed(images):
        if len(images) != 1:
            raise RuntimeError("Got: 2 Expected: 1\nmore")
        return by_network(images)

    with pytest.raises(ProofError, match="^batch of 2: the file does not run: Got: 2 Expected: 1$"):
        prove(by_network, fixed, pixels)


def test_an_error_without_words_is_told_by_its_class(by_network, pixels):
    def silent(images):
        raise MemoryError

    with pytest.raises(ProofError, match="^batch of 1: the file does not run: MemoryError$"):
        prove(by_network, silent, pixels)


def test_a_missing_output_is_caught(network, by_network, pixels):
    with pytest.raises(ProofError, match="embeddings, logits, margins, norms expected, the file has emb"):
        prove(by_network, run_network(network, logits=False), pixels)


def test_predictions_are_those_of_every_image_in_order_and_the_mode_is_put_back(network, pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    labels, cameras = torch.arange(20), torch.arange(20) % 3
    batches = [Batch(images[i:i + 7], labels[i:i + 7], cameras[i:i + 7]) for i in range(0, 20, 7)]
    network.train()
    asked = []
    told = predict(run_network(network, logits=True), batches, lambda: asked.append(network.training))
    assert (asked, network.training) == ([True] * 3, True)
    output = network.eval()(images)
    np.testing.assert_allclose(told.embeddings, torch.nn.functional.normalize(output.embedding).detach(), atol=1e-6)
    np.testing.assert_allclose(told.logits, torch.stack(output.logits).mean(0).detach(), atol=1e-6)
    assert told.labels.tolist() == list(range(20)) and told.cameras.tolist() == cameras.tolist()


def test_the_graph_gives_what_it_is_compared_with(network, by_network, pixels):
    with torch.no_grad():
        said = Deployed(network, "uint8_nhwc", logits=True)(torch.from_numpy(pixels))
    for name, value in by_network(pixels).items():
        np.testing.assert_allclose(said[name].numpy(), value, atol=1e-6)


def test_margins_near_zero_may_differ_by_rounding(by_network, pixels):
    def nearly(scale):
        def run(batch):
            return {**by_network(batch), "margins": np.full(len(batch), scale, np.float32)}
        return run
    assert prove(nearly(0.0), nearly(9e-6), pixels)[0].relative["margins"] == pytest.approx(9e-4)
    with pytest.raises(ProofError, match="^batch of 1: margins"):
        prove(nearly(0.0), nearly(2e-5), pixels)
