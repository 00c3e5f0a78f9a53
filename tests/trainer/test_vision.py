import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a torchvision compiled for another torch does at import, with the modules it leaves behind.
BROKEN = """
import torch
from torchvision import half
torch.library.register_fake("torchvision::{operator}", lambda dets, scores, iou_threshold: dets)
torch.library.register_fake("torchvision::qnms", lambda dets, scores, iou_threshold: dets)
"""
REPORT = """
import sys
import torch
import trainer.vision
print(trainer.vision.torchvision is sys.modules["torchvision"], hasattr(torch.ops.torchvision, "nms"))
"""


@pytest.fixture
def load_beside(tmp_path):
    """Import trainer.vision in a fresh process that finds this text as the package torchvision."""
    def load(source):
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(source)
        (package / "half.py").write_text("")
        path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        command = [sys.executable, "-W", "error", "-c", path + REPORT]
        return subprocess.run(command, capture_output=True, text=True)
    return load


def test_the_installed_torchvision_gives_networks_and_transforms():
    from trainer.vision import torchvision
    from torchvision.transforms import v2

    assert torchvision is sys.modules["torchvision"]
    assert torchvision.models.resnet18 and v2.Resize


def test_a_torchvision_without_its_compiled_operators_is_imported_again(load_beside):
    process = load_beside(BROKEN.format(operator="nms"))
    assert (process.stdout.split(), process.stderr) == (["True", "True"], "")


def test_nothing_is_declared_where_torchvision_loads_by_itself(load_beside):
    process = load_beside("from torchvision import half")
    assert (process.stdout.split(), process.stderr) == (["True", "False"], "")


def test_any_other_failure_of_torchvision_is_passed_on(load_beside):
    process = load_beside(BROKEN.format(operator="roi_align"))
    assert "RuntimeError: operator torchvision::roi_align does not exist" in process.stderr
