"""The UNet's forward as training and sampling call it, and what it is told about a picture."""

import inspect

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from lorakiln.base.records import Crop, Size
from lorakiln.families.family import Family, TextStates
from tests.tiny import tiny_config, tiny_family

CROP = Crop(original=Size(1600, 1200), resized=Size(1195, 896), left=21, top=0, target=Size(1152, 896))


@pytest.fixture(scope="module")
def inputs(family):
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        text = family.encode_text(family.tokenize(["a cat", "a dog"]))
    return torch.randn(2, 4, 8, 8, generator=rng), torch.tensor([10, 900]), text, family.conditioning([CROP, CROP])


def test_the_six_numbers_are_heights_before_widths(family):
    assert family.conditioning([CROP]).tolist() == [[1200, 1600, 0, 21, 896, 1152]]
    assert family.conditioning([]).shape == (0, 6)


def test_the_six_numbers_come_in_diffusers_order(family):
    source = inspect.getsource(StableDiffusionXLPipeline._get_add_time_ids)
    assert "list(original_size + crops_coords_top_left + target_size)" in source


def test_prediction_equals_diffusers_unet(family, inputs):
    noised, timestep, text, time_ids = inputs
    unet = UNet2DConditionModel.from_config(tiny_config("unet"))
    unet.load_state_dict(family.unet.state_dict())
    added = {"text_embeds": text.pooled_BC, "time_ids": time_ids}
    with torch.no_grad():
        ours = family.predict(*inputs)
        theirs = unet(noised, timestep, text.context_BTC, added_cond_kwargs=added).sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)  # the last bits are the processor's


@pytest.mark.parametrize("changed", range(4))
def test_every_input_matters(family, inputs, changed):
    noised, timestep, text, time_ids = inputs
    other = [noised + 0.1, timestep + 50, TextStates(text.context_BTC, text.pooled_BC + 1), time_ids + 100]
    mixed = [other[i] if i == changed else inputs[i] for i in range(4)]
    with torch.no_grad():
        assert not torch.allclose(family.predict(*inputs), family.predict(*mixed), atol=1e-5)


def test_a_bf16_base_takes_fp32_inputs_and_answers_in_fp32(inputs, family):
    half = tiny_family(dtype=torch.bfloat16)
    with torch.no_grad():
        rough, exact = half.predict(*inputs), family.predict(*inputs)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.05


def test_checkpointing_changes_memory_and_no_gradient(inputs):
    grads = []
    for checkpointing in (False, True):
        family = tiny_family()
        if checkpointing:
            family.enable_checkpointing()
        weight = family.unet.mid_block.attentions[0].proj_in.weight.requires_grad_(True)
        family.predict(*inputs).square().mean().backward()
        grads.append(weight.grad)
    assert grads[0].abs().sum() > 0
    torch.testing.assert_close(grads[0], grads[1])


def test_channels_last_changes_layout_and_hardly_a_bit(inputs, family):
    other = tiny_family()
    other.channels_last()
    with torch.no_grad():
        torch.testing.assert_close(other.predict(*inputs), family.predict(*inputs), atol=1e-5, rtol=1e-4)


def test_the_model_offers_what_a_family_must(family):
    offered = [name for name in vars(Family) if not name.startswith("_")] + list(Family.__annotations__)
    assert all(hasattr(family, name) for name in offered)
    assert (family.name, family.resolution, family.latent_channels, family.latent_factor) == ("sdxl", 64, 4, 8)


def test_parts_can_be_moved_alone(family):
    other = tiny_family()
    other.to("meta", "te1", "te2")
    assert other.text_encoders[0].device.type == "meta"
    assert other.device.type == other.vae.device.type == "cpu"
