import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.model import group_of, mean_of_mirrored
from trainer.output import Output


def test_pixels_are_scaled_to_0_1_less_the_mean_over_the_deviation(make_pixels):
    embedder = make_pixels(mean=[0.5, 0.2, 0.0], std=[0.5, 0.1, 1.0])
    output = embedder(torch.full((2, 3, 4, 4), 51, dtype=torch.uint8))  # 51 / 255 = 0.2
    torch.testing.assert_close(output.embedding, torch.tensor([[-0.6, 0.0, 0.2]]).repeat(2, 1))
    assert output.logits is None and output.margins is None


def test_an_image_is_normalised_to_the_same_bits_in_any_batch(images, make_pixels):
    embedder = make_pixels(nn.Flatten(), 6144, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    whole = embedder(images).embedding
    for size in (1, 2, 5):
        assert torch.equal(embedder(images[:size]).embedding, whole[:size])


def test_images_are_left_as_they_were(images, make_embedder):
    before = images.clone()
    make_embedder()(images)
    assert torch.equal(images, before)


def test_one_branch_gives_one_set_of_logits(images, make_embedder):
    output = make_embedder(neck="linear+bn", feature_dim=8)(images)
    assert output.features.shape == output.embedding.shape == (6, 8)
    assert [logits.shape for logits in output.logits] == [(6, 5)]


def test_stripes_are_pooled_by_themselves_from_top_to_bottom(images, make_embedder):
    embedder = make_embedder("resnet18", neck="none", parts=2).eval()
    with torch.no_grad():
        maps = embedder.backbone((images.float() - embedder.mean) / embedder.std)
        output = embedder(images)
    upper, lower = maps[:, :, :2].mean(dim=(2, 3)), maps[:, :, 2:].mean(dim=(2, 3))
    torch.testing.assert_close(output.features, torch.cat([upper, lower], dim=1))
    assert embedder.embedding_dim == 1024


def test_every_stripe_has_its_share_of_the_embedding_and_its_own_classifier(images, make_embedder):
    embedder = make_embedder("resnet18", neck="linear+bn", feature_dim=12, parts=4).eval()
    output = embedder(images)
    assert output.embedding.shape == (6, 12) == (6, embedder.embedding_dim)
    parts = output.embedding.chunk(4, dim=1)
    for branch, part, logits in zip(embedder.branches, parts, output.logits, strict=True):
        torch.testing.assert_close(logits, branch.classifier(part))


@pytest.mark.parametrize("parts", [0, 1])
def test_no_parts_and_one_part_are_the_whole_map(images, make_embedder, parts):
    assert len(make_embedder(parts=parts).branches) == 1


@pytest.mark.parametrize("parts, dim, message", [
    (3, None, "^model_params.pcb_n_parts: must divide the feature map's height, 4 rows at img_h 64, got 3$"),
    (4, 10, "^model_params.pcb_n_parts: must divide feature_dim 10, got 4$"),
])
def test_stripes_that_do_not_come_out_even_are_refused(make_embedder, parts, dim, message):
    with pytest.raises(ValueError, match=message):
        make_embedder("resnet18", parts=parts, feature_dim=dim)


@pytest.mark.parametrize("neck, asked, bias", [
    ("none", None, True), ("none", False, False), ("bnneck", True, True),
])
def test_the_classifier_s_bias_is_the_neck_s_unless_asked_for(make_embedder, neck, asked, bias):
    embedder = make_embedder(neck=neck, classifier_bias=asked)
    assert (embedder.branches[0].classifier.bias is not None) is bias


@pytest.mark.parametrize("kind, told", [("cosine", "cosine"), (None, "no")])
def test_a_bias_that_no_classifier_has_is_refused(make_embedder, kind, told):
    with pytest.raises(ValueError, match=f"^model_params.classifier_bias: the losses read {told} classifier, which"):
        make_embedder(classifier=kind, classifier_bias=False)


def test_the_linear_classifier_begins_close_to_zero(make_embedder):
    classifier = make_embedder(neck="none").branches[0].classifier
    assert abs(classifier.weight.std() - 1e-3) < 1e-4 and (classifier.bias == 0).all()


def test_a_cosine_classifier_gives_the_cosines_with_its_class_vectors(images, make_embedder):
    embedder = make_embedder(classifier="cosine").eval()
    output = embedder(images)
    vectors = embedder.branches[0].classifier.weight
    expected = torch.stack([F.cosine_similarity(output.embedding, vector[None]) for vector in vectors], dim=1)
    torch.testing.assert_close(output.logits[0], expected)


def test_cosines_are_not_rounded_to_half_precision(images, make_embedder):
    embedder = make_embedder(classifier="cosine").eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = embedder(images)
    assert output.embedding.dtype == torch.bfloat16
    vectors = F.normalize(embedder.branches[0].classifier.weight)
    assert torch.equal(output.logits[0], F.normalize(output.embedding.float()) @ vectors.T)


def test_every_weight_has_a_group(make_embedder):
    embedder = make_embedder("resnet18", "gem", "linear+bn", feature_dim=8, parts=2)
    groups = {name: group_of(name) for name, _ in embedder.named_parameters()}
    assert {name for name in groups if groups[name] == "backbone"} == {
        f"backbone.{name}" for name, _ in embedder.backbone.named_parameters()}
    assert groups["branches.1.pooling.p"] == groups["branches.0.neck.norm.bias"] == "neck"
    assert sorted(name for name in groups if groups[name] == "classifier") == [
        f"branches.{i}.classifier.{kind}" for i in (0, 1) for kind in ("bias", "weight")]


def test_modules_at_rest_keep_their_statistics(images, make_embedder):
    embedder = make_embedder()
    embedder.rest([embedder.backbone])
    before = {name: value.clone() for name, value in embedder.named_buffers()}
    embedder.train()(images)
    changed = {name for name, value in embedder.named_buffers() if not torch.equal(value, before[name])}
    own = {f"branches.0.neck.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == own


@pytest.mark.parametrize("frozen, weights_train", [("stats", True), ("all", False)])
def test_frozen_batch_norms_keep_their_statistics_or_their_weights_too(images, make_embedder, frozen, weights_train):
    embedder = make_embedder("resnet18", bn_freeze=frozen).train()
    before = embedder.backbone.bn1.running_mean.clone()
    embedder(images).logits[0].square().sum().backward()
    assert torch.equal(embedder.backbone.bn1.running_mean, before)
    assert (embedder.backbone.bn1.weight.grad is not None) is weights_train
    assert embedder.backbone.conv1.weight.grad is not None


def test_the_global_branch_pools_the_maximum_of_the_whole_map(images, make_embedder):
    embedder = make_embedder("resnet18", neck="linear", feature_dim=8, parts=2, pcb_global_dim=3).eval()
    with torch.no_grad():
        whole = embedder.backbone((images.float() - embedder.mean) / embedder.std).amax(dim=(2, 3))
        output = embedder(images)
    torch.testing.assert_close(output.embedding[:, 8:], embedder.branches[2].neck.linear(whole))
    assert embedder.embedding_dim == 11 and len(output.logits) == 3


def test_a_global_branch_without_stripes_is_refused(make_embedder):
    with pytest.raises(ValueError, match="^model_params.pcb_global_dim: goes with stripes, got pcb_n_parts 0"):
        make_embedder(neck="linear", feature_dim=8, pcb_global_dim=3)


def test_random_branches_are_dropped_in_training_and_one_always_stays(images, make_embedder):
    embedder = make_embedder("resnet18", neck="none", parts=4, random_drop_branches=4, classifier="cosine")
    counts = set()
    for seed in range(30):
        torch.manual_seed(seed)
        output = embedder.train()(images)
        assert len(output.logits) == len(output.lengths) == len(output.class_lengths)
        counts.add(len(output.logits))
    assert counts <= {1, 2, 3} and len(counts) > 1
    assert len(embedder.eval()(images).logits) == 4


def test_what_is_used_may_be_the_vector_before_the_neck(images, make_embedder):
    before, after = (make_embedder(neck="linear+bn", feature_dim=8, neck_feature=where).eval()(images)
                     for where in ("before", "after"))
    assert torch.equal(before.embedding, after.features)
    assert not torch.equal(after.embedding, after.features)


@pytest.mark.parametrize("flip", [False, True])
def test_parts_at_one_length_count_alike(images, make_embedder, flip):
    output = make_embedder("resnet18", neck="none", parts=2, part_norm=True, flip=flip).eval()(images)
    lengths = torch.stack([part.norm(dim=1) for part in output.embedding.chunk(2, dim=1)])
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_mirror_images_have_one_embedding_where_it_is_of_both(images, make_embedder):
    embedder = make_embedder(flip=True).eval()
    output, mirrored = embedder(images), embedder(images.flip(3))
    torch.testing.assert_close(output.embedding, mirrored.embedding)
    torch.testing.assert_close(output.logits[0], mirrored.logits[0])
    plain = make_embedder().eval()
    vectors = [plain(pixels).embedding for pixels in (images, images.flip(3))]
    together = F.normalize(F.normalize(vectors[0]) + F.normalize(vectors[1]))
    torch.testing.assert_close(F.normalize(output.embedding), together)
    length = (vectors[0].norm(dim=1) + vectors[1].norm(dim=1)) / 2
    torch.testing.assert_close(output.embedding.norm(dim=1), length)


def test_the_mirrored_embedding_is_the_golden_one(golden):
    case = golden["004_flip_tta_feature"]
    one, other = (Output(vectors, vectors) for vectors in map(torch.tensor, case["inputs"].values()))
    found = F.normalize(mean_of_mirrored(one, other).embedding)
    torch.testing.assert_close(found, torch.tensor(case["outputs"]["feature"]), atol=1e-6, rtol=0)


def test_mean_and_deviation_are_no_weights(make_embedder):
    assert not {"mean", "std"} & set(make_embedder().state_dict())


def test_the_memory_layout_changes_nothing(images, make_embedder):
    embedder = make_embedder("resnet18").eval()
    with torch.no_grad():
        plain = embedder(images).embedding
        embedder.to(memory_format=torch.channels_last)
        last = embedder(images.contiguous(memory_format=torch.channels_last)).embedding
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


def test_a_network_is_traced_whole_with_a_free_batch(images, make_embedder):
    class Served(nn.Module):
        def __init__(self, embedder):
            super().__init__()
            self.embedder = embedder

        def forward(self, images):
            output = self.embedder(images)
            return output.embedding, output.logits[0]

    served = Served(make_embedder("resnet18", parts=2, classifier="cosine")).eval()
    program = torch.export.export(served, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for size in (1, 3):
        for traced, own in zip(program.module()(images[:size]), served(images[:size]), strict=True):
            torch.testing.assert_close(traced, own)
