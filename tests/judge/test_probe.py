"""The probe tells what a base knows: the starter learned OpenMoji, and has never seen Twemoji."""

import math
from pathlib import Path

import pytest
import torch

from lorakiln import families
from lorakiln.base.errors import UserError
from lorakiln.diffusion.schedule import Schedule
from lorakiln.judge.probe import draw_own, linear_losses, probe, sheet, without
from tests.tiny import tiny_family

ROOT = Path(__file__).parent.parent.parent
KNOWN = sorted((Path(__file__).parent / "openmoji").glob("*.png"))


@pytest.fixture(scope="module")
def family():
    return families.load("starter")


@pytest.fixture(scope="module")
def seen(family, tmp_path_factory):
    """(pictures, captions, the starter's drawings) of OpenMoji and of Twemoji, the same eight things."""
    found = {}
    for name, folder in (("openmoji", KNOWN[0].parent), ("twemoji", ROOT / "examples" / "twemoji")):
        pictures = [folder / path.name for path in KNOWN]
        captions = [path.with_suffix(".txt").read_text().strip() for path in pictures]
        plain = [without(text, "twmj_style") for text in captions]
        found[name] = pictures, captions, draw_own(family, plain, tmp_path_factory.mktemp(name))
    return found


@pytest.mark.slow
def test_the_starter_knows_openmoji_and_not_twemoji(family, seen):
    known = probe(family, *seen["openmoji"])
    novel = probe(family, *seen["twemoji"], trigger="twmj_style")
    assert (known.novelty, novel.novelty) == ("familiar", "novel"), (known, novel)
    assert novel.excess - known.excess > 0.1
    assert "new to it" in novel.sentence and "nothing new" in known.sentence
    assert abs(novel.trigger) < 0.05, "a word that it never met helps nothing"


@pytest.mark.slow
def test_the_bases_own_drawings_are_no_news_to_it(family, seen, tmp_path):
    _, captions, drawings = seen["openmoji"]
    again = draw_own(family, captions[::-1], tmp_path)
    assert abs(probe(family, again, captions[::-1], drawings[::-1]).excess) < 0.1


@pytest.mark.slow
def test_the_sheet_shows_both(family, seen):
    pictures, _, drawings = seen["openmoji"]
    picture = sheet(family, pictures, drawings)
    assert picture.width > 8 * family.resolution and picture.height > 2 * family.resolution


def test_too_few_pictures_are_refused():
    with pytest.raises(UserError, match="too few"):
        probe(tiny_family(), KNOWN[:3], ["x"] * 3, KNOWN[:3])


def test_a_model_that_knows_nothing_finds_its_own_drawings_no_easier(tmp_path):
    """Every number is there and finite on random weights; the same pictures on both sides differ by nothing."""
    family = tiny_family()
    captions = [path.with_suffix(".txt").read_text() for path in KNOWN[:4]]
    drawings = draw_own(family, captions, tmp_path, steps=2)
    found = probe(family, drawings, captions, drawings, trigger="x")
    assert found.excess == found.trigger == 0 and found.words == found.own_words and found.novelty == "familiar"
    other = probe(family, KNOWN[:4], captions, drawings, trigger="score_9")
    assert all(math.isfinite(value) for value in (other.excess, other.spread, other.words, other.trigger))
    assert other.excess != 0 and other.trigger != 0


def test_the_trigger_is_left_out_as_a_tag():
    assert without("zzz, red hair, zzz top", "zzz") == "red hair, zzz top"


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_linear_filters_error_is_what_such_a_filter_makes(prediction):
    """Per frequency the best linear guess of epsilon misses a2 P / (a2 P + b2); measured on many draws."""

    class Plain:
        schedule = Schedule.scaled_linear(prediction=prediction)

    rng = torch.Generator().manual_seed(0)
    latent = 0.5 * torch.randn(1, 4, 64, 64, generator=rng)
    found = linear_losses(Plain, latent, timesteps=4)[0]
    for n in range(4):
        at = torch.full((1,), int((n + 0.5) * 250))
        signal, noise = Plain.schedule.rates(at)
        eps = torch.randn(64, *latent.shape[1:], generator=rng)
        x = torch.fft.fft2(signal * latent + noise * eps, norm="ortho")
        power = torch.fft.fft2(latent, norm="ortho").abs() ** 2
        guess = torch.fft.ifft2(noise * x / (signal**2 * power + noise**2), norm="ortho").real
        # the picture is fixed, so its own part does not average out; over its random phases it would
        error = ((guess - eps) ** 2).mean() / (signal**2 if prediction == "v" else 1)
        assert float(found[n]) == pytest.approx(float(error), rel=0.25)
