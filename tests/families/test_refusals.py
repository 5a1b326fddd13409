"""Files that cannot be a base: each gets one line that names the file, what it is, and what is allowed."""

import json
import pickle

import pytest
import torch

from lorakiln import families
from lorakiln.base.errors import UserError
from lorakiln.families.sdxl.source import MODEL_CONFIG
from tests.families.conftest import write_configs
from tests.tiny import TINY, tiny_metadata, tiny_tensors, write_safetensors

ONE = torch.zeros(1)
UNET = "model.diffusion_model."
# what is in the file -> what its refusal says
STRANGERS = {
    "a LoRA": {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": ONE},
    "LoRA ": {"lora_unet_input_blocks_4_1_proj_in.hada_w1_a": ONE},
    "an SD 1.5 model": {f"{UNET}input_blocks.0.0.weight": ONE, "cond_stage_model.transformer.text_model.a": ONE},
    "an SD 2 model": {f"{UNET}input_blocks.0.0.weight": ONE, "cond_stage_model.model.ln_final.weight": ONE},
    "an SDXL refiner": {f"{UNET}input_blocks.0.0.weight": ONE, "conditioner.embedders.0.model.ln_final.weight": ONE},
    "an SDXL UNet without": {f"{UNET}input_blocks.0.0.weight": ONE, f"{UNET}label_emb.0.0.weight": ONE},
    "a Flux model": {f"{UNET}double_blocks.0.img_mod.lin.weight": ONE, f"{UNET}single_blocks.0.linear1.weight": ONE},
    "an SD3 model": {f"{UNET}joint_blocks.0.x_block.attn.proj.weight": ONE},
    "a bare VAE": {"first_stage_model.encoder.conv_in.weight": ONE, "first_stage_model.decoder.up.0.block": ONE,
                   "first_stage_model.quant_conv.weight": ONE},
    "bare VAE": {"encoder.down.0.block.0.conv1.weight": ONE, "decoder.up.0.block.0.conv1.weight": ONE},
    "a diffusers UNet": {"down_blocks.0.resnets.0.conv1.weight": ONE, "time_embedding.linear_1.weight": ONE},
    "a ControlNet": {"control_model.input_blocks.0.0.weight": ONE},
    "a text encoder": {"text_model.encoder.layers.0.mlp.fc1.weight": ONE},
    "a textual inversion": {"clip_g": ONE, "clip_l": ONE},
    "an EDM model": {"edm_mean": ONE},
    "a scaled fp8 copy": {f"{UNET}input_blocks.0.0.weight": ONE, "scaled_fp8": ONE},
    "an empty file": {},
    "something unknown (its first tensor: 'what')": {"what": ONE},
}  # fmt: skip


def refusal(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        families.load(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("words", STRANGERS)
def test_other_kinds_of_file_are_refused_by_what_they_are(words, tmp_path):
    line = refusal(write_safetensors(tmp_path / "other.safetensors", STRANGERS[words]))
    assert "other.safetensors: not an SDXL model; it looks like" in line
    assert words in line


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps({}))
    line = refusal(path)
    assert f"model{suffix}: only .safetensors is read" in line
    assert "convert" in line


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK\x03\x04 zip of a torch file"])
def test_a_pickle_under_another_name_is_never_opened(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "a pickle in spite of its name" in refusal(path)


@pytest.mark.parametrize("kept", [0, 7, 4000, 500_000, -1])
def test_a_truncated_file_is_refused(kept, tiny_file, tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(tiny_file.read_bytes()[:kept])
    line = refusal(path)
    assert "short.safetensors: " in line
    assert ("truncated" in line) if kept not in (0, 7) else ("not a .safetensors file" in line)


NO_HEADER = [b"hello, this is a text file", b"\x10" + bytes(7) + b"no json at all !", b"\x02" + bytes(7) + b"[]"]


@pytest.mark.parametrize("content", NO_HEADER)
def test_a_file_that_is_no_safetensors_is_refused(content, tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    assert "odd.safetensors: not a .safetensors file" in refusal(path)


def test_a_missing_tensor_is_named(tmp_path):
    tensors = tiny_tensors()
    del tensors[f"{UNET}middle_block.1.proj_in.weight"]
    line = refusal(write_safetensors(tmp_path / "gap.safetensors", tensors, tiny_metadata()))
    assert "1 of " in line
    assert f"tensors of the UNet are missing (first: {UNET}middle_block.1.proj_in.weight)" in line


def test_a_wrong_shape_is_named_with_the_right_one(tmp_path):
    tensors = tiny_tensors() | {f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}  # an inpainting model's
    line = refusal(write_safetensors(tmp_path / "inpaint.safetensors", tensors, tiny_metadata()))
    assert f"'{UNET}input_blocks.0.0.weight' of the UNet has shape [32, 9, 3, 3], not SDXL's [32, 4, 3, 3]" in line


def test_a_small_model_without_its_configuration_is_not_taken_for_true_sdxl(tmp_path):
    line = refusal(write_safetensors(tmp_path / "plain.safetensors", tiny_tensors()))
    assert "plain.safetensors" in line
    assert "of the UNet" in line


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object, not list"),
        ('{"unett": {}}', "unknown 'unett'"),
        (json.dumps(TINY | {"unet": {"norm_num_groups": "x"}}), "makes no SDXL model"),
        (json.dumps(TINY | {"empty_prompt": "zeros"}), "empty_prompt = 'zeros': only 'encoded' is known"),
        (json.dumps(TINY | {"scheduler": {"prediction_type": "sample"}}), "predicts 'sample'"),
        (json.dumps(TINY | {"scheduler": {"beta_schedule": "cosine"}}), "only scaled_linear is known"),
    ],
)
def test_a_broken_configuration_in_the_header_is_refused(value, words, tmp_path):
    assert words in refusal(write_safetensors(tmp_path / "m.safetensors", tiny_tensors(), {MODEL_CONFIG: value}))


def test_a_path_that_is_not_there_names_the_closest_file(tmp_path):
    (tmp_path / "ponyDiffusionV6XL.safetensors").touch()
    line = refusal(tmp_path / "ponyDifusionV6XL.safetensors")
    assert "no such file or folder; did you mean 'ponyDiffusionV6XL.safetensors'?" in line
    assert "no such file or folder" in refusal(tmp_path / "nowhere" / "x.safetensors")


def test_a_folder_of_something_else_is_refused(tmp_path):
    assert "not a diffusers folder (no model_index.json)" in refusal(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert "not an SDXL model; its model_index.json says FluxPipeline" in refusal(tmp_path)


def test_a_folder_of_pickles_is_refused(tmp_path):
    folder = write_configs(tmp_path / "pickled")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({}))
    line = refusal(folder)
    assert "only .safetensors is read" in line


def test_what_is_given_as_vae_must_be_one(tiny_file, tmp_path):
    path = write_safetensors(tmp_path / "lora.safetensors", STRANGERS["a LoRA"])
    assert "not a VAE; it looks like a LoRA" in refusal(tiny_file, vae=path)
    wide = write_safetensors(tmp_path / "wide.safetensors", {"decoder.conv_in.weight": ONE})
    assert "tensors of the VAE are missing" in refusal(tiny_file, vae=wide)


def test_unknown_words_for_prediction_and_ztsnr_list_the_known(tiny_file):
    assert "prediction = 'v_pred': choose from auto, epsilon, v" in refusal(tiny_file, prediction="v_pred")
    assert "ztsnr = 'yes': choose from auto, on, off" in refusal(tiny_file, ztsnr="yes")
