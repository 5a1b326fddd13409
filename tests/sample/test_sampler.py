"""Each sampler follows diffusers' scheduler of the same name, and the exact solution where there is one."""

import diffusers
import numpy as np
import pytest
import torch

from lorakiln.base.errors import UserError
from lorakiln.diffusion.schedule import Schedule
from lorakiln.sample.sampler import clean, dpmpp_2m, euler, euler_ancestral, guided, samplers, spaced

# diffusers hands tensors to numpy in a way that numpy 2 frowns on
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EPSILON = Schedule.scaled_linear()
VELOCITY = Schedule.scaled_linear(prediction="v", ztsnr=True)
PEERS = {
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
}


def peer(name, schedule, spacing):
    return PEERS[name](
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction" if schedule.prediction == "v" else "epsilon",
        rescale_betas_zero_snr=schedule.ztsnr,
        timestep_spacing=spacing,
        steps_offset=1,
    )


def network(x, timestep):
    """Any smooth function of input and timestep will do for a UNet."""
    return torch.tanh(x * (0.5 + timestep / 2000)) + 0.1 * torch.roll(x, 1, -1)


def noise(seed=0):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def ours(name, schedule, steps, draw=None):
    def denoise(x, sigma):
        output = network(x / (sigma**2 + 1) ** 0.5, steps.timestep(sigma))
        return clean(x, output, sigma, schedule.prediction)

    return samplers[name](denoise, steps.start * noise(), steps.sigmas, draw)


def theirs(name, schedule, spacing, steps):
    scheduler = peer(name, schedule, spacing)
    if name == "dpmpp_2m":  # its leading spacing has one step more; the solver is what is compared
        scheduler.set_timesteps(timesteps=list(steps.timesteps))
        x = noise()
    else:
        scheduler.set_timesteps(len(steps.timesteps))
        x = noise() * steps.start
    rng = torch.Generator().manual_seed(5)
    for timestep in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x, **({"generator": rng} if name == "euler_a" else {})).prev_sample
    return x


@pytest.mark.parametrize("count", [1, 2, 7, 20, 28])
@pytest.mark.parametrize(("schedule", "spacing"), [(EPSILON, "leading"), (EPSILON, "trailing"), (VELOCITY, "trailing")])
def test_steps_are_diffusers(schedule, spacing, count):
    scheduler = peer("euler", schedule, spacing)
    scheduler.set_timesteps(count)
    steps = spaced(schedule, count, spacing)
    assert list(steps.timesteps) == scheduler.timesteps.tolist()
    np.testing.assert_allclose(steps.sigmas, scheduler.sigmas, rtol=5e-5)
    start = steps.sigmas[0] if spacing == "trailing" else steps.start  # diffusers' rule; ours is always `start`
    assert start == pytest.approx(float(scheduler.init_noise_sigma), rel=5e-5)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("count", [4, 25])
@pytest.mark.parametrize(("schedule", "spacing"), [(EPSILON, "leading"), (EPSILON, "trailing"), (VELOCITY, "trailing")])
def test_samplers_follow_diffusers(name, schedule, spacing, count):
    steps = spaced(schedule, count, spacing)
    rng = torch.Generator().manual_seed(5)
    mine = ours(name, schedule, steps, lambda i: torch.randn(2, 4, 8, 8, generator=rng))
    torch.testing.assert_close(mine, theirs(name, schedule, spacing, steps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PEERS)
def test_samplers_end_at_the_picture_the_model_is_sure_of(name):
    picture = noise(1)
    steps = spaced(VELOCITY, 5)
    end = samplers[name](lambda x, sigma: picture, steps.start * noise(), steps.sigmas, noise)
    torch.testing.assert_close(end, picture)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpmpp_2m", 2)])
def test_halving_the_steps_shrinks_the_error_as_the_order_says(name, order):
    # for pictures of deviation 1, x_0 = x / (1 + sigma^2), and x(sigma) = x(start) sqrt((1 + sigma^2) / (1 + start^2))
    def error(count):
        sigmas = torch.linspace(np.log(10), np.log(0.1), count + 1, dtype=torch.float64).exp().tolist()
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        end = samplers[name](lambda x, sigma: x / (1 + sigma**2), x, sigmas, noise)
        return abs(end.item() - ((1 + 0.1**2) / (1 + 10**2)) ** 0.5)

    assert error(100) / error(200) == pytest.approx(2**order, rel=0.1)


def test_ancestral_noise_keeps_the_deviation():
    # a denoiser that knows the data is 0 makes x pure noise of deviation sigma at every step
    x = 10 * torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    end = euler_ancestral(
        lambda x, sigma: torch.zeros_like(x), x, [10.0, 5.0, 2.0], lambda i: torch.randn(x.shape, generator=rng)
    )
    assert end.std().item() == pytest.approx(2.0, rel=0.02)
    plain = euler(lambda x, sigma: torch.zeros_like(x), x, [10.0, 5.0, 2.0], noise)
    torch.testing.assert_close(plain, x / 5)


def test_two_steps_of_dpmpp_2m_by_hand():
    # sigmas 4, 2, 1 are evenly spaced in log sigma: r = 1 and D = 1.5 x_0 - 0.5 x_0_before
    guesses = iter([3.0, 5.0])
    x = torch.full((1, 1, 1, 1), 8.0)
    end = dpmpp_2m(lambda x, sigma: torch.full_like(x, next(guesses)), x, [4.0, 2.0, 1.0], noise)
    first = 0.5 * 8 + 0.5 * 3
    assert end.item() == pytest.approx(0.5 * first + 0.5 * (1.5 * 5 - 0.5 * 3))


@pytest.mark.parametrize("schedule", [EPSILON, Schedule.scaled_linear(prediction="v"), VELOCITY])
def test_the_right_output_gives_the_clean_latent_back(schedule):
    latent, drawn, timestep = noise(2), noise(3), torch.tensor([700, 700])
    sigma = schedule.sigmas()[700].item()
    target = schedule.velocity(latent, drawn, timestep) if schedule.prediction == "v" else drawn
    torch.testing.assert_close(clean(latent + sigma * drawn, target, sigma, schedule.prediction), latent)


def test_zero_terminal_snr_starts_at_the_last_timestep():
    assert spaced(VELOCITY, 20).timesteps[0] == 999
    assert spaced(EPSILON, 20).timesteps[0] == 951


def test_guidance_by_hand():
    positive, negative = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2), torch.tensor([1.0, 1.0]).view(1, 1, 1, 2)
    strong = guided(positive, negative, torch.tensor([4.0]), torch.tensor([0.0]))
    assert strong.flatten().tolist() == pytest.approx([9, 1])  # 1 + 4 * 2, 1 + 4 * 0
    # the deviation 8 / sqrt(2) becomes 2 / sqrt(2): a quarter
    assert guided(positive, negative, torch.tensor([4.0]), torch.tensor([1.0])).flatten().tolist() == [2.25, 0.25]
    half = guided(positive, negative, torch.tensor([4.0]), torch.tensor([0.5])).flatten().tolist()
    assert half == pytest.approx([(9 + 2.25) / 2, (1 + 0.25) / 2])


def test_each_picture_has_its_own_guidance():
    positive, negative = noise(0), noise(1)
    both = guided(positive, negative, torch.tensor([2.0, 7.0]), torch.tensor([0.0, 0.7]))
    alone = guided(positive[1:], negative[1:], torch.tensor([7.0]), torch.tensor([0.7]))
    torch.testing.assert_close(both[1:], alone)


@pytest.mark.parametrize("count", [0, 1000])
def test_an_impossible_number_of_steps_is_refused(count):
    with pytest.raises(UserError, match="must be from 1 to 999"):
        spaced(EPSILON, count)


def test_unknown_samplers_and_spacings_are_refused():
    with pytest.raises(UserError, match="unknown sampler 'eulr'; did you mean 'euler'"):
        samplers["eulr"]
    with pytest.raises(UserError, match="choose from leading, trailing"):
        spaced(EPSILON, 10, "linspace")
