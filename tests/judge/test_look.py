"""How pictures are drawn, seen by the base: distances worked by hand, and features of pictures drawn alike or not."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from lorakiln.diffusion.noise import slot_noise
from lorakiln.judge import look
from tests.tiny import tiny_family


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_the_energy_distance_of_two_pairs():
    """Between: (1 + 3 + 1 + 1) / 4, twice; within: 2 and 2."""
    assert look.energy_distance(column(0, 2), column(1, 3)) == pytest.approx(2 * 1.5 - 2 - 2)
    assert look.energy_distance(column(0, 0), column(3, 3)) == pytest.approx(6)
    with pytest.raises(ValueError, match="two unrelated pictures"):
        look.energy_distance(column(0), column(1, 3))


def test_a_drawing_is_not_compared_with_the_picture_whose_caption_it_was_drawn_from():
    """Of 0, 2 and 1, 3 the first two are kin, and the last two: between 3 and 1, twice; within as ever 2 and 2."""
    kin = look.kinship(["a", "b"], ["a", "b"])
    assert look.energy_distance(column(0, 2), column(1, 3), kin) == pytest.approx(2 * 2 - 2 - 2)
    with pytest.raises(ValueError, match="two unrelated pictures"):
        look.energy_distance(column(0, 2), column(1, 3), look.kinship(["a", "a"], ["a", "b"]))


def test_who_is_kin():
    """Whoever has a text in common, drawing or picture; not where all pictures have one."""
    drawn, pictures = look.kinship(["a", "b", "a", "twice", "new", "new"], ["a", "b", "twice", "twice"])
    assert drawn[0] == drawn[2] == pictures[0] and drawn[1] == pictures[1]
    assert drawn[3] == pictures[2] == pictures[3] and drawn[4] == drawn[5]
    assert len({*drawn, *pictures}) == 4
    assert look.kinship(["a", "b"], ["a", "a"]) is None


def test_pictures_drawn_from_memory_come_no_nearer_than_the_set_is():
    """They are the set; held against themselves, too, they would be nearer to it than it is to itself."""
    rng = np.random.default_rng(0)
    own, base = [rng.normal(size=(5, 8))], [rng.normal(3, size=(5, 8))]
    captions = list("abcde")
    assert look.similarity(own, base, own, look.kinship(captions, captions)) == pytest.approx(1)
    assert look.similarity(own, base, own) > 1.05


def test_similarity_goes_from_the_bases_drawings_to_the_set():
    """Moved by 2 the pictures lie 2 apart, by 4 they lie 4; within each sample 4/3: 1 - (4 - 8/3) / (8 - 8/3)."""
    own, base = [column(-1, 1, -1, 1)], [column(3, 5, 3, 5)]
    assert look.similarity(base, base, own) == 0
    assert look.similarity([column(1, 3, 1, 3)], base, own) == pytest.approx(0.75)
    assert look.similarity(own, base, own) > 0.99
    assert look.similarity([column(5, 7, 5, 7)], base, own) < 0
    assert look.similarity([own[0][:1]], base, own) is None and look.similarity(own, base, []) is None


def test_a_group_counts_by_how_far_apart_the_two_are():
    """Deviations 1 around -2 and 2: sqrt(4 + 1); of two features, one of which never varies, the same as of one."""
    near, far = column(-3, -1), column(1, 3)
    level = np.hstack([near, column(0, 0)]), np.hstack([far, column(0, 0)])
    assert look.deviations([near, level[0]], [far, level[1]]) == pytest.approx([5**0.5, 5**0.5])


def test_how_many_features_a_group_has_changes_nothing():
    own, base, drawn = column(-1, 1, -1, 1), column(3, 5, 3, 5), column(1, 3, 1, 3)
    wide = [[np.repeat(one, 50, axis=1), one] for one in (drawn, base, own)]
    narrow = [[one, one] for one in (drawn, base, own)]
    assert look.similarity(*wide) == pytest.approx(look.similarity(*narrow))


def test_a_base_that_draws_like_the_set_already_tells_nothing():
    own, base = column(-1, 1, -1, 1, -1, 1), column(-1.05, 0.95, -1.05, 0.95, -1.05, 0.95)
    assert look.similarity([own], [base], [own]) is None


def disc(colour: str, outline: str | None, at: int) -> Image.Image:
    picture = Image.new("RGB", (64, 64), colour)
    ImageDraw.Draw(picture).ellipse([at, at, at + 32, at + 32], fill="gold", outline=outline, width=4)
    return picture


def test_features_tell_ways_of_drawing_apart_and_a_batch_changes_nothing():
    family = tiny_family()
    plain = [disc("navy", None, at) for at in range(0, 30, 3)]
    rough = [Image.effect_noise((64, 64), 60 + at).convert("RGB") for at in range(10)]
    of_plain, of_rough = look.features(family, plain), look.features(family, rough)
    assert [one.shape for one in of_plain] == [one.shape for one in of_rough] and len(of_plain[0]) == 10
    for alone, whole in zip(look.features(family, plain[3:4]), of_plain, strict=True):
        assert alone[0] == pytest.approx(whole[3], abs=1e-4)
    odd, even = [one[::2] for one in of_plain], [one[1::2] for one in of_plain]
    assert look.similarity(odd, of_rough, even) > 0.8, "the same way of drawing, beside another"
    assert look.features(family, []) == []


def test_the_last_feature_is_the_bases_loss_on_the_picture(monkeypatch):
    """A base that always answers 0 is wrong by the noise itself (epsilon): the same for every picture."""
    family = tiny_family()
    monkeypatch.setattr(family.unet.conv_out, "weight", torch.nn.Parameter(family.unet.conv_out.weight * 0))
    monkeypatch.setattr(family.unet.conv_out, "bias", torch.nn.Parameter(family.unet.conv_out.bias * 0))
    loss = look.features(family, [disc("navy", None, 10), disc("red", "black", 20)])[-1]
    side = family.resolution // family.latent_factor
    noise = slot_noise((family.latent_channels, side, side), 0, 0, [0], use="look")
    assert loss == pytest.approx(np.full((2, 1), float(noise.square().mean().log())), abs=1e-5)
