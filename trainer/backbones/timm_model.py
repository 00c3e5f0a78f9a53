"""Any network of timm, where timm is installed."""

from difflib import get_close_matches
from functools import partial

import torch
from torch import Tensor

import trainer.vision  # noqa: F401  timm imports torchvision, which must be mended first
from trainer.backbones.backbone import Backbone

try:
    import timm
except ImportError as error:
    raise ValueError(
        'model_params.backbone: "timm/..." needs timm, which is not installed; pip install -e ".[timm]"'
    ) from error


class TimmModel(Backbone):
    """The last feature map of timm's network of this name, whatever layout timm gives it."""

    def __init__(self, name: str, height: int, width: int) -> None:
        super().__init__()
        architecture = name.removeprefix("timm/")
        if not timm.is_model(architecture):
            close = get_close_matches(architecture, timm.list_models(), n=1)
            hint = f'; did you mean "timm/{close[0]}"?' if close else ""
            raise ValueError(f'model_params.backbone: timm has no network "{architecture}"{hint}')
        settings = timm.get_pretrained_cfg(architecture)
        fixed = settings is not None and settings.fixed_input_size
        size = {"img_size": (height, width)} if fixed else {}
        self.name = name
        self._create = partial(timm.create_model, architecture, num_classes=0, **size)
        try:
            self.network = self._create(pretrained=False)
            with torch.enable_grad():
                maps = self.eval()(torch.zeros(1, 3, height, width))
        except (AssertionError, AttributeError, RuntimeError) as error:
            where = f'model_params.backbone: "{name}" gives no feature map of {height} x {width} images'
            raise ValueError(f"{where}: {error}") from error
        self.train()
        self.channels = maps.shape[1]
        parameters = list(self.parameters())
        used = torch.autograd.grad(maps.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, used, strict=True):
            parameter.requires_grad_(gradient is not None)  # the rest belongs to timm's own head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(images)
        if features.ndim == 3:  # (B, tokens, C), class and register tokens first
            patches = features[:, self.network.num_prefix_tokens:].transpose(1, 2)
            return patches.reshape(-1, features.shape[2], *self.network.patch_embed.grid_size)
        nhwc = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if nhwc else features

    def download(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._create(pretrained=True).state_dict()
        return state

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"network.{key}": value for key, value in state.items()}
