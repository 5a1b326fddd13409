"""Noise is a function of (seed, use, step, slot), and each departure from plain noise does what its paper says."""

import pytest
import torch

from lorakiln.diffusion import noise

SHAPE = (4, 16, 24)


def test_a_slots_noise_does_not_depend_on_its_neighbours():
    whole = noise.batch_noise(SHAPE, 7, 3, range(4), offset_strength=0.1, multires_levels=3)
    halves = [
        noise.batch_noise(SHAPE, 7, 3, slots, offset_strength=0.1, multires_levels=3) for slots in ([0, 1], [2, 3])
    ]
    assert torch.equal(whole, torch.cat(halves))


def test_noise_differs_in_seed_use_step_and_slot():
    draws = [
        noise.slot_noise(SHAPE, 7, 3, [0]),
        noise.slot_noise(SHAPE, 8, 3, [0]),
        noise.slot_noise(SHAPE, 7, 4, [0]),
        noise.slot_noise(SHAPE, 7, 3, [1]),
        noise.slot_noise(SHAPE, 7, 3, [0], use="noise offset"),
    ]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert (one * other).mean().abs() < 0.1  # uncorrelated
    assert torch.equal(draws[0], noise.slot_noise(SHAPE, 7, 3, [0]))


def test_plain_noise_is_standard_normal():
    draw = noise.batch_noise((4, 64, 64), 0, 0, range(8))
    assert draw.mean().abs() < 0.01
    assert draw.std() == pytest.approx(1, abs=0.01)


def test_offset_shifts_each_channel_by_its_draw():
    flat = torch.zeros(1, 2, 2, 2)
    shifted = noise.offset(flat, torch.tensor([1.0, -2.0]).view(1, 2, 1, 1), 0.05)
    assert shifted[0, 0].flatten().tolist() == pytest.approx([0.05] * 4)
    assert shifted[0, 1].flatten().tolist() == pytest.approx([-0.1] * 4)


def test_offset_leaves_the_differences_within_a_channel_alone():
    plain = noise.batch_noise(SHAPE, 1, 2, [0, 1])
    shifted = noise.batch_noise(SHAPE, 1, 2, [0, 1], offset_strength=0.5)
    moved = (shifted - plain).flatten(2)
    assert (moved - moved[:, :, :1]).abs().max() < 1e-6
    assert moved[..., 0].unique().numel() == 2 * SHAPE[0]  # another shift for each sample and channel


def test_the_offset_is_drawn_apart_from_the_noise():
    shape = (64, 16, 16)
    plain = noise.batch_noise(shape, 1, 2, [0])
    shift = (noise.batch_noise(shape, 1, 2, [0], offset_strength=1.0) - plain)[0, :, 0, 0]
    assert (shift - plain.flatten()[:64]).abs().max() > 0.5
    assert shift.std() == pytest.approx(1, abs=0.3)


def test_each_multires_level_is_weaker_by_the_discount():
    height, width, discount = 32, 48, 0.5
    start = torch.zeros(1, height, width)
    start[0, 0, 0] = 1
    rng = noise.generator(0, "a test")
    expected = start.clone()
    for level in range(3):
        ratio = (2 + 2 * torch.rand((), generator=rng).item()) ** level
        coarse = torch.randn(1, 1, int(height / ratio), int(width / ratio), generator=rng)
        expected += (1, 0.5, 0.25)[level] * torch.nn.functional.interpolate(
            coarse, (height, width), mode="bilinear"
        ).squeeze(0)
    drawn = noise.multires(start, noise.generator(0, "a test"), 3, discount)
    torch.testing.assert_close(drawn, expected / expected.std())


def test_multires_noise_has_unit_deviation_and_longer_waves():
    plain = noise.batch_noise((4, 64, 64), 1, 2, range(4))
    coarse = noise.batch_noise((4, 64, 64), 1, 2, range(4), multires_levels=6, multires_discount=0.8)
    assert coarse.flatten(1).std(1).tolist() == pytest.approx([1] * 4, abs=1e-5)

    def neighbours(field):
        return (field[..., 1:] * field[..., :-1]).mean()

    assert neighbours(plain).abs() < 0.02
    assert neighbours(coarse) > 0.2


def test_input_perturbation_has_its_strength_and_its_own_draw():
    extra = noise.perturbation((4, 64, 64), 1, 2, range(4), 0.1)
    assert extra.std() == pytest.approx(0.1, rel=0.02)
    assert (extra * noise.slot_noise((4, 64, 64), 1, 2, range(4))).mean().abs() < 0.005
