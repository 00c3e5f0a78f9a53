"""Huang et al., Densely Connected Convolutional Networks, 2017."""

import re

import torch.nn.functional as F
from torch import Tensor

from trainer.backbones.backbone import Trunk
from trainer.vision import torchvision


class DenseNet(Trunk):
    """A torchvision DenseNet, whose classifier sees its features after a ReLU that is no layer of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, torchvision.models.get_model(name, weights=None))

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(super().forward(images))

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's files say "norm.1" and "conv.2" where its network has "norm1" and "conv2"."""
        return {re.sub(r"(?<=\.(?:norm|conv))\.(?=[12]\.)", "", name): tensor for name, tensor in state.items()}
