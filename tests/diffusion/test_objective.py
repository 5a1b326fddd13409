"""The objective asks what diffusers' trainers ask, at timesteps that depend on (seed, step, slot) alone."""

import diffusers
import pytest
import torch

from lorakiln.base.errors import UserError
from lorakiln.diffusion.objective import LossOptions, NoiseOptions, Objective
from lorakiln.diffusion.schedule import Schedule

EPSILON = Schedule.scaled_linear()
VELOCITY = Schedule.scaled_linear(prediction="v", ztsnr=True)


def batch(size=3):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(size, 4, 8, 8, generator=rng)


@pytest.mark.parametrize("schedule", [EPSILON, VELOCITY])
def test_the_task_is_diffusers(schedule):
    objective = Objective(schedule)
    latent, timestep = batch(), torch.tensor([3, 500, 999])
    noise = objective.sample_noise((4, 8, 8), 1, 2, range(3))
    task = objective.make(latent, noise, timestep)
    theirs = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=schedule.ztsnr
    )
    target = noise.target_BCHW
    if schedule.prediction == "v":
        target = theirs.get_velocity(latent, target, timestep)
    torch.testing.assert_close(task.target_BCHW, target, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(
        task.noised_BCHW, theirs.add_noise(latent, noise.target_BCHW, timestep), rtol=2e-5, atol=2e-5
    )
    assert task.weight_B.tolist() == [1, 1, 1]


def test_input_perturbation_changes_what_is_shown_not_what_is_asked():
    latent, timestep = batch(), torch.tensor([3, 500, 999])
    plain, shaken = Objective(VELOCITY), Objective(VELOCITY, noise=NoiseOptions(input_perturbation=0.1))
    noise, shaken_noise = (one.sample_noise((4, 8, 8), 1, 2, range(3)) for one in (plain, shaken))
    before, after = plain.make(latent, noise, timestep), shaken.make(latent, shaken_noise, timestep)
    assert torch.equal(before.target_BCHW, after.target_BCHW)
    sigma = VELOCITY.rates(timestep)[1].view(-1, 1, 1, 1)
    torch.testing.assert_close(after.noised_BCHW - before.noised_BCHW, sigma * shaken_noise.perturbation_BCHW)


def test_weights_follow_the_options():
    timestep = torch.tensor([0, 999])
    snr = EPSILON.snr(timestep)
    min_snr = Objective(EPSILON, loss=LossOptions(min_snr_gamma=5.0)).weight(timestep)
    assert min_snr.tolist() == pytest.approx([5 / snr[0].item(), 1])
    debiased = Objective(EPSILON, loss=LossOptions(debiased=True)).weight(timestep)
    assert debiased.tolist() == pytest.approx([1000**-0.5, snr[1].item() ** -0.5], rel=1e-5)


def test_no_weight_is_infinite_or_nan_at_zero_terminal_snr():
    timestep = torch.arange(1000)
    for options in (LossOptions(min_snr_gamma=5.0), LossOptions(debiased=True)):
        assert Objective(VELOCITY, loss=options).weight(timestep).isfinite().all()


def test_huber_loss_uses_each_timesteps_threshold():
    options = LossOptions(kind="huber", huber_schedule="exponential", huber_c=0.1)
    ones, zeros = torch.ones(2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    clean, noisy = Objective(EPSILON, loss=options).compare(ones, zeros, torch.tensor([0, 999])).tolist()
    assert clean == pytest.approx(2 * (2**0.5 - 1))
    c = 0.1**0.999
    assert noisy == pytest.approx(2 * c * ((1 + c * c) ** 0.5 - c))


def test_masks_reach_the_loss():
    ones, zeros = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    ones[:, :, 0, 0] = 3
    mask = torch.tensor([[1.0, 0], [0, 0]]).view(1, 1, 2, 2)
    assert Objective(EPSILON).compare(ones, zeros, torch.tensor([5]), mask).item() == pytest.approx(9)


@pytest.mark.parametrize("timesteps", ["uniform", "low_discrepancy"])
def test_a_slots_timestep_does_not_depend_on_its_neighbours(timesteps):
    objective = Objective(EPSILON, timesteps=timesteps)
    whole = objective.sample_timesteps(5, 9, range(6))
    parts = [objective.sample_timesteps(5, 9, slots) for slots in ([0, 1], [2, 3, 4, 5])]
    assert torch.equal(whole, torch.cat(parts))
    assert len(set(whole.tolist())) > 1  # slots differ
    assert not torch.equal(whole, objective.sample_timesteps(6, 9, range(6)))
    assert not torch.equal(whole, objective.sample_timesteps(5, 10, range(6)))


@pytest.mark.parametrize("timesteps", ["uniform", "low_discrepancy"])
def test_timesteps_fill_their_range_and_stay_inside(timesteps):
    objective = Objective(EPSILON, min_timestep=100, max_timestep=110, timesteps=timesteps)
    drawn = torch.cat([objective.sample_timesteps(0, step, range(4)) for step in range(200)])
    counts = torch.bincount(drawn, minlength=110)
    assert counts[:100].sum() == 0 and len(counts) == 110
    assert (counts[100:] > 50).all() and (counts[100:] < 115).all()


def test_low_discrepancy_is_evener_than_uniform_along_steps_and_along_slots():
    def worst_gap(timesteps, steps, slots):
        objective = Objective(EPSILON, timesteps=timesteps)
        drawn = torch.cat([objective.sample_timesteps(3, step, slots) for step in steps]).double().sort().values
        return (drawn / 1000 - torch.arange(len(drawn)) / len(drawn)).abs().max().item()

    for steps, slots in ((range(64), [0]), ([0], range(64)), (range(16), range(4))):
        assert worst_gap("low_discrepancy", steps, slots) < 0.5 * worst_gap("uniform", steps, slots)


@pytest.mark.parametrize(("low", "high"), [(-1, None), (0, 1001), (500, 500), (600, 500)])
def test_an_impossible_timestep_range_is_refused(low, high):
    with pytest.raises(UserError, match="min_timestep < max_timestep <= 1000"):
        Objective(EPSILON, min_timestep=low, max_timestep=high)


def test_bad_loss_options_are_refused():
    with pytest.raises(UserError, match="choose from l2, l1, huber, smooth_l1"):
        LossOptions(kind="mse")
    with pytest.raises(UserError, match="choose from constant, exponential, snr"):
        LossOptions(huber_schedule="linear")
    with pytest.raises(UserError, match="above 0"):
        LossOptions(huber_c=0)
    with pytest.raises(UserError, match="use one of them"):
        LossOptions(min_snr_gamma=5, debiased=True)
    with pytest.raises(UserError, match="choose from uniform, low_discrepancy"):
        Objective(EPSILON, timesteps="sobol")
