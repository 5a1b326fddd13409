"""Base models: loading one, whatever its layout, into modules and functions that every kind of base shares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lorakiln.families.family import Family


def load(
    path: str | Path,
    *,
    vae: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    prediction: str = "auto",
    ztsnr: str | bool = "auto",
) -> Family:
    """The base model at `path`, frozen, in eval mode, ready to train an adapter on. Works offline, downloads nothing.

    `path`: "starter" or "starter-v" (shipped), an SDXL .safetensors file, a diffusers folder, or a hub id that is in
    the local Hugging Face cache. `vae`: a VAE file or folder to use instead of the base's own ("" or None: its own).
    `dtype` is that of UNet and text encoders (None: fp32 on a CPU, bf16 or else fp16 on a GPU); the VAE is fp32.
    `prediction` is "auto", "epsilon" or "v", `ztsnr` "auto", "on" or "off"; both are read from the file and the first
    is checked with one forward. What had to be assumed is in the family's `notes`.

    Raises UserError for a path that is not there, a pickle, a truncated file, a model that is not SDXL, missing
    weights, and a prediction that the weights contradict.
    """
    # diffusers takes seconds to import
    from lorakiln.families.places import find
    from lorakiln.families.sdxl import load as sdxl

    vae_place = find(vae) if vae else None
    return sdxl.load(find(path), vae=vae_place, dtype=dtype, device=device, predicts=prediction, ztsnr=ztsnr)


def layer_names(base: str | Path = "") -> dict[str, dict[str, str]]:
    """Part -> module path -> kohya's name of every layer that an adapter may sit on, convolutions included.

    Reads headers only. Without a `base` the names are those of true SDXL. Raises UserError as `load` does.
    """
    from lorakiln.families.places import find
    from lorakiln.families.sdxl import keys, source
    from lorakiln.families.sdxl.load import build

    sources = source.open_checkpoint(find(base)).sources if base else {}
    names = {}
    for part in ("unet", "te1", "te2"):
        config = sources[part].config if base else source.shipped(source.CONFIG_NAME[part])
        names[part] = keys.kohya_names(part, build(part, config), config, conv=True)
    return names
