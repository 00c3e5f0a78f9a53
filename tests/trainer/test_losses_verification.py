import math

import pytest
import torch
import torch.nn.functional as F

from trainer.criterion import Criterion, Term
from trainer.losses.softmax import Softmax
from trainer.losses.verification import Verification
from trainer.output import Output


def with_head(weight, bias, **options):
    """The loss in float64 with these weights of its two classes."""
    loss = Verification(len(weight[0]), dropout=0.0, **options).double()
    with torch.no_grad():
        loss.head.weight.copy_(torch.tensor(weight))
        loss.head.bias.copy_(torch.tensor(bias))
    return loss


def cross_entropy(scores, kind):
    return math.log(sum(map(math.exp, scores))) - scores[kind]


@pytest.mark.parametrize(("op", "same", "different"), [
    ("product", (0.6, 0.0), (0.0, 0.8)),  # anchor (0.6, 0.8); positive (1, 0), negative (0, 1)
    ("sqdiff", (0.16, 0.64), (0.36, 0.04)),
])
def test_one_triplet_is_as_worked_out_by_hand(output_of, make_batch, op, same, different):
    vectors = torch.tensor([[3.0, 4.0], [2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    loss = with_head([[1.0, 2.0], [-1.0, 0.5]], [0.1, -0.1], op=op)
    value, scalars = loss(output_of(vectors=vectors), make_batch([0, 0, 1]))

    def scores(pair):
        return (pair[0] + 2 * pair[1] + 0.1, -pair[0] + 0.5 * pair[1] - 0.1)

    expected = (cross_entropy(scores(same), 0) + cross_entropy(scores(different), 1)) / 2
    assert value.item() == pytest.approx(expected, rel=1e-7)
    assert scalars == {"accuracy_same": 1.0, "accuracy_different": 0.0}


def test_with_identification_it_is_the_original_code(golden, make_batch):
    """Linear layer and batch norm, each of the three kinds of images with its own statistics, then both losses."""
    case = golden["004_id_plus_verification"]
    given = {name: torch.tensor(values, dtype=torch.float64) for name, values in case["inputs"].items()}
    kinds = [given[name].requires_grad_() for name in ("anchor", "positive", "negative")]
    embedding = torch.cat([
        F.batch_norm(F.linear(images, given["fc_w"], given["fc_b"]), None, None, given["bn_gamma"], given["bn_beta"],
                     training=True, eps=case["params"]["bn_eps"]) for images in kinds])
    output = Output(embedding, embedding, [F.linear(embedding, given["id_w"], given["id_b"])])
    verification = with_head(given["verif_w"].tolist(), given["verif_b"].tolist())
    terms = [Term("softmax", Softmax(), of="anchors"), Term("verification", verification, case["params"]["alpha"])]
    value, scalars = Criterion(terms)(output, make_batch(given["y"].long().repeat(3)))
    expected = case["outputs"]
    assert value.item() == pytest.approx(expected["loss"], abs=1e-6)
    assert scalars["loss/softmax"].item() == pytest.approx(expected["id_loss"], abs=1e-6)
    assert scalars["loss/verification"].item() == pytest.approx(expected["verif_loss"], abs=1e-6)
    for name, gradient in zip("apn", torch.autograd.grad(value, kinds), strict=True):
        right = torch.tensor(expected[f"grad_{name}"], dtype=torch.float64)
        torch.testing.assert_close(gradient, right, atol=1e-6, rtol=0)
    for kind, name, column in (("same", "pos_score", 0), ("different", "neg_score", 1)):
        told = [scores.index(max(scores)) == column for scores in expected[name]]
        assert scalars[f"verification/accuracy_{kind}"].item() == pytest.approx(sum(told) / len(told))


@pytest.mark.parametrize("op", ["product", "sqdiff"])
def test_the_gradient_of_verification_is_the_slope_of_its_value(output_of, make_output, op):
    output, batch = make_output(p=3, k=3)
    loss = with_head([[2.0, -1.0, 0.5, 0.1, 1.0], [-1.5, 1.0, -0.5, 0.3, 0.2]], [0.1, -0.1], op=op)
    assert torch.autograd.gradcheck(lambda x: loss(output_of(vectors=x), batch).value, output.embedding)


def test_the_head_is_small_at_first_and_its_weights_are_trained(make_output):
    torch.manual_seed(0)
    loss = Verification(2048)
    assert loss.head.weight.std().item() == pytest.approx(0.001, rel=0.05) and (loss.head.bias == 0).all()
    output, batch = make_output(dim=2048)
    loss(output, batch).value.backward()
    assert all(weight.grad.abs().sum() > 0 for weight in loss.parameters())


def test_dropout_is_drawn_in_training_and_rests_in_evaluation(make_output):
    output, batch = make_output(dim=64)
    loss = Verification(64)
    assert len({loss(output, batch).value.item() for _ in range(5)}) == 5
    loss.eval()
    assert len({loss(output, batch).value.item() for _ in range(5)}) == 1


def test_a_batch_that_is_no_triplets_is_refused(make_output):
    with pytest.raises(ValueError, match='^losses: "verification" reads anchors, .* batch holds 8 images; take the'):
        Verification(5)(*make_output(p=4, k=2))
