"""The noise schedule is Stable Diffusion's, to the last bits that diffusers keeps."""

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from lorakiln.base.errors import UserError
from lorakiln.diffusion.schedule import Schedule

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddpm(ztsnr=False, prediction="epsilon"):
    return diffusers.DDPMScheduler(**SDXL, rescale_betas_zero_snr=ztsnr, prediction_type=prediction)


def batch():
    rng = torch.Generator().manual_seed(0)
    latent, noise = torch.randn(2, 5, 4, 8, 8, generator=rng)
    return latent, noise, torch.tensor([0, 1, 500, 998, 999])


def test_scaled_linear_is_diffusers_schedule():
    # diffusers multiplies a thousand factors in fp32, we in fp64
    torch.testing.assert_close(
        Schedule.scaled_linear().alphas_cumprod_T.float(), ddpm().alphas_cumprod, rtol=2e-5, atol=0
    )


def test_zero_terminal_snr_is_diffusers_rescaling():
    beta_T = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(beta_T), 0)
    ours = Schedule.scaled_linear(prediction="v", ztsnr=True).alphas_cumprod_T
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)
    assert ours[-1] == 0
    assert ours[0] == pytest.approx(Schedule.scaled_linear().alphas_cumprod_T[0].item(), rel=1e-12)


@pytest.mark.parametrize("ztsnr", [False, True])
def test_noising_and_velocity_are_diffusers(ztsnr):
    latent, noise, timestep = batch()
    ours, theirs = Schedule.scaled_linear(prediction="v", ztsnr=ztsnr), ddpm(ztsnr)
    tolerance = {"rtol": 2e-5, "atol": 2e-5}
    torch.testing.assert_close(
        ours.add_noise(latent, noise, timestep), theirs.add_noise(latent, noise, timestep), **tolerance
    )
    torch.testing.assert_close(
        ours.velocity(latent, noise, timestep), theirs.get_velocity(latent, noise, timestep), **tolerance
    )


def test_with_diffusers_own_table_noising_is_equal_to_rounding():
    latent, noise, timestep = batch()
    theirs = ddpm()
    ours = Schedule(theirs.alphas_cumprod.double(), "v")
    torch.testing.assert_close(
        ours.add_noise(latent, noise, timestep), theirs.add_noise(latent, noise, timestep), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        ours.velocity(latent, noise, timestep), theirs.get_velocity(latent, noise, timestep), rtol=1e-6, atol=1e-6
    )


def test_velocity_and_noised_give_back_latent_and_noise():
    latent, noise, timestep = batch()
    schedule = Schedule.scaled_linear(prediction="v", ztsnr=True)
    signal, sigma = (rate.view(-1, 1, 1, 1) for rate in schedule.rates(timestep))
    noised, velocity = schedule.add_noise(latent, noise, timestep), schedule.velocity(latent, noise, timestep)
    torch.testing.assert_close(signal * noised - sigma * velocity, latent)
    torch.testing.assert_close(sigma * noised + signal * velocity, noise)


def test_snr_and_sigma_by_hand():
    schedule = Schedule(torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64), "v")
    assert schedule.snr(torch.tensor([0, 1, 2])).tolist() == pytest.approx([4, 1, 0.25])
    assert schedule.sigmas().tolist() == pytest.approx([0.5, 1, 2])


def test_zero_terminal_snr_has_snr_zero_and_a_finite_sigma():
    schedule = Schedule.scaled_linear(prediction="v", ztsnr=True)
    assert schedule.snr(torch.tensor([999])).item() == 0
    assert schedule.sigmas()[-1].item() == pytest.approx(4096, rel=1e-6)


def test_sdxl_ends_at_its_known_sigma():
    assert Schedule.scaled_linear().sigmas()[[0, -1]].tolist() == pytest.approx([0.02917, 14.6146], rel=2e-4)


def test_zero_terminal_snr_with_epsilon_is_refused():
    with pytest.raises(UserError, match="zero terminal SNR needs prediction = 'v'"):
        Schedule.scaled_linear(ztsnr=True)


def test_unknown_prediction_is_refused():
    with pytest.raises(UserError, match="choose from epsilon, v"):
        Schedule.scaled_linear(prediction="v_prediction")
