"""What every backbone is, and those that torchvision holds up to their global pooling."""

from itertools import takewhile
from typing import Annotated, Literal

from torch import Tensor, nn

from trainer.vision import torchvision


class Backbone(nn.Module):
    """A network without its classifier: (B, 3, H, W) float, normalised -> feature map (B, channels, h, w)."""

    name: str
    channels: int

    def download(self) -> dict[str, Tensor]:
        """The source's own ImageNet weights; OSError or RuntimeError when the network does not give them."""
        weights = torchvision.models.get_model_weights(self.name).DEFAULT
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The source's weights under the names and in the shapes that this network has for them."""
        return state


class Trunk(Backbone):
    """Everything of a network that comes before its global pooling."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.name = name
        layers = dict(network.named_children())
        for child in takewhile(lambda child: child not in ("avgpool", "classifier"), layers):
            self.add_module(child, layers[child])
        *_, classifier = layers.values()
        self.channels = next(m.in_features for m in classifier.modules() if isinstance(m, nn.Linear))

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.children():
            images = layer(images)
        return images


def trunk(name: str) -> Trunk:
    """Everything of torchvision's network of this name that comes before its global pooling."""
    return Trunk(name, torchvision.models.get_model(name, weights=None))


def resnet(name: str, *, last_stride: Annotated[
        Literal[1, 2], "stride of the last stage; 1 keeps twice the rows and columns"] = 1) -> Trunk:
    """A ResNet; `last_stride` 1 keeps twice the rows and columns in its last stage, as re-ID networks do."""
    layers = trunk(name)
    if last_stride == 1:
        for module in layers.get_submodule("layer4.0").modules():  # the shortcut strides as well
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return layers
