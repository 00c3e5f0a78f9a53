import math

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.hist import Hist, HypergraphNetwork, incidence, propagation, squared_distances


@torch.no_grad()
def by_loops(vectors, labels, loss):
    """The paper with every sum, its diagonal matrices and batch norm written out."""
    n, classes = len(vectors), len(loss.means)
    unit, means = F.normalize(vectors), F.normalize(loss.means)
    variances = loss.log_variances.clamp(0, 6).exp()
    m = [[float(((unit[i] - means[c]).square() / variances[c]).sum()) for c in range(classes)] for i in range(n)]
    distribution = 0.0
    for row, label in zip(m, labels.tolist(), strict=True):
        distribution += (loss.tau * row[label] + math.log(sum(math.exp(-loss.tau * d) for d in row))) / n
    present = sorted(set(labels.tolist()))
    h = torch.tensor([[1.0 if c == label else math.exp(-loss.alpha * row[c]) for c in present]
                      for row, label in zip(m, labels.tolist(), strict=True)], dtype=torch.float64)
    root = torch.diag(h.sum(dim=1) ** -0.5)
    mix = root @ h @ torch.diag(1 / h.sum(dim=0)) @ h.T @ root
    first, second = loss.hgnn.first, loss.hgnn.second
    z = mix @ (vectors @ first.weight.T + first.bias)
    z = (z - z.mean(dim=0)) / (z.var(dim=0, unbiased=False) + 1e-5).sqrt()
    z = mix @ (torch.where(z > 0, z, 0.1 * z) @ second.weight.T + second.bias)
    hypergraph = sum(torch.logsumexp(row, 0) - row[label] for row, label in zip(z, labels, strict=True)) / n
    return distribution + loss.lambda_s * hypergraph


@pytest.fixture
def make_hist():
    """A loss in float64 with weights of seed 0."""
    def make(dim=5, classes=6, **keys):
        torch.manual_seed(0)
        return Hist(dim, classes, **{"hidden": 3, **keys}).double()
    return make


def of_case(case, **keys):
    """The loss with a golden case's weights, and its embeddings."""
    weights = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()}
    loss = Hist(weights["mu"].shape[1], len(weights["mu"]), tau=case["params"]["tau"], **keys).double()
    placed = {"means": "mu", "log_variances": "lv", "hgnn.first.weight": "t1", "hgnn.first.bias": "b1",
              "hgnn.second.weight": "t2", "hgnn.second.bias": "b2"}
    loss.load_state_dict(
        {name: weights[key] for name, key in placed.items() if key in weights}, strict=False)
    return loss, weights["x"].requires_grad_()


def test_distances_to_two_classes_are_as_worked_out_by_hand(output_of, make_batch, make_hist):
    loss = make_hist(2, 2, tau=2.0, lambda_s=0.0)
    with torch.no_grad():
        loss.means.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.5]]))
        loss.log_variances.copy_(torch.tensor([[math.log(2), -1.0], [9.0, math.log(4)]]))  # variances (2, 1), (e^6, 4)
    # (1, 0) is at 0 from class 0 and at 1 / e^6 + 1 / 4 from class 1
    value, scalars = loss(output_of(vectors=torch.tensor([[7.0, 0.0]])), make_batch([1]))
    assert value.item() == pytest.approx(math.log1p(math.exp(2 * (math.exp(-6) + 0.25))))
    assert scalars["accuracy"] == 0.0 and scalars["hypergraph"] == 0.0


def test_a_hypergraph_of_three_images_mixes_as_worked_out_by_hand():
    distances = torch.tensor([[9.0, 0.5, math.log(2)], [9.0, math.log(4), 0.3], [9.0, math.log(2), 0.1]])
    shares = incidence(distances, torch.tensor([1, 2, 2]), 1.0)  # class 0 is absent
    torch.testing.assert_close(shares, torch.tensor([[1.0, 0.5], [0.25, 1.0], [0.5, 1.0]]))
    # Dv = 1.5, 1.25, 1.5 and De = 1.75, 2.5; e.g. entry (0, 2) is (1 x 0.5 / 1.75 + 0.5 x 1 / 2.5) / 1.5
    mix = propagation(shares)
    assert float(mix[0, 2]) == pytest.approx((0.5 / 1.75 + 0.5 / 2.5) / 1.5)
    assert float(mix[1, 0]) == pytest.approx((0.25 / 1.75 + 0.5 / 2.5) / (1.5 * 1.25) ** 0.5)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [5, 0, 5, 3, 5, 0], [4, 4, 4, 4, 4, 4], [0, 1, 2, 3, 4, 5]])
def test_hist_matches_the_paper_written_as_loops(make_output, make_batch, make_hist, labels):
    output, batch = make_output(p=2, k=3)[0], make_batch(labels)
    loss = make_hist(tau=4.0, alpha=0.7, lambda_s=0.5)
    torch.testing.assert_close(loss(output, batch).value, by_loops(output.embedding, batch.labels, loss))


def test_the_gradient_of_hist_is_the_slope_of_its_value(output_of, make_output, make_hist):
    output, batch = make_output(p=2, k=3)
    loss = make_hist(tau=2.0)
    names = [name for name, _ in loss.named_parameters()]

    def value(x, *weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(loss, named, (output_of(vectors=x), batch)).value

    assert torch.autograd.gradcheck(value, (output.embedding, *loss.parameters()))


def test_hist_is_that_of_the_original_code(golden, assert_as_golden, output_of, make_batch):
    case = golden["003_hist_tau32_alpha0.9"]
    params, outputs = case["params"], case["outputs"]
    loss, x = of_case(case, alpha=params["alpha"], lambda_s=float(params["lambda_s"]), hidden=params["hidden"])
    batch = make_batch(case["inputs"]["y"])
    value, scalars = loss(output_of(vectors=x), batch)
    assert float(scalars["distribution"]) == pytest.approx(outputs["dist_loss"], abs=1e-6)
    assert float(scalars["hypergraph"]) == pytest.approx(outputs["ce_loss"], abs=1e-6)
    hgnn = loss.hgnn
    assert_as_golden(outputs, value, x=x, mu=loss.means, lv=loss.log_variances, t1=hgnn.first.weight,
                     b1=hgnn.first.bias, t2=hgnn.second.weight, b2=hgnn.second.bias)
    shares = incidence(squared_distances(x, loss.means, loss.log_variances), batch.labels, params["alpha"])
    for name, found in {"H": shares, "G": propagation(shares)}.items():
        torch.testing.assert_close(found, torch.tensor(outputs[name], dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_hardest_image_is_not_left_out_of_the_mean(golden, output_of, make_batch):
    case = golden["003_hist_distribution_underflow"]
    loss, x = of_case(case, alpha=case["params"]["alpha"], lambda_s=0.0)
    value = loss(output_of(vectors=x), make_batch(case["inputs"]["y"])).value
    assert value.item() == pytest.approx(case["outputs"]["correct_loss"], abs=1e-6)
    assert torch.autograd.grad(value, x)[0].isfinite().all()


def test_distances_in_float32_are_those_written_as_differences():
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(8, 512, generator=draw)
    means, log_variances = torch.randn(20, 512, generator=draw), torch.randn(20, 512, generator=draw)
    means[0] = 3 * vectors[0]  # one at distance 0
    exact = (F.normalize(vectors.double())[:, None] - F.normalize(means.double())).square()
    exact = (exact / log_variances.double().clamp(0, 6).exp()).sum(dim=2)
    found = squared_distances(vectors, means, log_variances)
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)


def test_a_batch_of_one_image_trains_the_distributions_alone(make_output, make_hist):
    output, batch = make_output(p=1, k=1)
    loss = make_hist()
    value, scalars = loss(output, batch)
    value.backward()
    assert value == scalars["distribution"] and scalars["hypergraph"] == 0
    assert loss.means.grad.abs().sum() > 0 and loss.hgnn.second.weight.grad is None


def test_classes_absent_from_the_batch_are_pushed_away_all_the_same(make_output, make_hist):
    output, batch = make_output(p=2, k=2)
    loss = make_hist()
    loss(output, batch).value.backward()
    assert (loss.means.grad.abs().sum(dim=1) > 0).all()


def test_weights_have_the_names_that_rules_find_and_begin_as_in_the_paper():
    torch.manual_seed(0)
    loss = Hist(64, 200)
    assert {name.split(".")[0] for name, _ in loss.named_parameters()} == {"means", "log_variances", "hgnn"}
    for weight in (loss.means, loss.log_variances):  # sqrt(2 / 200) = 0.1
        assert weight.shape == (200, 64) and abs(float(weight.detach().std()) - 0.1) < 2e-3
    assert isinstance(loss.hgnn, HypergraphNetwork) and loss.hgnn.first.weight.shape == (512, 64)
    assert loss.hgnn.second.weight.shape == (200, 512)
