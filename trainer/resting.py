"""Modules of which a part may rest in training."""

from collections.abc import Sequence

from torch import nn


class Resting(nn.Module):
    """A module whose training mode leaves some of its parts in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self._at_rest: list[nn.Module] = []

    def rest(self, modules: Sequence[nn.Module]) -> None:
        """From now on, keep these parts in evaluation mode, so that their batch norms keep their statistics."""
        self._at_rest = list(modules)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Resting":
        super().train(mode)
        for module in self._at_rest:
            module.eval()
        return self
