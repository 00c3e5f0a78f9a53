"""What a run was made with."""

import platform
from importlib.metadata import version

import torch


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and the system."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages, "system": platform.platform()}


def device_name(device: torch.device) -> str:
    """A device as people know it; of a GPU, only for the process that runs on it: CUDA is started for the answer."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {platform.machine()}"
