"""SDXL as the rest of Kiln sees it: frozen modules, and the way from pixels and prompts to a prediction.

Shapes: B batch, T tokens, C channels, H and W height and width of pixels or of latents.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lorakiln.base.records import Crop
from lorakiln.diffusion.schedule import Schedule
from lorakiln.families.family import Posterior, TextStates, TokenIds
from lorakiln.families.sdxl import conditioning, keys, text, vae
from lorakiln.families.sdxl.keys import PARTS, Part
from lorakiln.families.sdxl.source import Checkpoint


class SDXL:
    """A `Family`: SDXL 1.0 and the models made from it (Pony V6, Illustrious, NoobAI, Animagine)."""

    name = "sdxl"

    def __init__(self, checkpoint: Checkpoint, modules: dict[Part, nn.Module], schedule: Schedule):
        self.modules: dict[str, Any] = dict(modules)
        self.schedule = schedule
        self.resolution = checkpoint.resolution
        self.notes = list(checkpoint.notes)
        config = checkpoint.sources["vae"].config
        self.latent_channels: int = config["latent_channels"]
        self.latent_factor: int = 2 ** (len(config["block_out_channels"]) - 1)
        self._sources = checkpoint.sources
        self._digest = cache(lambda part: self._sources[part].digest())

    @property
    def unet(self) -> nn.Module:
        return self.modules["unet"]

    @property
    def vae(self) -> nn.Module:
        return self.modules["vae"]

    @property
    def text_encoders(self) -> tuple[nn.Module, nn.Module]:
        return self.modules["te1"], self.modules["te2"]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that adapters may go into."""
        return {part: self.modules[part] for part in ("unet", "te1", "te2")}

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return self._time_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The UNet's type."""
        return self._time_weight.dtype

    @property
    def _time_weight(self) -> Tensor:
        # no adapter goes here and nothing quantizes it
        return self.modules["unet"].time_embedding.linear_1.weight

    def module_names(self, part: str, *, conv: bool = False) -> dict[str, str]:
        """Module path -> kohya's LoRA name for the default targets of "unet", "te1" or "te2" (`keys.kohya_names`).

        Ask before adapters are put in: the paths are those of the frozen modules.
        """
        assert part in PARTS, part
        return keys.kohya_names(part, self.modules[part], self._sources[part].config, conv=conv)

    def digest(self, part: str = "") -> str:
        """SHA-256 of the weights of "unet", "te1", "te2" or "vae" as on disk (7 GB take seconds), or of all four."""
        if part:
            return self._digest(part)
        return hashlib.sha256("".join(self._digest(each) for each in PARTS).encode()).hexdigest()

    def encode_pixels(self, pixels_BCHW: Tensor, names: Sequence[str] | None = None) -> Posterior:
        """Pixels in -1..1 to the unscaled posterior (`vae.encode`); UserError for NaN, with the picture's name."""
        return vae.encode(self.modules["vae"], pixels_BCHW, names)

    def decode(self, latent_BCHW: Tensor, *, scaled: bool = True) -> Tensor:
        """Latents to pixels in -1..1, fp32; `scaled` ones are as the UNet sees them."""
        module = self.modules["vae"]
        return vae.decode(module, vae.unscale(module.config, latent_BCHW) if scaled else latent_BCHW)

    def scale(self, latent_BCHW: Tensor) -> Tensor:
        """A sample of the posterior to what the UNet sees."""
        return vae.scale(self.modules["vae"].config, latent_BCHW)

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Ids for both encoders in chunks of 77 (`text.tokenize`)."""
        return text.tokenize(prompts)

    def encode_text(self, tokens: TokenIds) -> TextStates:
        """Penultimate states of both encoders and the pooled projection of the second (`text.encode`)."""
        return text.encode(*self.text_encoders, tokens)

    def conditioning(self, crops: Sequence[Crop]) -> Tensor:
        """SDXL's six numbers for each picture (`conditioning.time_ids`)."""
        return conditioning.time_ids(crops)

    def predict(self, noised_BCHW: Tensor, timestep_B: Tensor, text: TextStates, time_ids_B6: Tensor) -> Tensor:
        """The UNet's output, fp32 (epsilon or v: `schedule.prediction`), for noised latents as `scale` leaves them.

        Inputs may be of any type and device; they are brought to the UNet's. Timesteps are whole numbers, 0 to 999.
        """
        device, dtype = self.device, self.dtype
        out = self.modules["unet"](
            noised_BCHW.to(device, dtype),
            timestep_B.to(device),
            encoder_hidden_states=text.context_BTC.to(device, dtype),
            added_cond_kwargs={
                "text_embeds": text.pooled_BC.to(device, dtype),
                "time_ids": time_ids_B6.to(device),  # fp32: 1030 pixels are no bf16 number
            },
            return_dict=False,
        )
        return out[0].float()

    def enable_checkpointing(self) -> None:
        """Recompute the UNet's activations in backward: less memory, about 1.4 times the arithmetic."""
        self.modules["unet"].enable_gradient_checkpointing()

    def channels_last(self) -> None:
        """Lay the UNet's convolutions out as GPUs with tensor cores read them; the results stay the same."""
        self.modules["unet"].to(memory_format=torch.channels_last)

    def to(self, device: torch.device | str, *parts: str) -> None:
        """Move "unet", "te1", "te2", "vae"; all of them when none is named."""
        for part in parts or PARTS:
            self.modules[part].to(device)
