"""Vision transformers at any image size that their patches divide."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.backbones.backbone import Backbone
from trainer.vision import torchvision

POSITIONS = "encoder.pos_embedding"  # (1, 1 + rows * columns, C), the class token first


class ViT(Backbone):
    """The patch tokens of a torchvision ViT as a map; the class token takes part and is then left out."""

    def __init__(self, name: str, height: int, width: int) -> None:
        super().__init__()
        network = torchvision.models.get_model(name, weights=None)
        patch: int = network.patch_size
        if height % patch or width % patch:
            raise ValueError(f"img_h, img_w: {name} needs multiples of {patch}, got {height} x {width}")
        self.name = name
        self.channels: int = network.hidden_dim
        self.grid = (height // patch, width // patch)
        self.conv_proj = network.conv_proj
        self.class_token = network.class_token
        self.encoder = network.encoder
        positions = torch.empty(1, 1 + self.grid[0] * self.grid[1], self.channels)
        self.encoder.pos_embedding = nn.Parameter(positions.normal_(std=0.02))

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.conv_proj(images).flatten(2).transpose(1, 2)  # (B, 3, H, W) -> (B, h * w, C)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = self.encoder(tokens)[:, 1:]
        return tokens.transpose(1, 2).reshape(-1, self.channels, *self.grid)

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights with their position embeddings, those of a square image, resized to this grid."""
        positions = state.get(POSITIONS)
        if positions is None:
            return state
        patches = positions.shape[1] - 1
        side = isqrt(patches)
        if self.grid == (side, side) or patches != side * side:
            return state
        square = positions[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        resized = F.interpolate(square, self.grid, mode="bicubic", align_corners=False, antialias=True)
        return state | {POSITIONS: torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)}
