import sys

import pytest
import torch
import torch.nn.functional as F

import trainer.vision
from params.plugin import Choice
from trainer.backbones import BACKBONES
from trainer.pretrained import load_imagenet


def build(name, height=64, width=32, **options):
    torch.manual_seed(0)
    return BACKBONES.build(Choice(name, options), name=name, height=height, width=width)


# Rows and columns of the map of a 64 x 32 image: one in 16 pixels, or one in 32.
GRIDS = {name: (4, 2) if name.startswith(("resnet", "vit")) else (2, 1) for name in BACKBONES}


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request):
    return build(request.param)


def test_a_backbone_from_its_defaults_turns_64_x_32_images_into_the_map_it_promises(backbone):
    maps = backbone.eval()(torch.zeros(1, 3, 64, 32))
    assert maps.shape == (1, backbone.channels, *GRIDS[backbone.name])


def test_a_backbone_in_evaluation_gives_every_image_the_same_map_each_time(backbone):
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = backbone.eval()(images)
        assert torch.equal(maps, backbone(images))
        alone = backbone(images[1:])
    # Directions, since fresh batch norms let deep networks grow or shrink by many orders of magnitude.
    both, second = F.normalize(maps.flatten(1)), F.normalize(alone.flatten(1))
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=0)
    assert (both[0] - both[1]).norm() > 1e-3


def test_a_training_step_gives_every_parameter_a_finite_gradient(backbone):
    torch.manual_seed(0)
    backbone.train()(torch.randn(4, 3, 64, 32)).square().sum().backward()
    gradients = {name: p.grad for name, p in backbone.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()] == []


@pytest.mark.parametrize("name, options, classifier", [
    ("resnet18", {}, "fc"),
    ("densenet121", {}, "classifier"),
    # transform_input, as torchvision has it where it loads its own weights
    ("googlenet", {"aux_logits": False, "transform_input": True, "init_weights": False}, "fc"),
])
def test_a_trunk_holds_all_that_torchvisions_network_does_before_its_pooling(name, options, classifier):
    torch.manual_seed(1)
    network = trainer.vision.torchvision.models.get_model(name, weights=None, **options).eval()
    trunk = build(name, **({"last_stride": 2} if name == "resnet18" else {})).eval()
    trunk.load_state_dict(network.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        logits = getattr(network, classifier)(trunk(images).mean(dim=(2, 3)))
        torch.testing.assert_close(logits, network(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_last_stride_2_halves_the_map_of_a_resnet(name):
    with torch.device("meta"):
        images = torch.empty(1, 3, 64, 32)
        assert build(name)(images).shape[2:] == (4, 2)
        assert build(name, last_stride=2)(images).shape[2:] == (2, 1)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_can_be_built_without_memory_for_its_weights(name):
    with torch.device("meta"):
        assert build(name)(torch.empty(1, 3, 64, 32)).shape[2:] == GRIDS[name]


def test_a_vit_says_which_sizes_its_patches_divide():
    message = "^img_h, img_w: vit_b_16 needs multiples of 16, got 64 x 40$"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build("vit_b_16", 64, 40)


def test_a_vits_map_has_the_rows_and_columns_of_the_image():
    backbone = build("vit_b_16").eval()
    images = torch.zeros(1, 3, 64, 32)
    images[:, :, 48:, :16] = 5.0  # the patch in the last row, first column
    with torch.no_grad():
        backbone.encoder.pos_embedding.zero_()
        difference = (backbone(images) - backbone(torch.zeros_like(images))).norm(dim=1)[0]
    assert difference.argmax() == 3 * 2


def test_position_embeddings_of_a_square_image_are_resized_to_the_grid():
    with torch.device("meta"):
        backbone = build("vit_b_16")
    square = torch.zeros(1, 1 + 14 * 14, 768)
    square[:, 0] = 7.0
    square[:, 1:, 0] = torch.arange(14.0).repeat_interleave(14)  # channel 0 counts rows, channel 1 columns
    square[:, 1:, 1] = torch.arange(14.0).repeat(14)
    adapted = backbone.adapt({"encoder.pos_embedding": square})["encoder.pos_embedding"]
    assert adapted.shape == (1, 1 + 4 * 2, 768)
    assert (adapted[:, 0] == 7).all()
    rows, columns = adapted[0, 1:, 0].reshape(4, 2), adapted[0, 1:, 1].reshape(4, 2)
    assert (rows.diff(dim=0) > 2).all() and torch.allclose(rows[:, 0], rows[:, 1])
    assert (columns.diff(dim=1) > 5).all() and torch.allclose(columns[0], columns[3], atol=1e-5)


@pytest.mark.parametrize("patches", [4 * 4, 4 * 2])
def test_position_embeddings_of_the_same_grid_or_of_no_square_are_left_alone(patches):
    with torch.device("meta"):
        backbone = build("vit_b_16", 64, 64)
    state = {"encoder.pos_embedding": torch.randn(1, 1 + patches, 768)}
    assert backbone.adapt(state) is state


def test_a_timm_network_without_timm_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # what an import finds where nothing is installed
    monkeypatch.delitem(sys.modules, "trainer.backbones.timm_model", raising=False)
    with pytest.raises(ValueError, match=r'^model_params.backbone: "timm/..." needs timm, .*".\[timm\]"$'):
        BACKBONES.load("timm/resnet18")


@pytest.fixture
def timm():
    import trainer.vision  # noqa: F401

    return pytest.importorskip("timm")


@pytest.mark.parametrize("name, grid", [
    ("timm/resnet18", (2, 1)),
    ("timm/vit_tiny_patch16_224", (4, 2)),
    ("timm/swin_tiny_patch4_window7_224", (2, 1)),
    ("timm/convnext_atto", (2, 1)),  # timm holds its last norm in the head, which is not ours
])
def test_a_timm_network_gives_its_map_and_trains_whatever_its_layout(timm, name, grid):
    backbone = build(name)
    assert backbone.training
    maps = backbone(torch.randn(2, 3, 64, 32))
    assert maps.shape == (2, backbone.channels, *grid)
    maps.square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


def test_a_timm_file_is_taken_without_its_classifier(timm, tmp_path):
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    backbone = build("timm/resnet18")
    report = load_imagenet(backbone, tmp_path / "resnet18.pth")
    assert report.unexpected == ["network.fc.weight", "network.fc.bias"]
    assert torch.equal(backbone.network.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("name, message", [
    ("timm/resnet17", '"resnet17"; did you mean "timm/resnet1'),
    ("timm/mixer_s32_224", "gives no feature map of 64 x 32"),
])
def test_a_timm_network_that_cannot_be_used_says_so(timm, name, message):
    with pytest.raises(ValueError, match=message):
        build(name)
