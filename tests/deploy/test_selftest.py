import json

import pytest

from deploy import FeatureExtractor, ModelError
from deploy.selftest import main, replay

CPU = ["CPUExecutionProvider"]


def edit_golden(change):
    """An edit of a model's metadata that changes its golden vectors."""
    def edit(said):
        golden = json.loads(said["golden"])
        change(golden)
        said["golden"] = json.dumps(golden)
    return edit


def test_golden_vectors_replay_to_the_bit_of_the_pixels(models):
    for path in models.values():
        result = replay(FeatureExtractor(path, providers=CPU))
        assert result.passed
        assert (result.images, result.same_pixels) == (4, 4)
        assert result.cosine > 0.999999 and result.max_abs < 1e-4


def test_the_command_prints_the_comparison_and_ends_with_0(model, capsys):
    assert main([str(model), "--providers", *CPU]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {model} on CPUExecutionProvider\n")
    assert "4 of 4 images" in printed and "at least 0.9999 expected" in printed


def test_another_embedding_fails(with_metadata, capsys):
    def turn(golden):
        golden["embeddings"][2][0] += 0.1

    path = with_metadata("turned.onnx", edit_golden(turn))
    assert main([str(path), "--providers", *CPU]) == 1
    assert capsys.readouterr().out.startswith("FAILED")


def test_other_pixels_are_counted(with_metadata):
    def blur(golden):
        golden["pixels"][0] = "0" * 64

    result = replay(FeatureExtractor(with_metadata("blurred.onnx", edit_golden(blur)), providers=CPU))
    assert (result.same_pixels, result.passed) == (3, True)


def test_a_network_that_has_died_here_fails(with_metadata):
    def forget(golden):
        golden["embeddings"] = [[0.0] * 6] * 4

    assert not replay(FeatureExtractor(with_metadata("dead.onnx", edit_golden(forget)), providers=CPU)).passed


def test_a_model_without_golden_vectors_cannot_be_tested(with_metadata, capsys):
    path = with_metadata("plain.onnx", lambda said: said.pop("golden"))
    with pytest.raises(ModelError, match=r"plain\.onnx: no golden vectors"):
        replay(FeatureExtractor(path, providers=CPU))
    assert main([str(path), "--providers", *CPU]) == 2
    assert "no golden vectors" in capsys.readouterr().err
