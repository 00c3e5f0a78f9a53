import copy

import onnxruntime
import pytest
import torch

from deploy.preprocess import Preprocessing
from params.plugin import Choice
from trainer.margins import MARGINS, NN, Learned, Legendre, Linear, Taylor
from trainer.onnx_writer import write_onnx


@pytest.fixture(params=MARGINS)
def margin(request):
    """Every way to margins from its defaults, with drawn coefficients and after a few batches."""
    torch.manual_seed(0)
    module = MARGINS.build(Choice(request.param))
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    for seed in range(3):
        module(vectors(seed=seed))
    return module


def vectors(count=16, *, seed=0, length=60.0):
    """Vectors of lengths around `length`."""
    generator = torch.Generator().manual_seed(seed)
    return length / 3 * (1 + 0.2 * torch.rand(count, 1, generator=generator)) * torch.randn(count, 9,
                                                                                            generator=generator)


@pytest.mark.parametrize("name", MARGINS)
def test_margins_from_their_defaults_train_the_network_and_themselves(name):
    module = MARGINS.build(Choice(name))
    x = vectors().requires_grad_()
    margins = module(x)
    assert margins.shape == (16,)
    for weight in module.parameters():
        gradient, = torch.autograd.grad(margins.square().sum() + margins[0], weight, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    margins[0].backward()
    assert x.grad.isfinite().all()


def test_margins_give_the_same_bits_twice(margin):
    twin = copy.deepcopy(margin)
    assert torch.equal(margin(vectors()), twin(vectors()))
    assert torch.equal(margin.eval()(vectors()), twin.eval()(vectors()))


def test_margins_go_through_a_state_dict(margin):
    other = type(margin)()
    other.load_state_dict(margin.state_dict())
    assert torch.equal(other.eval()(vectors()), margin.eval()(vectors()))
    assert torch.equal(other.train()(vectors()), margin.train()(vectors()))


@pytest.mark.parametrize("training", [True, False])
def test_a_vector_of_zeros_gives_finite_numbers(margin, training):
    x = torch.cat([torch.zeros(2, 9), vectors()]).requires_grad_()
    margins = margin.train(training)(x)
    gradient, = torch.autograd.grad(margins.sum() + margins[0], x)
    assert margins.isfinite().all() and gradient.isfinite().all()


def test_the_logarithm_of_a_dead_network_is_finite():
    margins = Taylor(log=True)(torch.zeros(4, 3))
    assert margins.isfinite().all()


def test_margins_of_half_precision_vectors_are_computed_in_single(margin):
    halves = vectors().to(torch.bfloat16)
    twin = copy.deepcopy(margin)
    with torch.autocast("cpu", torch.bfloat16):
        margins = margin(halves)
    assert margins.dtype == torch.float32
    assert torch.equal(margins, twin(halves.float()))


def test_a_margin_in_evaluation_is_the_image_s_own_and_changes_nothing(margin):
    margin.eval()
    before = copy.deepcopy(margin.state_dict())
    whole = margin(vectors())
    torch.testing.assert_close(torch.cat([margin(row[None]) for row in vectors()]), whole)
    assert all(torch.equal(value, before[name]) for name, value in margin.state_dict().items())


@pytest.mark.parametrize("name", MARGINS)
def test_an_exported_network_gives_margins_and_norms(make_pixels, name, tmp_path):
    margin = MARGINS.build(Choice(name))
    network = make_pixels(mean=[0, 0, 0], std=[0.01, 0.01, 0.01], margin=margin)
    brightness = torch.tensor([30, 60, 100, 120, 250], dtype=torch.uint8)  # lengths 20 to 170
    pixels = brightness[:, None, None, None].repeat(1, 8, 4, 3)
    for weight in margin.parameters():
        torch.nn.init.ones_(weight)
    network(pixels.permute(0, 3, 1, 2))
    network.eval()
    preprocessing = Preprocessing(8, 4)
    write_onnx(network, tmp_path / "model.onnx", preprocessing, input_format="uint8_nhwc", logits=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    margins, norms = session.run(["margins", "norms"], {"images": pixels.numpy()})
    output = network(pixels.permute(0, 3, 1, 2))
    assert output.margins.unique().numel() > 3
    torch.testing.assert_close(torch.from_numpy(margins), output.margins, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(norms), output.features.norm(dim=1), rtol=1e-5, atol=0)


CASES = {"001_mam_nn_8": NN(size=8), "001_mam_tlr_5": Taylor(size=3), "001_mam_lgd_5": Legendre(size=3)}


@pytest.mark.parametrize("case", CASES)
def test_learned_margins_are_those_of_the_original_code(golden, case):
    params, outputs = golden[case]["params"], golden[case]["outputs"]
    module = learned(CASES[case], params["coefficients"])
    module.norm.num_batches_tracked.fill_(1)  # the original begins at 0 and 1
    x = torch.tensor(golden[case]["inputs"]["x"], dtype=torch.float64, requires_grad=True)

    margins = module(x)
    assert_near(margins, outputs["u_train"])
    gradient, = torch.autograd.grad(margins, x, torch.arange(1, 9, dtype=torch.float64))
    assert_near(gradient, outputs["grad_x_of_sum_i_u_i"])
    assert_near(module.average, outputs["avg_uc_after_step"])
    assert_near(module.norm.running_mean, outputs["bn_running_mean_after_step"])
    assert_near(module.norm.running_var, outputs["bn_running_var_after_step"])

    module.norm.running_mean.fill_(params["eval_running_mean"])
    module.norm.running_var.fill_(params["eval_running_var"])
    module.average.fill_(params["eval_avg_uc"])
    assert_near(module.eval()(x), outputs["u_eval"])


def learned(module, coefficients):
    """A copy in float64 with these coefficients."""
    module = copy.deepcopy(module).double()
    if isinstance(module, NN):
        module.steps = torch.linspace(-0.8, 0.8, len(module.steps), dtype=torch.float64)
    with torch.no_grad():
        next(module.parameters()).copy_(torch.tensor(coefficients).flatten())
    return module


def assert_near(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-6)


def test_a_learned_curve_stands_around_the_mean_of_the_batch(of_length):
    module = learned(Taylor(size=1), [0.1])
    margins = module(of_length(8.0, 12.0))  # standardised: -1 and 1
    assert margins.tolist() == pytest.approx([-0.1, 0.1], abs=1e-6)


def test_only_what_lies_within_a_half_moves_the_mean(of_length):
    module = learned(Taylor(size=2, powers="all"), [0.0, 1.0])
    lengths = torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)
    squares = ((lengths - 4) / lengths.std(unbiased=False)).square()
    expected = squares - squares.clamp(max=0.5).mean()
    torch.testing.assert_close(module(of_length(1.0, 2.0, 9.0)), expected, atol=1e-5, rtol=1e-5)


def test_the_powers_of_a_taylor_curve_are_odd_or_all():
    z = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    odd, every = learned(Taylor(size=3), [2, -1, 3]), learned(Taylor(size=3, powers="all"), [2, -1, 3])
    torch.testing.assert_close(odd.curve(z), 2 * z - z ** 3 + 3 * z ** 5)
    torch.testing.assert_close(every.curve(z), 2 * z - z ** 2 + 3 * z ** 3)


def test_the_polynomials_of_a_legendre_curve_are_odd():
    z = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=torch.float64)
    third, fifth = (5 * z ** 3 - 3 * z) / 2, (63 * z ** 5 - 70 * z ** 3 + 15 * z) / 8
    torch.testing.assert_close(learned(Legendre(size=3), [2, -1, 3]).curve(z), 2 * z - third + 3 * fifth)


def test_the_logarithm_makes_ratios_of_lengths_count(of_length):
    module = learned(Taylor(size=1, log=True), [1.0])
    margins = module(of_length(1.0, 10.0, 100.0))
    assert margins.tolist() == pytest.approx([-1.5 ** 0.5, 0.0, 1.5 ** 0.5], abs=1e-5)


@pytest.mark.parametrize("name", [name for name in MARGINS if issubclass(MARGINS.load(name), Learned)])
def test_running_statistics_begin_at_those_of_the_first_batch(name):
    module = MARGINS.build(Choice(name))
    x = vectors()
    module(x)
    lengths = x.norm(dim=1)
    torch.testing.assert_close(module.norm.running_mean, lengths.mean()[None])
    torch.testing.assert_close(module.norm.running_var, lengths.var()[None], rtol=0.1, atol=0)
    module(10 * x)
    torch.testing.assert_close(module.norm.running_mean, (0.9 + 0.1 * 10) * lengths.mean()[None])


@pytest.mark.parametrize("name", [name for name in MARGINS if issubclass(MARGINS.load(name), Learned)])
def test_every_weight_of_a_curve_is_learned(name):
    names = [name for name, _ in MARGINS.build(Choice(name)).named_parameters()]
    assert names in (["weights"], ["coefficients"])


def test_the_linear_map_is_that_of_the_original_code(golden, of_length):
    case = golden["001_norm_to_margin"]
    params = case["params"]
    module = Linear(range=[params["la"], params["ua"]], margins=[params["lm"], params["um"]])
    margins = module(of_length(*case["inputs"]["n"]))
    torch.testing.assert_close(margins, torch.tensor(case["outputs"]["m"], dtype=torch.float64))


def test_a_range_that_does_not_ascend_is_refused():
    with pytest.raises(ValueError, match=r"^model_params.margin.range: expected two numbers, .* got \[7, 7\]; "):
        Linear(range=[7.0, 7.0])
