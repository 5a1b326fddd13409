"""Pixels to latents and back, against diffusers' VAE."""

import pytest
import torch

from lorakiln.base.errors import UserError
from lorakiln.families.family import Posterior
from lorakiln.families.sdxl import vae
from tests.tiny import tiny_family


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_posterior_is_diffusers_own(family, pixels):
    posterior = family.encode_pixels(pixels)
    with torch.no_grad():
        theirs = family.vae.encode(pixels).latent_dist
    assert posterior.mean_BCHW.shape == (2, 4, 8, 6)
    assert torch.equal(posterior.mean_BCHW, theirs.mean)
    assert torch.equal(posterior.logvar_BCHW, theirs.logvar)
    assert torch.equal(posterior.sample(torch.zeros(2, 4, 8, 6)), theirs.mode())
    noise = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(3))
    sample = theirs.sample(generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(posterior.sample(noise), sample)


def test_a_posterior_samples_mean_and_deviation():
    posterior = Posterior(torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 2 * torch.log(torch.tensor(3.0))))
    assert posterior.sample(torch.full((1, 1, 1, 1), -1.0)).item() == pytest.approx(-1)


def test_decoding_undoes_scaling_and_stays_in_range(family, pixels):
    latent = family.encode_pixels(pixels).mean_BCHW
    seen = family.decode(family.scale(latent))
    with torch.no_grad():
        theirs = family.vae.decode(latent).sample.clamp(-1, 1)
    assert seen.shape == pixels.shape
    torch.testing.assert_close(seen, theirs)
    assert torch.equal(family.decode(latent, scaled=False), theirs)
    assert family.scale(torch.ones(1)).item() == pytest.approx(0.13025)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_names_the_picture(family, pixels, bad):
    pixels[1, 0, 5, 5] = bad
    with pytest.raises(UserError, match=r"b\.png: its pixels are not finite"):
        family.encode_pixels(pixels, ["a.png", "b.png"])
    with pytest.raises(UserError, match="picture 1 of the batch"):
        family.encode_pixels(pixels)


def test_nan_made_by_the_vae_itself_is_never_silent(pixels):
    family = tiny_family()
    family.vae.encoder.conv_in.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"a\.png: the VAE makes NaN or infinity of it in fp32; name another VAE"):
        family.encode_pixels(pixels, ["a.png", "b.png"])


def test_a_shift_is_taken_off_before_the_factor():
    class Config:
        shift_factor, scaling_factor = 0.5, 2.0

    latent = torch.tensor([1.5])
    assert vae.scale(Config, latent).item() == 2.0
    assert vae.unscale(Config, vae.scale(Config, latent)).item() == 1.5
