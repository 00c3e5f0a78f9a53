"""What a run was made with."""

import platform
from importlib.metadata import version

import torch


def versions(device: torch.device) -> dict[str, str]:
    """Versions of what the numbers depend on, and the machine."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {platform.machine()}"
    return {"python": platform.python_version(), **packages, "system": platform.platform(), "device": name}
