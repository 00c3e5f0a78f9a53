import math

import pytest
import torch

from trainer.losses.norm_regulariser import NormRegulariser

FORMS = ["exp", "quad", "log", "arc"]


@pytest.fixture
def value_of(output_of, make_batch):
    """The value for vectors of these lengths."""
    def value(loss, vectors):
        return loss(output_of(vectors=vectors), make_batch([0] * len(vectors))).value
    return value


@pytest.mark.parametrize("options, value", [
    ({"form": "exp", "k": 2.0}, (math.exp(-1) / 2 + math.exp(-2) / 2) / (1 - math.exp(-2))),
    ({"form": "quad"}, 0.5 ** 2 / 2),
    ({"form": "log"}, (0.5 * 1.5 - math.log(1.5)) / (1 - 0.5)),
    ({"form": "arc"}, (0.25 * 1.5 + 1 / 1.5) / (1 - 0.25)),
])
def test_a_length_halfway_is_as_worked_out_by_hand(value_of, of_length, options, value):
    loss = NormRegulariser(range=[10.0, 20.0], **options)  # t = 0.5, x = 15 / 10, a = 10 / 20, b = 10 / 10
    assert value_of(loss, of_length(15.0)).item() == pytest.approx(value)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_pulls_fully_at_the_lower_end_and_not_at_the_upper_one(value_of, of_length, form):
    vectors = of_length(10.0, 60.0, 110.0, 120.0)
    gradient, = torch.autograd.grad(len(vectors) * value_of(NormRegulariser(form=form), vectors), vectors)
    lower, middle, upper, beyond = gradient[:, 0].tolist()
    assert lower == pytest.approx(-1 / 100) and upper == pytest.approx(0, abs=1e-9)
    assert lower < middle < 0 < beyond


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_the_norm_regulariser_is_the_slope_of_its_value(output_of, make_output, form):
    output, batch = make_output()
    loss = NormRegulariser(form=form, range=[0.5, 4.0])
    assert torch.autograd.gradcheck(lambda x: loss(output_of(vectors=x), batch).value, output.features)


@pytest.mark.parametrize("case, form", [
    ("001_norm_regulariser_exp_3", "exp"), ("001_norm_regulariser_log", "log"), ("001_norm_regulariser_arc", "arc")])
def test_the_norm_regulariser_is_that_of_the_original_code(golden, value_of, of_length, case, form):
    params, outputs = golden[case]["params"], golden[case]["outputs"]
    loss = NormRegulariser(form=form, range=[params["la"], params["ua"]])
    vectors = of_length(*golden[case]["inputs"]["n"])
    value = value_of(loss, vectors)
    gradient, = torch.autograd.grad(value, vectors)
    assert value.item() == pytest.approx(outputs["loss"], abs=1e-6)  # it has 2.7183 for e
    torch.testing.assert_close(gradient[:, 0], torch.tensor(outputs["grad_n"], dtype=torch.float64), atol=1e-6, rtol=0)


def test_k_is_3_unless_told(value_of, of_length):
    vectors = of_length(20.0, 90.0)
    assert torch.equal(value_of(NormRegulariser(), vectors), value_of(NormRegulariser(k=3.0), vectors))
    assert not torch.equal(value_of(NormRegulariser(), vectors), value_of(NormRegulariser(k=1.0), vectors))


def test_the_mean_length_is_reported(make_output):
    output, batch = make_output()
    mean = NormRegulariser()(output, batch).scalars["norm"]
    torch.testing.assert_close(mean, output.features.norm(dim=1).mean(), check_dtype=False)


@pytest.mark.parametrize("options, message", [
    ({"form": "quad", "k": 3.0}, r'^norm_regulariser.k: goes with form "exp", got 3 with "quad"; leave it out$'),
    ({"range": [110.0, 10.0]}, r"^norm_regulariser.range: expected two numbers, .* got \[110, 10\]; "),
])
def test_keys_that_say_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NormRegulariser(**options)
