"""The backbones that model_params.backbone may name; each is built as (name, height, width, *, options)."""

from params.plugin import Table

_TRUNK = "trainer.backbones.backbone:trunk"
_RESNET = "trainer.backbones.backbone:resnet"
_TIMM = "trainer.backbones.timm_model:TimmModel"


class BackboneTable(Table):
    """The menu, which with timm installed also holds every network of timm as "timm/<name>"."""

    def __getitem__(self, name: str) -> str:
        return _TIMM if name.startswith("timm/") else super().__getitem__(name)


BACKBONES = BackboneTable("backbone", {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "resnet152": _RESNET,
    "mobilenet_v3_small": _TRUNK,
    "mobilenet_v3_large": _TRUNK,
    "densenet121": "trainer.backbones.densenet:DenseNet",
    "googlenet": "trainer.backbones.googlenet:GoogLeNet",
    "efficientnet_b0": _TRUNK,
    "efficientnet_b1": _TRUNK,
    "efficientnet_b2": _TRUNK,
    "efficientnet_b3": _TRUNK,
    "convnext_tiny": _TRUNK,
    "convnext_small": _TRUNK,
    "swin_t": _TRUNK,
    "swin_v2_t": _TRUNK,
    "vit_b_16": "trainer.backbones.vit:ViT",
})
