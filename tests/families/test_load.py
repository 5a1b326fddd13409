"""Loading a base: every layout gives the same modules as diffusers' own loader."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel

from lorakiln import families
from lorakiln.base.errors import UserError
from lorakiln.families import places
from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.load import default_dtype
from lorakiln.families.sdxl.source import SHARES
from tests.tiny import tiny_config, tiny_metadata, tiny_sdxl_file, tiny_tensors, write_safetensors

quiet = pytest.mark.filterwarnings("ignore")  # of diffusers' loader about itself


def assert_same(ours, theirs) -> None:
    a, b = ours.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys()
    wrong = [name for name in a if not torch.equal(a[name].float(), b[name].float())]
    assert not wrong


@quiet
def test_unet_and_vae_equal_from_single_file_tensor_by_tensor(tiny_file, family, config_folder):
    unet = UNet2DConditionModel.from_single_file(tiny_file, config=str(config_folder), subfolder="unet")
    assert_same(family.unet, unet)
    vae = AutoencoderKL.from_single_file(tiny_file, config=str(config_folder), subfolder="vae")
    assert_same(family.vae, vae)


@quiet
def test_text_encoders_equal_the_whole_pipeline_from_single_file(tiny_file, family, config_folder):
    pipe = StableDiffusionXLPipeline.from_single_file(
        tiny_file, config=str(config_folder), tokenizer=None, tokenizer_2=None, local_files_only=True
    )
    for ours, theirs in zip(family.text_encoders, (pipe.text_encoder, pipe.text_encoder_2), strict=True):
        assert_same(ours, theirs)
        ids = torch.tensor([[49406, 320, 2368, 49407] + [49407] * 73])
        a, b = ours(ids, output_hidden_states=True), theirs(ids, output_hidden_states=True)
        assert torch.equal(a.hidden_states[-2], b.hidden_states[-2])


def test_a_diffusers_folder_gives_the_same_model(diffusers_folder, family):
    other = families.load(diffusers_folder)
    for part, module in family.parts.items():
        assert_same(module, other.parts[part])
    assert_same(family.vae, other.vae)
    assert other.resolution == family.resolution
    assert other.module_names("unet") == family.module_names("unet")


def test_a_folder_saved_by_an_older_transformers_or_diffusers_loads_too(diffusers_folder, family, tmp_path):
    folder = copy_folder(diffusers_folder, tmp_path / "old")
    state = {f"text_model.{name}": tensor for name, tensor in family.text_encoders[0].state_dict().items()}
    write_safetensors(folder / "text_encoder" / "model.safetensors", state)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in family.vae.state_dict().items():
        for new, was in old.items():
            name = name.replace(f".{new}.", f".{was}.")
        state[name] = tensor
    write_safetensors(folder / "vae" / "diffusion_pytorch_model.safetensors", state)
    other = families.load(folder)
    assert_same(family.text_encoders[0], other.text_encoders[0])
    assert_same(family.vae, other.vae)


def test_sharded_weights_and_fp16_variants_are_found(diffusers_folder, family, tmp_path):
    folder = copy_folder(diffusers_folder, tmp_path / "shards")
    state = family.unet.state_dict()
    names = sorted(state)
    halves = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    for file, chosen in halves.items():
        write_safetensors(folder / "unet" / file, {name: state[name] for name in chosen})
    index = {"weight_map": {name: file for file, chosen in halves.items() for name in chosen}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    other = families.load(folder)
    assert_same(family.unet, other.unet)
    assert_same(family.vae, other.vae)


def test_everything_is_frozen_in_eval_mode_and_of_the_type_asked_for(tiny_file):
    family = families.load(tiny_file, dtype=torch.bfloat16)
    for part, module in {**family.parts, "vae": family.vae}.items():
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert {p.dtype for p in module.parameters()} == {torch.float32 if part == "vae" else torch.bfloat16}
        assert not any(t.is_meta for t in [*module.parameters(), *module.buffers()])
    assert family.dtype == torch.bfloat16
    assert family.device == torch.device("cpu")
    assert default_dtype(torch.device("cpu")) == torch.float32


def test_weights_in_the_files_own_type_stay_on_disk(tmp_path):
    path = tiny_sdxl_file(tmp_path / "bf16.safetensors", dtype=torch.bfloat16)
    family = families.load(path, dtype=torch.bfloat16)
    mapped = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    ranges = [[int(end, 16) for end in span.split("-")] for span in mapped]
    weights = [*family.unet.parameters(), *family.text_encoders[0].parameters()]
    inside = [any(low <= weight.data_ptr() < high for low, high in ranges) for weight in weights]
    assert all(inside)


def test_a_model_that_shares_its_siblings_weights(tmp_path, family):
    tiny_sdxl_file(tmp_path / "whole.safetensors")
    changed = {k: v for k, v in tiny_tensors(seed=1).items() if k.startswith("model.")}
    twin = write_safetensors(tmp_path / "twin.safetensors", changed, tiny_metadata() | {SHARES: "whole.safetensors"})
    other = families.load(twin)
    assert_same(other.vae, family.vae)
    assert_same(other.text_encoders[1], family.text_encoders[1])
    assert other.digest("te2") == family.digest("te2")
    assert other.digest("unet") != family.digest("unet")
    (tmp_path / "whole.safetensors").unlink()
    with pytest.raises(UserError, match=r"needs whole\.safetensors beside it"):
        families.load(twin)


@pytest.mark.parametrize("naming", ["prefixed", "bare", "diffusers", "folder", "whole model"])
def test_another_vae_in_any_layout_replaces_the_files_own(naming, tiny_file, diffusers_folder, tmp_path, family):
    ldm = {k: v for k, v in tiny_tensors(seed=5).items() if k.startswith("first_stage_model.")}
    names = list(family.vae.state_dict())
    ours = dict(keys.to_diffusers("vae", ldm, names, tiny_config("vae")))
    path = tmp_path / "vae.safetensors"
    match naming:
        case "prefixed":
            write_safetensors(path, ldm)
        case "bare":
            write_safetensors(path, {k.removeprefix("first_stage_model."): v for k, v in ldm.items()})
        case "diffusers":
            write_safetensors(path, ours)
        case "folder":
            path = copy_folder(diffusers_folder / "vae", tmp_path / "vae")
            write_safetensors(path / "diffusion_pytorch_model.safetensors", ours)
        case "whole model":
            tiny_sdxl_file(path, seed=5)
    loaded = families.load(tiny_file, vae=path)
    state = loaded.vae.state_dict()
    assert all(torch.equal(state[name], ours[name].float()) for name in names)
    assert loaded.digest("vae") != family.digest("vae")
    assert_same(loaded.unet, family.unet)


def test_a_base_without_vae_takes_one_by_name(tmp_path, tiny_file, family):
    rest = {k: v for k, v in tiny_tensors().items() if not k.startswith("first_stage_model.")}
    bare = write_safetensors(tmp_path / "no-vae.safetensors", rest, tiny_metadata())
    with pytest.raises(UserError, match=r"has no weights of the VAE; name one with vae = "):
        families.load(bare)
    assert_same(families.load(bare, vae=tiny_file).vae, family.vae)


def test_keys_that_every_file_carries_are_no_news_and_strange_ones_are(tmp_path):
    tensors = tiny_tensors()
    tensors["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.zeros(1, 77)
    tensors["conditioner.embedders.1.model.logit_scale"] = torch.zeros(1)
    tensors["model_ema.decay"] = torch.zeros(1)
    usual = write_safetensors(tmp_path / "usual.safetensors", tensors, tiny_metadata())
    assert not any("unknown tensors" in note for note in families.load(usual).notes)
    tensors["model.diffusion_model.control.weight"] = torch.zeros(1)
    strange = write_safetensors(tmp_path / "strange.safetensors", tensors, tiny_metadata())
    assert any("1 unknown tensors of the UNet left out" in note for note in families.load(strange).notes)


def test_a_hub_id_is_found_in_the_local_cache_only(diffusers_folder, tmp_path, monkeypatch, family):
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--someone--tiny-xl-1.0"
    copy_folder(diffusers_folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert places.find("someone/tiny-xl-1.0") == home / "snapshots" / commit
    with pytest.raises(UserError, match="Kiln downloads nothing by itself"):
        places.find("someone/absent")


def test_digests_tell_weights_apart_and_not_types(tiny_file, tmp_path):
    half, full = families.load(tiny_file, dtype=torch.bfloat16), families.load(tiny_file)
    assert half.digest() == full.digest()
    assert len({full.digest(part) for part in keys.PARTS} | {full.digest()}) == 5
    other = families.load(tiny_sdxl_file(tmp_path / "other.safetensors", seed=1))
    assert other.digest("vae") != full.digest("vae")


def test_diffusers_divisions_by_one_are_left_out_without_changing_the_answer(family):
    plain = UNet2DConditionModel.from_config(tiny_config("unet"))
    plain.load_state_dict(family.unet.state_dict())
    inputs = {
        "sample": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        "timestep": torch.tensor([1, 700]),
        "encoder_hidden_states": torch.randn(2, 77, 64, generator=torch.Generator().manual_seed(1)),
        "added_cond_kwargs": {"text_embeds": torch.ones(2, 40), "time_ids": torch.full((2, 6), 64.0)},
    }
    with torch.no_grad():
        ours, theirs = family.unet(**inputs).sample, plain(**inputs).sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)  # the last bits are the processor's
    assert divisions(family.unet, inputs) < 5 < divisions(plain, inputs)


def divisions(unet, inputs) -> int:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.found += func.overloadpacket is torch.ops.aten.div
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Count() as count:
        unet(**inputs)
    return count.found


def copy_folder(source, target):
    import shutil

    shutil.copytree(source, target)
    return target
