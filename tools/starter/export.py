"""Writes the starter and its v-prediction twin as SDXL single files, and reads them back to check."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lorakiln.families.sdxl import keys

from . import latents, train_unet, train_v, train_vae
from .model import SCHEDULER, UNET, Drawer, text_config
from .places import ASSETS, RESOLUTION

BASE, TWIN = "starter.safetensors", "starter-v.safetensors"
LIMITS = {BASE: 36e6, TWIN: 20e6}  # bytes
DTYPES = {torch.float16: "F16", torch.float32: "F32"}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file with sorted keys, so that equal weights make an equal file."""
    header: dict = {"__metadata__": dict(sorted(metadata.items()))}
    blobs, at = [], 0
    for name in sorted(tensors):
        blob = tensors[name].contiguous().numpy().tobytes()
        header[name] = {
            "dtype": DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [at, at + len(blob)],
        }
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for piece in (len(text).to_bytes(8, "little"), text, *blobs):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    assert partial.stat().st_size <= LIMITS[path.name], partial.stat().st_size
    partial.replace(path)


def model_config(scaling: float, scheduler: Mapping) -> dict:
    """What a loader must know beyond SDXL's own configuration."""
    return {
        "unet": UNET,
        "vae": {**train_vae.CONFIG, "scaling_factor": scaling},
        "text_encoder": text_config(1),
        "text_encoder_2": text_config(2),
        "scheduler": dict(scheduler),
        "resolution": RESOLUTION,
        "empty_prompt": "encoded",  # trained on the empty caption's own states, not on zeros
    }


def metadata(title: str, prediction: str, config: Mapping) -> dict[str, str]:
    """The header: modelspec's words, and the architecture."""
    return {
        "lorakiln.model_config": json.dumps(config, sort_keys=True),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.author": "the Kiln authors; trained on OpenMoji",
        "modelspec.license": "CC BY-SA 4.0",
        "modelspec.resolution": f"{RESOLUTION}x{RESOLUTION}",
        "modelspec.prediction_type": prediction,
    }


def unet_tensors(drawer: Drawer) -> dict[str, Tensor]:
    """The UNet under its single-file names, fp16."""
    named = keys.to_ldm("unet", drawer.unet.state_dict(), UNET)
    return {name: tensor.half() for name, tensor in named.items()}


def base_tensors(drawer: Drawer) -> dict[str, Tensor]:
    """UNet, VAE and both text encoders under their single-file names, fp16."""
    named = unet_tensors(drawer)
    vae = keys.to_ldm("vae", train_vae.trained().state_dict(), train_vae.CONFIG)
    first = keys.to_ldm("te1", drawer.text_1.state_dict(), text_config(1))
    second = keys.to_ldm("te2", drawer.text_2.state_dict(), text_config(2))
    for part in (vae, first, second):
        named |= {name: tensor.half() for name, tensor in part.items()}
    return named


def export_base() -> None:
    """Write lorakiln/assets/starter.safetensors."""
    config = model_config(latents.load()["scaling"], SCHEDULER)
    header = metadata("Kiln starter", "epsilon", config)
    write(ASSETS / BASE, base_tensors(train_unet.trained()), header)


def export_twin() -> None:
    """Write lorakiln/assets/starter-v.safetensors: the UNet only, with NoobAI's two marker keys."""
    config = model_config(latents.load()["scaling"], train_v.SCHEDULER_V)
    header = metadata("Kiln starter, v-prediction", "v", config) | {"lorakiln.shares": BASE}
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    write(ASSETS / TWIN, unet_tensors(train_v.trained()) | marks, header)


def check(path: Path) -> None:
    """Compare our names with what diffusers' own converters make of them."""
    from diffusers.loaders import single_file_utils as theirs
    from safetensors.torch import load_file

    stored, drawer = load_file(path), Drawer()
    unet = theirs.convert_ldm_unet_checkpoint(dict(stored), UNET)
    assert unet.keys() == drawer.unet.state_dict().keys()
    vae = theirs.convert_ldm_vae_checkpoint(dict(stored), train_vae.CONFIG)
    assert vae.keys() == train_vae.trained().state_dict().keys()
    prefix = keys.LDM_PREFIX["te2"]
    second = theirs.convert_open_clip_checkpoint(drawer.text_2, dict(stored), prefix=prefix)
    expected = {name.removeprefix("text_model.") for name in drawer.text_2.state_dict()}
    assert expected <= {name.removeprefix("text_model.") for name in second}
    trained = train_unet.trained()
    worst = max((unet[name].float() - tensor).abs().max().item() for name, tensor in trained.unet.state_dict().items())
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, UNet within {worst:.1e} of the trained")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--twin", action="store_true")
    if parser.parse_args().twin:
        export_twin()
    else:
        export_base()
        check(ASSETS / BASE)
