"""The held-out loss: a pure function of weights and seed, counted where the mask says, lower for a better model."""

import math

import pytest
import torch
from PIL import Image, ImageDraw

from lorakiln.judge.heldout import (
    HeldOut,
    bands,
    denoising_losses,
    gain,
    gains,
    memorising,
    peaked,
    read_held_out,
)
from tests.tiny import tiny_family


@pytest.fixture(scope="module")
def family():
    return tiny_family()


@pytest.fixture
def held_out(family, tmp_path):
    """Two pictures of a disc, with masks of the disc."""
    for name in ("a", "b"):
        picture, mask = Image.new("RGB", (64, 64), "navy"), Image.new("L", (64, 64), 0)
        for canvas, colour in ((picture, "gold"), (mask, 255)):
            ImageDraw.Draw(canvas).ellipse([16, 16, 48, 48], fill=colour)
        picture.save(tmp_path / f"{name}.png")
        mask.save(tmp_path / f"{name}-mask.png")
    pictures, masks = [tmp_path / "a.png", tmp_path / "b.png"], [tmp_path / "a-mask.png", tmp_path / "b-mask.png"]
    return read_held_out(family, pictures, ["a disc", "a disc"], masks)


def test_pictures_and_masks_arrive_at_latent_size(held_out):
    assert held_out.latents_BCHW.shape == (2, 4, 8, 8)
    assert held_out.masks_B1HW.shape == (2, 1, 8, 8)
    # a disc of radius 16 in 64 x 64 pixels covers pi / 16 of them
    assert float(held_out.masks_B1HW.mean()) == pytest.approx(3.1416 / 16, rel=0.1)
    assert torch.equal(held_out.latents_BCHW[0], held_out.latents_BCHW[1])


def test_the_same_question_has_the_same_answer(family, held_out):
    one, other = denoising_losses(family, held_out, timesteps=3), denoising_losses(family, held_out, timesteps=3)
    assert one.shape == (2, 3)
    assert torch.equal(one, other)
    assert not torch.equal(one, denoising_losses(family, held_out, timesteps=3, seed=1))


def test_each_picture_meets_its_own_noise(family, held_out):
    losses = denoising_losses(family, held_out, timesteps=2)
    assert not torch.equal(losses[0], losses[1])


def test_only_the_mask_counts(family, held_out):
    """Worked by hand: with a mask of one latent pixel, the loss is that pixel's mean squared error."""
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 3, 4] = 1
    one = HeldOut(held_out.latents_BCHW, held_out.text, held_out.time_ids_B6, mask)
    every = HeldOut(held_out.latents_BCHW, held_out.text, held_out.time_ids_B6)
    errors = []
    for row in range(8):
        for column in range(8):
            place = torch.zeros(2, 1, 8, 8)
            place[:, :, row, column] = 1
            pixel = HeldOut(held_out.latents_BCHW, held_out.text, held_out.time_ids_B6, place)
            errors.append(denoising_losses(family, pixel, timesteps=1))
    torch.testing.assert_close(denoising_losses(family, one, timesteps=1), errors[3 * 8 + 4])
    torch.testing.assert_close(denoising_losses(family, every, timesteps=1), torch.stack(errors).mean(0))


def test_a_model_that_knows_the_answer_has_no_loss(family, held_out, monkeypatch):
    from lorakiln.diffusion.noise import slot_noise

    def oracle(self, noised, timestep_B, text, time_ids):
        step = int(timestep_B[0]) * 4 // 1000
        return slot_noise(noised.shape[1:], 0, step, range(len(noised)), use="held out")

    monkeypatch.setattr(type(family), "predict", oracle)
    assert float(denoising_losses(family, held_out, timesteps=4).max()) == 0


def test_gain_is_the_share_of_the_loss_that_is_gone():
    assert gain(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]])) == pytest.approx(0.25)
    assert gain(torch.tensor([[1.0]]), torch.tensor([[2.0]])) == -1


def test_batches_do_not_change_the_questions(family, held_out):
    whole = denoising_losses(family, held_out, timesteps=3)
    torch.testing.assert_close(denoising_losses(family, held_out, timesteps=3, batch=1), whole)


def test_each_noise_level_counts_alike_in_the_gain_of_a_picture():
    """Halved at one level and unchanged at the other: sqrt(1 / 2) is left, whatever the losses' sizes."""
    before, after = torch.tensor([[100.0, 0.1], [100.0, 0.1]]), torch.tensor([[50.0, 0.1], [100.0, 0.05]])
    assert gains(before, after) == pytest.approx([1 - 0.5**0.5] * 2)
    assert math.isnan(gains(before, torch.full((2, 2), torch.nan))[0])


def test_bands_are_thirds_of_the_schedule():
    before = torch.ones(2, 6)
    after = torch.tensor([[0.5, 0.5, 1, 1, 2, 2]] * 2)
    found = bands(before, after)
    assert {name: round(one.mean, 6) for name, one in found.items()} == {"fine": 0.5, "middle": 0, "coarse": -1}
    assert len(bands(before[:, :1], after[:, :1])) == 1, "empty bands are left out"


def test_the_memorising_gap_is_what_only_trained_pictures_gain():
    assert memorising([0.5, 0.5, 0.5], [0.1, 0.1, 0.1]).above(0.39)
    assert not memorising([0.2, 0.1, 0.3], [0.1, 0.3, 0.2]).above(0)


def rise_and_fall(*means: float) -> list[list[float]]:
    return [[mean - 0.01, mean, mean + 0.01, mean + 0.002] for mean in means]


def test_a_peak_is_one_once_two_measurements_lie_below_it():
    assert peaked(rise_and_fall(0.1, 0.2, 0.15, 0.1)) == 1
    assert peaked(rise_and_fall(0.1, 0.2, 0.15)) is None, "one may be noise"
    assert peaked(rise_and_fall(0.1, 0.2, 0.15, 0.2001)) is None
    assert peaked([[0.0, 0.0], [0.5, 0.1], [0.1, 0.45], [0.4, 0.15]]) is None, "the pictures disagree"
    assert peaked([[0.1], [0.2], [0.1], [0.0]]) is None, "one picture tells no noise"
    assert peaked([]) is None


def test_a_model_that_stops_giving_numbers_has_peaked_before():
    assert peaked([[0.1, 0.1], [0.2, 0.2], [math.nan, 0.1]]) == 1
    assert peaked([[math.nan, math.nan]]) is None
