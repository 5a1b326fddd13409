"""Each loss and weight on numbers worked by hand."""

import math

import pytest
import torch

from lorakiln.diffusion import loss


def field(*values):
    """One sample of one channel and one row."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def per_sample(kind, prediction, target, c=None):
    threshold = None if c is None else torch.tensor([c])
    return loss.mean(loss.error(prediction, target, kind, threshold)).tolist()


def test_l2_and_l1_by_hand():
    assert per_sample("l2", field(1, 4), field(2, 1)) == pytest.approx([(1 + 9) / 2])
    assert per_sample("l1", field(1, 4), field(2, 1)) == pytest.approx([(1 + 3) / 2])


def test_huber_by_hand():
    # e = 3, c = 4: sqrt(9 + 16) = 5, so 2 * 4 * (5 - 4) = 8 and without the factor c 2
    assert per_sample("huber", field(3), field(0), c=4.0) == pytest.approx([8])
    assert per_sample("smooth_l1", field(3), field(0), c=4.0) == pytest.approx([2])


def test_huber_is_square_for_small_and_linear_for_large_errors():
    assert per_sample("huber", field(0.01), field(0), c=1.0) == pytest.approx([1e-4], rel=1e-4)
    assert per_sample("huber", field(1000.0), field(0), c=1.0) == pytest.approx([2000], rel=2e-3)


def test_each_sample_has_its_own_threshold():
    error = loss.error(field(3).expand(2, 1, 1, 1), field(0).expand(2, 1, 1, 1), "smooth_l1", torch.tensor([4.0, 1.25]))
    assert loss.mean(error).tolist() == pytest.approx([2, 4])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.1, 0.1, 0.1]),
        ("exponential", [1, math.sqrt(0.1), 0.1]),  # t = 0, T/2, T
        # SNR 4, 1, 0: sigma 1/2, 1, infinite: (1 - c) / (1 + sigma)^2 + c
        ("snr", [0.9 / 2.25 + 0.1, 0.9 / 4 + 0.1, 0.1]),
    ],
)
def test_huber_schedules_by_hand(schedule, expected):
    timestep, snr = torch.tensor([0, 500, 1000]), torch.tensor([4.0, 1.0, 0.0])
    assert loss.huber_threshold(timestep, snr, schedule, 0.1, 1000).tolist() == pytest.approx(expected)


def test_min_snr_by_hand():
    snr = torch.tensor([20.0, 5.0, 1.0, 0.0])
    assert loss.min_snr_weight(snr, 5.0, "epsilon").tolist() == pytest.approx([0.25, 1, 1, 1])
    assert loss.min_snr_weight(snr, 5.0, "v").tolist() == pytest.approx([5 / 21, 5 / 6, 1 / 2, 0])


def test_min_snr_caps_clean_steps_only():
    snr = torch.tensor([1e6, 5.0001, 4.9999, 1e-6])
    weight = loss.min_snr_weight(snr, 5.0, "epsilon")
    assert (weight[:2] < 1).all() and (weight[2:] == 1).all()


def test_debiased_by_hand():
    snr = torch.tensor([4.0, 0.25, 4000.0, 0.0])
    assert loss.debiased_weight(snr, "epsilon").tolist() == pytest.approx([0.5, 2, 1000**-0.5, 1000**0.5])
    assert loss.debiased_weight(snr, "v").tolist() == pytest.approx([0.2, 0.8, 1 / 1001, 1])


def test_masked_mean_counts_only_the_masks_pixels():
    error = torch.tensor([[1.0, 2, 3, 4], [10, 20, 30, 40]]).view(1, 2, 1, 4)
    assert loss.mean(error, field(1, 0, 0, 1)).tolist() == pytest.approx([(1 + 4 + 10 + 40) / 4])
    assert loss.mean(error, field(0.5, 0, 0, 0)).tolist() == pytest.approx([(1 + 10) / 2])
    assert loss.mean(error, field(1, 1, 1, 1)).tolist() == pytest.approx(loss.mean(error).tolist())


def test_a_small_mask_does_not_shrink_the_gradient():
    prediction = torch.ones(2, 4, 8, 8, requires_grad=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :, :] = 1
    mask[1, :, :2, :2] = 1  # a sixteenth of the picture
    loss.mean(loss.error(prediction, torch.zeros(2, 4, 8, 8), "l2"), mask).sum().backward()
    whole, small = prediction.grad.flatten(1).sum(1).tolist()
    assert small == pytest.approx(whole)
    assert prediction.grad[1, :, 2:, 2:].abs().max() == 0


def test_an_empty_mask_has_no_loss_and_no_gradient():
    prediction = torch.ones(1, 4, 8, 8, requires_grad=True)
    empty = loss.mean(loss.error(prediction, torch.zeros(1, 4, 8, 8), "l2"), torch.zeros(1, 1, 8, 8))
    empty.sum().backward()
    assert empty.item() == 0
    assert prediction.grad.abs().max() == 0


def test_a_bf16_prediction_is_compared_in_fp32():
    prediction = torch.full((1, 1, 1, 1), 3.0, dtype=torch.bfloat16)
    assert loss.error(prediction, torch.full((1, 1, 1, 1), 3.001), "l1").item() == pytest.approx(0.001, rel=1e-3)
