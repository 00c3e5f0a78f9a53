"""Szegedy et al., Going Deeper with Convolutions, 2015."""

import torch
from torch import Tensor

from trainer.backbones.backbone import Trunk
from trainer.vision import torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, by which images come


class GoogLeNet(Trunk):
    """torchvision's GoogLeNet; its ImageNet weights know pixels by mean and deviation 0.5, as does this network."""

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str) -> None:
        super().__init__(name, torchvision.models.get_model(
            name, weights=None, aux_logits=False, transform_input=False, init_weights=False))
        self.register_buffer("scale", 2 * torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", 2 * torch.tensor(MEAN).view(3, 1, 1) - 1, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * self.scale + self.shift)
