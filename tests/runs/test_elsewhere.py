"""Other programs load what Kiln writes: diffusers draws from the file what Kiln draws, and merged is unmerged."""

from dataclasses import replace

import pytest
import torch

from lorakiln import families
from lorakiln.runs.drawing import load_lora
from lorakiln.sample.generate import Request, draw_latents
from tests.sample.test_generate import theirs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

REQUEST = Request("trigger, red", "blue", 64, 64, steps=4, cfg=3.0, seed=3)


@pytest.fixture
def lora(run):
    """A plain LoRA of all three parts that has moved far from nothing."""
    result = run(optim={"lr": 2e-2, "text_lr": 2e-2}, save={"dtype": "fp32"}, train={"epochs": 4})
    return result.folder.lora


@pytest.fixture
def family(base):
    return families.load(base, prediction="epsilon")


def test_diffusers_draws_the_same_from_the_file(lora, family, base):
    plain = draw_latents(family, [REQUEST])
    network = load_lora(family, lora, 1.0)
    ours = draw_latents(family, [REQUEST])
    network.remove()
    assert (ours - plain).abs().max() > 0.05, "the LoRA changes too little to show anything"
    fresh = families.load(base, prediction="epsilon")
    torch.testing.assert_close(theirs(fresh, REQUEST, lora), ours, rtol=1e-4, atol=1e-4)


def test_merging_equals_not_merging_and_is_undone(lora, family):
    plain = draw_latents(family, [REQUEST])
    network = load_lora(family, lora, 0.7)
    unmerged = draw_latents(family, [REQUEST])
    network.merge()
    torch.testing.assert_close(draw_latents(family, [REQUEST]), unmerged, rtol=1e-4, atol=1e-4)
    network.remove()
    assert torch.equal(draw_latents(family, [REQUEST]), plain)


def test_strength_zero_changes_nothing_to_the_bit(lora, family):
    plain = draw_latents(family, [REQUEST])
    network = load_lora(family, lora, 0.0)
    assert torch.equal(draw_latents(family, [REQUEST]), plain)
    network.strength = 1.0
    assert not torch.equal(draw_latents(family, [REQUEST]), plain)


def test_strength_is_the_share_of_the_change(lora, family):
    """Twice the LoRA at half strength is the LoRA."""
    whole = load_lora(family, lora, 1.0)
    once = draw_latents(family, [replace(REQUEST, seed=9)])
    whole.remove()
    halves = [load_lora(family, lora, 0.5), load_lora(family, lora, 0.5)]
    torch.testing.assert_close(draw_latents(family, [replace(REQUEST, seed=9)]), once, rtol=1e-4, atol=1e-4)
    for half in reversed(halves):
        half.remove()
