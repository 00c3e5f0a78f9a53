import pytest
import torch

from params.plugin import Choice
from trainer.necks import NECKS


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


@pytest.mark.parametrize("name", ["dropout+linear", "linear+dropout", "linear+ln"])
def test_these_necks_need_a_feature_dim(make_neck, name):
    with pytest.raises(ValueError, match="^model_params.feature_dim: the linear necks need it, and it is missing; "):
        make_neck(name, feature_dim=None)


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
