import pytest
import torch

from trainer.losses.center import Center, moved, squared_distances
from trainer.output import each


@pytest.fixture
def make_center():
    """A loss with these centres."""
    def make(centers, **options):
        loss = Center(len(centers[0]), len(centers), **options)
        loss.centers = torch.tensor(centers, dtype=torch.float64)
        return loss
    return make


def test_value_and_move_are_as_worked_out_by_hand(make_center, output_of, make_batch):
    loss = make_center([[0.0, 0.0], [5.0, 0.0], [1.0, 1.0]], lr=0.5)
    vectors = torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 3.0]], dtype=torch.float64)
    value, scalars = loss(output_of(vectors=vectors), make_batch([0, 0, 1]))
    assert value.item() == pytest.approx((25 + 4 + 9) / 3)
    assert scalars["mean_dist"].item() == pytest.approx((5 + 2 + 3) / 3)
    # gradients of 2 / 3 (3, 6) and 2 / 3 (0, 3), half of each
    torch.testing.assert_close(loss.centers, torch.tensor([[1.0, 2.0], [5.0, 1.0], [1.0, 1.0]], dtype=torch.float64))


def test_centres_move_as_gradient_descent_written_as_loops_moves_them(twelve_images):
    output, batch = twelve_images
    loss = Center(5, 7, lr=0.3).double()
    before, total, expected = loss.centers.clone(), 0.0, []
    for label, center in enumerate(before):
        own = [row.detach() for row, other in zip(output.features, batch.labels, strict=True) if other == label]
        total += sum(float((row - center).square().sum()) for row in own)
        expected.append(center - 0.3 * 2 * sum((center - row for row in own), torch.zeros(5)) / 12)
    value = loss(output, batch).value
    assert value.item() == pytest.approx(total / 12)
    torch.testing.assert_close(loss.centers, torch.stack(expected))


def test_center_loss_is_that_of_the_original_code(golden, assert_as_golden, make_center, output_of, make_batch):
    inputs, outputs = golden["001_center"]["inputs"], golden["001_center"]["outputs"]
    x, centers = (torch.tensor(inputs[leaf], dtype=torch.float64, requires_grad=True) for leaf in "xc")
    batch = make_batch(inputs["y"])
    assert_as_golden(outputs, make_center(inputs["c"])(output_of(vectors=x), batch).value, x=x)
    assert_as_golden(outputs, squared_distances(x, centers, batch.labels).mean(), c=centers)
    step = centers - moved(centers, x, batch.labels, lr=1.0)
    torch.testing.assert_close(step, torch.tensor(outputs["grad_c"], dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_gradient_of_center_is_the_slope_of_its_value(make_output, output_of):
    output, batch = make_output()
    loss = Center(5, 4).double().eval()
    assert torch.autograd.gradcheck(lambda x: loss(output_of(vectors=x), batch).value, output.features)


def test_evaluation_leaves_the_centres_where_they_are(make_output):
    loss = Center(5, 4)
    before = loss.centers.clone()
    loss.eval()(*make_output())
    assert torch.equal(loss.centers, before)
    loss.train()(*make_output())
    assert not torch.equal(loss.centers, before)


def test_centres_move_though_no_optimiser_has_them_and_go_into_the_state(make_output):
    loss = Center(5, 4)
    assert not list(loss.parameters())
    loss(*make_output())
    other = Center(5, 4)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(loss(*make_output(seed=1)).value, other(*make_output(seed=1)).value)


def test_features_that_stay_draw_their_centres_close(make_output):
    output, batch = make_output(p=2, k=1)
    loss = Center(5, 2)
    values = [loss(output, batch).value.item() for _ in range(30)]
    assert values == sorted(values, reverse=True) and values[-1] < 1e-6  # half of the way is left each time


def test_centres_of_single_precision_follow_in_single_precision(make_output):
    output, batch = make_output()
    single, double = Center(5, 4), Center(5, 4).double()
    double.load_state_dict(single.state_dict())
    single(each(lambda t: t.float(), output), batch)
    double(output, batch)
    assert single.centers.dtype == torch.float32
    torch.testing.assert_close(single.centers.double(), double.centers, rtol=1e-5, atol=1e-6)
