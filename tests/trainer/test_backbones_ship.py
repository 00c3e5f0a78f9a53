"""Backbones from a snapshot to a file: the smallest of each design, where that takes less than 10 seconds.

resnet18, densenet121 and googlenet are shipped by the tests of the recipes. Of transformers and of larger networks,
test_backbones.py tests the passes alone.
"""

import onnxruntime
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from deploy.preprocess import Preprocessing
from trainer.onnx_writer import write_onnx
from trainer.predict import run_network
from trainer.proof import prove
from trainer.snapshot import load_snapshot, save_snapshot

pytestmark = pytest.mark.usefixtures("one_registry")
SMALLEST = ["resnet50", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"]


@pytest.mark.parametrize("backbone", SMALLEST)
def test_a_backbone_comes_back_from_a_snapshot_and_ships(backbone, make_embedder, images, tmp_path):
    network = make_embedder(backbone)
    settle(network, images)
    save_snapshot(tmp_path / "last.pth", {"network": network.state_dict()})
    restored = make_embedder(backbone, seed=1)
    restored.load_state_dict(load_snapshot(tmp_path / "last.pth")["network"])
    write_onnx(restored, tmp_path / "model.onnx", Preprocessing(64, 32), input_format="uint8_nhwc", logits=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    prove(run_network(network, logits=False), lambda pixels: {"embeddings": session.run(None, {"images": pixels})[0]},
          images.permute(0, 2, 3, 1).numpy())


def settle(network, images):
    """Give batch norms the images' statistics; at the fresh ones, deep networks let nothing through."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
