"""Names of weights: our map against diffusers' own converters, and literal names from published files."""

import re
from collections import Counter

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs

from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.load import build
from lorakiln.families.sdxl.source import CONFIG_NAME, shipped
from tests.tiny import tiny_config, tiny_tensors

# one of every kind of tensor in sd_xl_base_1.0.safetensors
PUBLISHED = {
    "model.diffusion_model.time_embed.0.weight": [1280, 320],
    "model.diffusion_model.label_emb.0.0.weight": [1280, 2816],
    "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight": [320, 320, 3, 3],
    "model.diffusion_model.input_blocks.3.0.op.weight": [320, 320, 3, 3],
    "model.diffusion_model.input_blocks.4.0.skip_connection.weight": [640, 320, 1, 1],
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight": [640, 2048],
    "model.diffusion_model.input_blocks.7.0.emb_layers.1.weight": [1280, 1280],
    "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight": [10240, 1280],
    "model.diffusion_model.middle_block.1.proj_in.weight": [1280, 1280],
    "model.diffusion_model.middle_block.2.out_layers.3.weight": [1280, 1280, 3, 3],
    "model.diffusion_model.output_blocks.0.0.in_layers.0.weight": [2560],
    "model.diffusion_model.output_blocks.2.2.conv.weight": [1280, 1280, 3, 3],
    "model.diffusion_model.output_blocks.5.2.conv.weight": [640, 640, 3, 3],
    "model.diffusion_model.output_blocks.8.0.skip_connection.weight": [320, 640, 1, 1],
    "model.diffusion_model.out.2.weight": [4, 320, 3, 3],
    "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": [256, 128, 1, 1],
    "first_stage_model.encoder.down.2.downsample.conv.weight": [512, 512, 3, 3],
    "first_stage_model.encoder.mid.attn_1.q.weight": [512, 512, 1, 1],
    "first_stage_model.encoder.norm_out.weight": [512],
    "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": [128, 256, 1, 1],
    "first_stage_model.decoder.up.3.upsample.conv.weight": [512, 512, 3, 3],
    "first_stage_model.quant_conv.weight": [8, 8, 1, 1],
    "conditioner.embedders.0.transformer.text_model.encoder.layers.11.self_attn.q_proj.weight": [768, 768],
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": [768],
    "conditioner.embedders.1.model.positional_embedding": [77, 1280],
    "conditioner.embedders.1.model.token_embedding.weight": [49408, 1280],
    "conditioner.embedders.1.model.text_projection": [1280, 1280],
    "conditioner.embedders.1.model.ln_final.weight": [1280],
    "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": [3840, 1280],
    "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias": [3840],
    "conditioner.embedders.1.model.transformer.resblocks.0.attn.out_proj.weight": [1280, 1280],
    "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight": [5120, 1280],
    "conditioner.embedders.1.model.transformer.resblocks.0.ln_2.bias": [1280],
}


@pytest.fixture(scope="module")
def true_modules():
    """True SDXL without its weights."""
    return {part: build(part, shipped(CONFIG_NAME[part])) for part in keys.PARTS}


@pytest.fixture(scope="module")
def true_ldm(true_modules):
    """Every key of a true single file with its shape, by our map."""
    named = {}
    for part, module in true_modules.items():
        named |= keys.to_ldm(part, module.state_dict(), shipped(CONFIG_NAME[part]))
    return named


def shapes(state) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_true_sdxl_has_the_published_size(true_modules, true_ldm):
    assert sum(p.numel() for p in true_modules["unet"].parameters()) == 2_567_463_684
    # what the header of sd_xl_base_1.0.safetensors counts, less position_ids (1, 77) and logit_scale ()
    assert len(true_ldm) == 2_515 - 2
    assert 2 * sum(tensor.numel() for tensor in true_ldm.values()) == 6_937_675_890 - 2 * (77 + 1)
    assert Counter(key.split(".")[0] for key in true_ldm) == {
        "conditioner": 587 - 2,
        "first_stage_model": 248,
        "model": 1_680,
    }
    assert Counter(tensor.ndim for tensor in true_ldm.values()) == {1: 1_442, 2: 949 - 1, 4: 123}


def test_names_and_shapes_are_those_of_the_published_file(true_ldm):
    found = {key: list(true_ldm[key].shape) for key in PUBLISHED}
    assert found == PUBLISHED


def test_diffusers_converters_read_every_name_at_true_size(true_modules, true_ldm):
    unet = theirs.convert_ldm_unet_checkpoint(dict(true_ldm), shipped("unet"))
    assert shapes(unet) == shapes(true_modules["unet"].state_dict())
    vae = theirs.convert_ldm_vae_checkpoint(dict(true_ldm), shipped("vae"))
    assert shapes(vae) == shapes(true_modules["vae"].state_dict())
    first = theirs.convert_ldm_clip_checkpoint(dict(true_ldm))
    first = {name.removeprefix("text_model."): tensor for name, tensor in first.items()}
    assert shapes(first) == shapes(true_modules["te1"].state_dict())
    second = theirs.convert_open_clip_checkpoint(true_modules["te2"], dict(true_ldm), "conditioner.embedders.1.model.")
    assert shapes(second) == shapes(true_modules["te2"].state_dict())


@pytest.mark.parametrize("part", keys.PARTS)
def test_there_and_back_changes_no_tensor(part):
    ldm, config = tiny_tensors(), tiny_config(part)
    names = list(build(part, config).state_dict())
    ours = dict(keys.to_diffusers(part, ldm, names, config))
    again = keys.to_ldm(part, ours, config)
    assert sorted(ours) == sorted(names)
    assert again.keys() == {key for key in ldm if key.startswith(keys.LDM_PREFIX[part])}
    assert all(torch.equal(again[key], ldm[key]) for key in again)


def test_kohya_trains_722_and_788_of_the_unet_and_72_and_192_of_the_encoders(true_modules):
    def count(part, **options):
        names = keys.kohya_names(part, true_modules[part], shipped(CONFIG_NAME[part]), **options)
        assert len(set(names.values())) == len(names)
        return len(names)

    assert count("unet") == 722
    assert count("unet", conv=True) == 788
    assert count("te1") == count("te1", conv=True) == 72
    assert count("te2") == 192
    assert count("vae") == 0


def test_kohya_names_are_the_published_ones(true_modules):
    unet = keys.kohya_names("unet", true_modules["unet"], shipped("unet"), conv=True)
    assert (
        unet["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"]
        == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    )
    assert (
        unet["mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0"]
        == "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_out_0"
    )
    assert (
        unet["up_blocks.0.attentions.2.transformer_blocks.3.ff.net.0.proj"]
        == "lora_unet_output_blocks_2_1_transformer_blocks_3_ff_net_0_proj"
    )
    assert unet["up_blocks.1.resnets.0.conv_shortcut"] == "lora_unet_output_blocks_3_0_skip_connection"
    assert unet["down_blocks.0.downsamplers.0.conv"] == "lora_unet_input_blocks_3_0_op"
    assert unet["up_blocks.1.upsamplers.0.conv"] == "lora_unet_output_blocks_5_2_conv"
    assert unet["mid_block.resnets.1.time_emb_proj"] == "lora_unet_middle_block_2_emb_layers_1"
    first = keys.kohya_names("te1", true_modules["te1"], shipped("text_encoder"))
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj" in first.values()
    second = keys.kohya_names("te2", true_modules["te2"], shipped("text_encoder_2"))
    assert second["text_model.encoder.layers.31.mlp.fc2"] == "lora_te2_text_model_encoder_layers_31_mlp_fc2"


def test_conv_adds_what_kohyas_conv_dim_covers_and_nothing_else(true_modules):
    plain = set(keys.kohya_names("unet", true_modules["unet"], shipped("unet")).values())
    extra = set(keys.kohya_names("unet", true_modules["unet"], shipped("unet"), conv=True).values()) - plain
    kinds = {re.sub(r"lora_unet_(input_blocks|output_blocks|middle_block)_(\d+_)*", "", name) for name in extra}
    assert kinds == {"in_layers_2", "emb_layers_1", "out_layers_3", "skip_connection", "op", "conv"}
    assert sum(name.endswith("emb_layers_1") for name in extra) == 17
    assert sum(name.endswith("skip_connection") for name in extra) == 11


def test_rename_replaces_the_longest_prefix_at_a_dot():
    table = {"a": "x", "a.b": "y"}
    assert keys.rename("a.b.weight", table) == "y.weight"
    assert keys.rename("a.c", table) == "x.c"
    assert keys.rename("ab.c", table) == "ab.c"
