import os
import pickle
import re

import pytest
import torch

import trainer.vision
from params.plugin import Choice
from trainer.backbones import BACKBONES
from trainer.pretrained import compare, load_imagenet, load_pretrained, read_weights
from trainer.snapshot import save_snapshot

CLASSIFIER = "branches.0.classifier.weight"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def make_snapshot(path):
    def make(embedder, averaged=None):
        average = averaged and averaged.state_dict()
        save_snapshot(path, {"network": embedder.state_dict(), "averaged": average})
        return path
    return make


def assert_same_weights(module, state):
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def torchvision_file(name, path):
    torch.manual_seed(1)
    state = trainer.vision.torchvision.models.get_model(name, weights=None).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


def backbone(name):
    torch.manual_seed(0)
    return BACKBONES.build(Choice(name), name=name, height=64, width=32)


def test_a_snapshot_of_the_same_network_is_loaded_whole(make_embedder, make_snapshot):
    there, here = make_embedder(seed=1), make_embedder(seed=0)
    report = load_pretrained(here, make_snapshot(there))
    assert_same_weights(here, there.state_dict())
    assert report.coverage == 1 and not (report.missing or report.unexpected or report.shape_mismatched)
    assert str(report) == f"{len(report.loaded)} tensors loaded, 100.0% of the weights"


def test_the_averaged_weights_of_a_snapshot_are_the_ones_to_start_from(make_embedder, make_snapshot):
    averaged, here = make_embedder(seed=2), make_embedder(seed=0)
    load_pretrained(here, make_snapshot(make_embedder(seed=1), averaged))
    assert_same_weights(here, averaged.state_dict())


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_state_dict_of_data_parallel_training_is_loaded_whole(make_embedder, path, key):
    there, here = make_embedder(seed=1), make_embedder(seed=0)
    state = {f"module.{name}": tensor for name, tensor in there.state_dict().items()}
    torch.save({key: state, "epoch": 3} if key else state, path)
    load_pretrained(here, path)
    assert_same_weights(here, there.state_dict())


def test_another_number_of_classes_is_refused_by_name_with_the_remedy(make_embedder, make_snapshot):
    here = make_embedder(num_classes=7)
    before = {name: tensor.clone() for name, tensor in here.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_pretrained(here, make_snapshot(make_embedder(num_classes=5, seed=1)))
    assert f"is of another network: {CLASSIFIER} is (5, 576) there and (7, 576) here; " in str(error.value)
    assert str(error.value).endswith('"pretrain_snapshot": {"path": ..., "strict": false}')
    assert "\n" not in str(error.value)
    assert_same_weights(here, before)


def test_what_fits_is_loaded_and_the_rest_is_listed(make_embedder, make_snapshot):
    there, here = make_embedder(neck="linear+bn", feature_dim=8, seed=1), make_embedder(num_classes=7)
    fresh = here.state_dict()[CLASSIFIER].clone()
    report = load_pretrained(here, make_snapshot(there), strict=False, min_coverage=0.9)
    assert report.shape_mismatched[CLASSIFIER] == ((5, 8), (7, 576))
    assert "branches.0.neck.linear.weight" in report.unexpected
    assert "not in the file" not in str(report)
    assert "only in the file: branches.0.neck.linear.weight, branches.0.neck.linear.bias" in str(report)
    assert "of another shape: branches.0.neck.norm.weight is (8,) there and (576,) here, " in str(report)
    assert torch.equal(here.state_dict()[CLASSIFIER], fresh)
    assert_same_weights(here.backbone, there.backbone.state_dict())


def test_coverage_is_the_share_of_the_weights_outside_the_classifier(make_embedder):
    embedder = make_embedder(num_classes=1000)
    total = sum(p.numel() for p in embedder.backbone.parameters()) + 2 * 576  # the neck's scale and shift
    scale = {"branches.0.neck.norm.weight": torch.zeros(576)}
    assert compare(embedder, scale).coverage == pytest.approx(576 / total)


def test_too_little_that_fits_is_refused(make_embedder, make_snapshot):
    here = make_embedder("mobilenet_v3_large")
    before = {name: tensor.clone() for name, tensor in here.state_dict().items()}
    message = r"^pretrain_snapshot: .*weights.pth: .* [\d.]+% of the weights; .*; expected at least 90%: use"
    with pytest.raises(ValueError, match=message):
        load_pretrained(here, make_snapshot(make_embedder()), strict=False, min_coverage=0.9)
    assert_same_weights(here, before)


class Intruder:
    def __reduce__(self):
        return os.mkdir, ("intruded",)


def test_code_in_a_file_is_not_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Intruder()}, path)
    with pytest.raises(ValueError, match=r"weights.pth: cannot be read \(UnpicklingError\); expected"):
        read_weights(path)
    assert not (tmp_path / "intruded").exists()


def test_a_missing_file_is_named(path):
    with pytest.raises(ValueError, match="weights.pth: no such file; expected a snapshot of Kiln or a state"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"text\n", pickle.dumps([1, 2], protocol=2), b"PK\x03\x04 torn"])
def test_a_foreign_file_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^[^\n]*weights.pth: (cannot be read|holds no weights)[^\n]*$"):
        read_weights(path)


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_weights_is_named(path, content):
    torch.save(content, path)
    with pytest.raises(ValueError, match="weights.pth: holds no weights; "):
        read_weights(path)


def test_an_imagenet_file_gives_the_backbone_and_leaves_out_the_classifier(path):
    state = torchvision_file("mobilenet_v3_small", path)
    here = backbone("mobilenet_v3_small")
    report = load_imagenet(here, path)
    assert_same_weights(here, state)
    assert report.coverage == 1
    assert report.unexpected == [f"classifier.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")]
    assert "only in the file: classifier.0.weight, " in str(report)


def test_googlenets_file_is_taken_without_its_three_classifiers(path):
    torch.manual_seed(1)
    whole = trainer.vision.torchvision.models.get_model("googlenet", weights=None, init_weights=False).state_dict()
    torch.save(whole, path)
    here = backbone("googlenet")
    report = load_imagenet(here, path)
    assert {name.partition(".")[0] for name in report.unexpected} == {"aux1", "aux2", "fc"}
    assert_same_weights(here, whole)


def test_the_old_names_in_densenets_file_are_todays(path):
    state = torchvision_file("densenet121", path)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor for name, tensor in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({name: tensor for name, tensor in old.items() if not name.endswith("num_batches_tracked")}, path)
    here = backbone("densenet121")
    assert load_imagenet(here, path).missing == []
    assert_same_weights(here, state)


def test_an_imagenet_file_older_than_the_counters_of_batch_norm_is_complete(path):
    state = torchvision_file("resnet18", path)
    torch.save({name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}, path)
    here = backbone("resnet18")
    assert load_imagenet(here, path).missing == []
    assert_same_weights(here, state)


def test_a_snapshot_can_stand_for_the_imagenet_weights(make_embedder, make_snapshot):
    there, here = make_embedder(seed=1), backbone("mobilenet_v3_small")
    assert load_imagenet(here, make_snapshot(there)).coverage == 1
    assert_same_weights(here, there.backbone.state_dict())


@pytest.mark.parametrize("there, here, told", [
    ("resnet34", "resnet18", "only in the file: layer1.2.conv1.weight, "),
    ("resnet18", "resnet34", "not in the file: layer1.2.conv1.weight, "),
    ("resnet18", "mobilenet_v3_small", "0 tensors loaded, 0.0% of the weights"),
])
def test_a_file_of_another_backbone_is_refused(path, there, here, told):
    torchvision_file(there, path)
    network = backbone(here)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    message = f"^imagenet_pretrain: .*weights.pth does not hold the weights of {here}: .*{told}"
    with pytest.raises(ValueError, match=message):
        load_imagenet(network, path)
    assert_same_weights(network, before)


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """An empty folder of downloads, and a network that leads nowhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path / "hub" / "checkpoints"


def test_torchvisions_weights_are_taken_from_its_downloads(downloads):
    url = trainer.vision.torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url
    state = torchvision_file("mobilenet_v3_small", downloads / url.rpartition("/")[2])
    here = backbone("mobilenet_v3_small")
    load_imagenet(here, True)
    assert_same_weights(here, state)


def test_a_failed_download_is_one_line_with_a_remedy(downloads):
    message = ("^imagenet_pretrain: resnet18's weights cannot be downloaded [^\n]*; "
               'give a file that holds them: "imagenet_pretrain": "<path>"$')
    with pytest.raises(ValueError, match=message):
        load_imagenet(backbone("resnet18"), True)
