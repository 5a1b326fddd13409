"""Turns the shipped starter back into checkpoints, so that training can go on from it without the old build folder.

The optimizers' momenta are not in the file: they start anew, behind a warm-up.
"""

import argparse

import torch
from safetensors.torch import load_file

from lorakiln.families.sdxl import keys

from . import export, train_unet, train_vae
from .model import UNET, Drawer, text_config
from .places import ASSETS
from .progress import save


def parts() -> tuple[Drawer, torch.nn.Module]:
    """The shipped UNet with its text encoders, and the VAE, in fp32."""
    drawer, vae = Drawer(), train_vae.AutoencoderKL(**train_vae.CONFIG)
    stored = load_file(ASSETS / export.BASE)
    for part, module, config in (
        ("unet", drawer.unet, UNET),
        ("te1", drawer.text_1, text_config(1)),
        ("te2", drawer.text_2, text_config(2)),
        ("vae", vae, train_vae.CONFIG),
    ):
        named = keys.to_diffusers(part, stored, module.state_dict(), config)
        module.load_state_dict({name: tensor.float() for name, tensor in named})
    return drawer, vae


def take_up(step: int) -> None:
    """Write the checkpoints; `step` is how many steps the shipped UNet has behind it."""
    assert not train_unet.CHECKPOINT.exists(), f"{train_unet.CHECKPOINT} is there already"
    drawer, vae = parts()
    save({"vae": vae.state_dict()}, train_vae.CHECKPOINT)
    weights = drawer.state_dict()
    state = {"drawer": weights, "average": weights, "optimizers": None, "step": step, "anew": step}
    save(state | {"seconds": 0.0}, train_unet.CHECKPOINT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, required=True)
    take_up(parser.parse_args().step)
