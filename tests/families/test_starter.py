"""The shipped bases go the way of any checkpoint, and what they predict is seen in their weights."""

import pytest
import torch

from lorakiln import families
from lorakiln.base.errors import UserError
from lorakiln.families import places
from lorakiln.families.sdxl.prediction import EARLY, EPSILON_ABOVE, LAST, TRAINED_ABOVE, V_BELOW, correlation

SEEDS = (0, 1, 2)


def shipped(name: str):
    if not (places.ASSETS / places.BUNDLED[name]).exists():
        pytest.skip(f"{name} is not in this checkout")
    return families.load(name)


@pytest.mark.parametrize(("name", "expected"), [("starter", ("epsilon", False)), ("starter-v", ("v", True))])
def test_a_shipped_base_is_what_it_says(name, expected):
    family = shipped(name)
    assert (family.schedule.prediction, family.schedule.ztsnr) == expected
    assert family.notes == []
    assert (family.resolution, family.latent_channels, family.latent_factor) == (128, 4, 8)
    assert correlation(family, EARLY, SEEDS) > TRAINED_ABOVE + 0.1
    last = correlation(family, LAST, SEEDS)
    assert last > EPSILON_ABOVE + 0.1 if expected[0] == "epsilon" else last < V_BELOW - 0.05


@pytest.mark.parametrize(("name", "wrong"), [("starter", "v"), ("starter-v", "epsilon")])
def test_a_recipe_that_contradicts_a_shipped_base_is_refused(name, wrong):
    shipped(name)
    with pytest.raises(UserError, match=f"prediction = '{wrong}'"):
        families.load(name, prediction=wrong)


def test_the_twin_shares_all_but_the_unet():
    one, other = shipped("starter"), shipped("starter-v")
    assert [one.digest(part) == other.digest(part) for part in ("te1", "te2", "vae", "unet")] == [True] * 3 + [False]


def test_a_bundled_name_without_its_file_is_a_users_error(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "ASSETS", tmp_path)
    with pytest.raises(UserError, match=r"base = 'starter': starter\.safetensors is missing"):
        families.load("starter")


def test_a_shipped_base_draws_other_things_for_other_words():
    family = shipped("starter")
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 16, 16, generator=rng).repeat(2, 1, 1, 1)
    with torch.no_grad():
        text = family.encode_text(family.tokenize(["red apple", "blue car"]))
        first, second = family.predict(noise, torch.tensor([700, 700]), text, torch.full((2, 6), 128.0))
    assert (first - second).norm() / first.norm() > 0.01
