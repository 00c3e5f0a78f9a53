"""torchvision, also where torch is a CPU build and torchvision's wheel was compiled for CUDA.

There the compiled operators cannot load and `import torchvision` stops at the missing operator `nms`,
although networks and transforms need none of them. Everything in Kiln imports torchvision from here.
"""

import importlib
import sys
from types import ModuleType

import torch.library


def _import_torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half-imported ones
    for operator in ("torchvision::nms", "torchvision::qnms"):
        torch.library.define(operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


torchvision = _import_torchvision()
