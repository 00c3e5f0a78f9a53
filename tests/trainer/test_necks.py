import pytest
import torch

from params.plugin import Choice
from trainer.necks import NECKS
from trainer.pooling import POOLINGS


def dim_of(name):
    return 6 if "linear" in name else None


@pytest.fixture
def make_neck():
    """A neck of 4 channels or more, with weights of seed 0."""
    def make(name, *, channels=4, feature_dim=6, **options):
        torch.manual_seed(0)
        return NECKS.build(Choice(name, options), channels=channels, feature_dim=feature_dim)
    return make


@pytest.fixture
def left_out(make_neck):
    """Which of 200 channels of 8 images a dropout of 0.6 left out; the others are checked to be scaled up."""
    def of(dropout_type):
        neck = make_neck("dropout+linear", channels=200, feature_dim=200, dropout=0.6, dropout_type=dropout_type)
        with torch.no_grad():
            neck.linear.weight.copy_(torch.eye(200))
            neck.linear.bias.zero_()
            kept, _ = neck(torch.full((8, 200), 2.0))
        zero = kept == 0
        torch.testing.assert_close(kept[~zero], torch.full_like(kept[~zero], 2 / (1 - 0.6)))
        return zero
    return of


@pytest.mark.parametrize("name", ["none", "scale"])
def test_a_neck_without_linear_layer_refuses_a_feature_dim(make_neck, name):
    message = "^model_params.feature_dim: a neck without linear layer keeps all 4 channels, got 8; "
    with pytest.raises(ValueError, match=message):
        make_neck(name, feature_dim=8)


@pytest.mark.parametrize("name", [name for name in NECKS if "linear" in name])
def test_a_linear_neck_needs_a_feature_dim(make_neck, name):
    with pytest.raises(ValueError, match="^model_params.feature_dim: the linear necks need it, and it is missing; "):
        make_neck(name, feature_dim=None)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("neck", NECKS)
def test_every_pooling_trains_with_every_neck(images, make_embedder, pooling, neck):
    embedder = make_embedder("resnet18", pooling, neck, feature_dim=dim_of(neck))
    output = embedder(images)
    (output.features.square().sum() + output.logits[0].square().sum()).backward()
    trained = [p for p in embedder.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("neck", NECKS)
def test_a_neck_in_evaluation_treats_every_row_alike(make_neck, neck):
    module = make_neck(neck, feature_dim=dim_of(neck)).eval()
    pooled = torch.randn(3, 4)
    for whole, row in zip(module(pooled), module(pooled[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], row)


@pytest.mark.parametrize("neck, normed", [
    ("none", False), ("linear", False), ("linear+bn", True), ("linear+bn+dropout", True), ("linear+ln", False),
    ("dropout+linear", False), ("bnneck", True)])
def test_features_are_taken_before_the_batch_norm_and_the_embedding_after_it(make_neck, neck, normed):
    options = {"dropout": 0.0} if neck.endswith("dropout") else {}
    module = make_neck(neck, feature_dim=dim_of(neck), **options)
    features, embedding = module(5 + 3 * torch.randn(64, 4))
    assert torch.equal(features, embedding) != normed
    if normed:
        torch.testing.assert_close(embedding.mean(dim=0), torch.zeros(module.dim), atol=1e-4, rtol=0)
        torch.testing.assert_close(embedding.std(dim=0), torch.ones(module.dim), atol=0.1, rtol=0)


def test_bnneck_never_shifts_and_its_classifier_has_no_bias(images, make_embedder):
    embedder = make_embedder()
    optimizer = torch.optim.SGD(embedder.parameters(), lr=0.1, weight_decay=0.1)
    embedder(images).logits[0].square().sum().backward()
    optimizer.step()
    branch = embedder.branches[0]
    assert (branch.neck.norm.bias == 0).all() and branch.classifier.bias is None


def test_bnneck_with_a_feature_dim_has_a_linear_layer_without_bias(images, make_embedder):
    embedder = make_embedder(feature_dim=8)
    assert embedder.branches[0].neck.linear.bias is None
    assert embedder(images).features.shape == (6, 8)


def test_weights_begin_as_the_papers_set_them(make_neck):
    neck = make_neck("linear+bn", channels=400, feature_dim=200)
    deviation = neck.linear.weight.std()  # sqrt(2 / 200) = 0.1
    assert abs(deviation - 0.1) < 2e-3 and (neck.linear.bias == 0).all()
    assert abs(neck.norm.weight.mean() - 1) < 5e-3 and abs(neck.norm.weight.std() - 0.02) < 3e-3
    assert (neck.norm.bias == 0).all()


def test_the_classifier_alone_sees_the_dropout(images, make_embedder):
    embedder = make_embedder(neck="linear+bn+dropout", feature_dim=8).train()
    output = embedder(images)
    assert (output.embedding != 0).all()
    clean = embedder.branches[0].classifier(output.embedding)
    assert not torch.allclose(output.logits[0], clean)


def test_shared_dropout_leaves_out_the_same_channels_of_the_whole_batch(left_out):
    zero = left_out("shared")
    assert torch.equal(zero, zero[:1].expand_as(zero))
    assert abs(float(zero[0].float().mean()) - 0.6) < 0.1


def test_element_dropout_leaves_out_other_channels_of_every_image(left_out):
    zero = left_out("element")
    assert len(zero.unique(dim=0)) == 8
    assert abs(float(zero.float().mean()) - 0.6) < 0.05


@pytest.mark.parametrize("dropout_type", ["element", "shared"])
def test_dropout_before_the_linear_layer_is_of_training_alone(make_neck, dropout_type):
    pooled = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    neck = make_neck("dropout+linear", dropout=0.5, dropout_type=dropout_type)
    expected = neck.linear(pooled)
    assert not torch.equal(neck(pooled)[0], expected)
    assert torch.equal(neck.eval()(pooled)[0], expected)
    without = make_neck("dropout+linear", dropout=0.0, dropout_type=dropout_type)
    assert torch.equal(without(pooled)[0], expected)


def test_the_linear_layer_behind_dropout_begins_as_torchs_own(make_neck):
    neck = make_neck("dropout+linear", channels=400, feature_dim=100)
    for weight in (neck.linear.weight.detach(), neck.linear.bias.detach()):  # uniform within 1 / sqrt(400)
        assert weight.abs().max() <= 0.05 and abs(float(weight.std()) - 0.05 / 3**0.5) < 3e-3


def test_behind_a_linear_neck_with_dropout_the_classifier_alone_sees_it_and_in_training_alone(images, make_embedder):
    embedder = make_embedder(neck="linear+dropout", feature_dim=8).train()
    branch = embedder.branches[0]
    assert isinstance(branch.neck.linear, torch.nn.Linear) and branch.dropout.p == 0.5
    output = embedder(images)
    assert torch.equal(output.features, output.embedding) and (output.embedding != 0).all()
    assert not torch.allclose(output.logits[0], branch.classifier(output.embedding))
    output = embedder.eval()(images)
    assert torch.equal(output.logits[0], branch.classifier(output.embedding))


def test_layer_norm_brings_every_image_to_mean_0_and_deviation_1(make_neck):
    neck = make_neck("linear+ln", channels=4, feature_dim=64)
    pooled = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    features, embedding = neck(3 * pooled)
    assert torch.equal(features, embedding)
    torch.testing.assert_close(embedding.mean(dim=1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(embedding.std(dim=1, unbiased=False), torch.ones(5), atol=1e-4, rtol=0)
    assert [name for name, _ in neck.named_parameters()] == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize("feature_dim", [None, 3])
def test_bn_gives_metric_losses_the_embedding_of_bnneck(make_neck, feature_dim):
    pooled = 5 + torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    neck, other = make_neck("bn", feature_dim=feature_dim), make_neck("bnneck", feature_dim=feature_dim)
    features, embedding = neck(pooled)
    assert torch.equal(features, embedding) and torch.equal(embedding, other(pooled)[1])
    assert not neck.classifier_bias and not neck.norm.bias.requires_grad


def test_scale_lengthens_the_embedding_by_a_number_that_is_learned(make_neck):
    pooled = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    neck = make_neck("scale", feature_dim=None)
    features, embedding = neck(pooled)
    assert torch.equal(features, pooled) and torch.equal(embedding, 1.6 * pooled)
    gradient, = torch.autograd.grad(embedding.sum(), neck.scale)
    torch.testing.assert_close(gradient, pooled.sum())
    assert [name for name, _ in neck.named_parameters()] == ["scale"] and not neck.classifier_bias
