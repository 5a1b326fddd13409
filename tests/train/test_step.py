"""One step's loss: the same however its pictures are shared out, and gone where the model is right."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from lorakiln.base.records import Crop, Size
from lorakiln.data.loader import Batch
from lorakiln.diffusion.objective import LossOptions, Objective
from lorakiln.runs.text import FrozenText, live
from lorakiln.train.step import Step
from tests.tiny import tiny_family

SIDE = Size(64, 64)


@pytest.fixture(scope="module")
def family():
    return tiny_family()


@pytest.fixture(scope="module")
def batch():
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    captions = ["a cat", "a dog, red", "", "a very long caption, " * 20]
    return Batch(latents, captions, [Crop(SIDE, SIDE, 0, 0, SIDE)] * 4, [0, 1, 2, 3], ["a", "b", "c", "d"], [1.0] * 4)


def part(batch, rows):
    pick = [batch.captions[n] for n in rows], [batch.crops[n] for n in rows], [batch.slots[n] for n in rows]
    return Batch(batch.latents_BCHW[rows], *pick, [batch.names[n] for n in rows], [batch.weights[n] for n in rows])


def test_a_picture_in_half_a_batch_has_the_loss_it_has_in_the_whole(family, batch):
    """Noise, timestep and text depend on the slot: two accumulated batches are one, and so are two processes."""
    step = Step(family, Objective(family.schedule), FrozenText(family, cached=True, megabytes=64), seed=1)
    batch = replace(batch, captions=["a cat", "a dog, red", "", "a hat"])
    whole = step.losses(batch, 5)
    halves = torch.cat([step.losses(part(batch, [0, 3]), 5), step.losses(part(batch, [1, 2]), 5)])
    assert torch.allclose(halves, whole[[0, 3, 1, 2]], rtol=1e-4)
    assert not torch.allclose(whole, step.losses(batch, 6), rtol=1e-2)


def test_cached_text_equals_live_text_also_beside_a_longer_prompt(family, batch):
    frozen, now = FrozenText(family, cached=True, megabytes=64)(batch.captions), live(family, batch.captions)
    assert frozen.context_BTC.shape == now.context_BTC.shape and now.context_BTC.shape[1] > 77
    assert torch.allclose(frozen.context_BTC, now.context_BTC, atol=1e-5)
    assert torch.allclose(frozen.pooled_BC, now.pooled_BC, atol=1e-5)


def test_everything_a_step_needs_is_brought_to_the_models_device(batch):
    """The meta device refuses a tensor of another one, as a GPU does, and needs none."""
    family = tiny_family()
    family.to("meta")
    masked = replace(batch, masks_B1HW=torch.ones(4, 1, 8, 8))
    step = Step(family, Objective(family.schedule, loss=LossOptions(kind="huber")), partial(live, family), seed=1)
    assert step.losses(masked, 5).device.type == "meta"


def test_captions_encoded_together_have_the_states_of_each_alone(family, batch, monkeypatch):
    captions, alone = batch.captions, FrozenText(family, cached=True, megabytes=64)
    together = FrozenText(family, cached=True, megabytes=64)
    together.cache.batch = 4
    calls = []
    real = type(family).encode_text
    monkeypatch.setattr(type(family), "encode_text", lambda self, ids: calls.append(len(ids)) or real(self, ids))
    together.fill(captions)
    assert calls == [4, 4], "each length in a batch of one size"
    for caption in captions:
        one, other = alone.cache.read(caption), together.cache.read(caption)
        assert one["context"].shape == other["context"].shape
        assert torch.allclose(one["context"], other["context"], atol=1e-5)
        assert torch.allclose(one["pooled"], other["pooled"], atol=1e-5)


def test_the_loss_is_zero_for_a_model_that_knows_the_noise(family, batch, monkeypatch):
    objective = Objective(family.schedule)
    noise = objective.sample_noise((4, 8, 8), 1, 5, batch.slots).target_BCHW
    monkeypatch.setattr(type(family), "predict", lambda *_: noise)
    loss = Step(family, objective, partial(live, family), seed=1).losses(batch, 5)
    assert torch.equal(loss, torch.zeros(4))


def test_a_pictures_weight_multiplies_its_loss(family, batch):
    step = Step(family, Objective(family.schedule), partial(live, family), seed=1)
    weighed = step.losses(replace(batch, weights=[1.0, 0.5, 0.0, 2.0]), 5)
    assert torch.allclose(weighed, step.losses(batch, 5) * torch.tensor([1.0, 0.5, 0.0, 2.0]))
