"""What every kind of base model offers to the rest of Kiln, and the small values that pass between.

Shapes: B batch, N chunks of a prompt, T tokens, C channels, H and W height and width (of pixels or of latents).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lorakiln.base.records import Crop
from lorakiln.diffusion.schedule import Schedule


@dataclass(frozen=True, eq=False, slots=True)
class TextStates:
    """What the UNet reads of the prompts: a state for each token, and one vector for the whole."""

    context_BTC: Tensor
    pooled_BC: Tensor

    def __len__(self) -> int:
        return len(self.context_BTC)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TextStates":
        return TextStates(self.context_BTC.to(device, dtype), self.pooled_BC.to(device, dtype))


@dataclass(frozen=True, eq=False, slots=True)
class Posterior:
    """A picture in latent space as the VAE sees it: a Gaussian for each value, before any scaling."""

    mean_BCHW: Tensor
    logvar_BCHW: Tensor

    def sample(self, noise_BCHW: Tensor) -> Tensor:
        """mean + exp(logvar / 2) * noise; pass zeros for the mode."""
        return self.mean_BCHW + torch.exp(0.5 * self.logvar_BCHW) * noise_BCHW.to(self.mean_BCHW)


@dataclass(frozen=True, eq=False, slots=True)
class TokenIds:
    """Prompts as numbers, one tensor for each text encoder, in chunks of 77 (75 and the begin and end marks)."""

    first_BNT: Tensor
    second_BNT: Tensor

    def __len__(self) -> int:
        return len(self.first_BNT)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> "TokenIds":
        return TokenIds(self.first_BNT[rows], self.second_BNT[rows])


class Family(Protocol):
    """A frozen base model: its modules, and the steps from pixels and prompts to a prediction and back.

    Every parameter has requires_grad False and every module is in eval mode; gradients still flow through
    `encode_text` and `predict` to adapters put inside, so a caller that wants none says `torch.no_grad()`.
    """

    name: str  # "sdxl"
    resolution: int  # the side in pixels it was trained at
    latent_channels: int
    latent_factor: int  # pixels a latent, each way
    schedule: Schedule  # says too what `predict` predicts: epsilon or v
    notes: list[str]  # what was assumed in loading, to be told to the user

    @property
    def unet(self) -> nn.Module: ...

    @property
    def vae(self) -> nn.Module: ...

    @property
    def text_encoders(self) -> tuple[nn.Module, ...]: ...

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that adapters may go into: {"unet": ..., "te1": ..., "te2": ...}."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """That of the UNet and text encoders; the VAE is fp32."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the UNet is; the other parts may be elsewhere (`to`)."""
        ...

    def module_names(self, part: str, *, conv: bool = False) -> dict[str, str]:
        """Module path -> kohya's name for the default targets of `part`; `conv` adds what kohya's conv_dim covers."""
        ...

    def digest(self, part: str = "") -> str:
        """Hex hash of the weights of "unet", "te1", "te2" or "vae" as they are on disk, or of them all."""
        ...

    def encode_pixels(self, pixels_BCHW: Tensor, names: Sequence[str] | None = None) -> Posterior:
        """Pixels in -1..1 to the unscaled latent posterior; UserError with the picture's name for NaN or infinity."""
        ...

    def decode(self, latent_BCHW: Tensor, *, scaled: bool = True) -> Tensor:
        """Latents to pixels in -1..1, fp32; `scaled` latents are as the UNet sees them."""
        ...

    def scale(self, latent_BCHW: Tensor) -> Tensor:
        """A sample of the posterior to what the UNet sees."""
        ...

    def tokenize(self, prompts: Sequence[str]) -> TokenIds: ...

    def encode_text(self, tokens: TokenIds) -> TextStates: ...

    def conditioning(self, crops: Sequence[Crop]) -> Tensor:
        """(B, 6) numbers that tell the UNet how each picture was cut."""
        ...

    def predict(self, noised_BCHW: Tensor, timestep_B: Tensor, text: TextStates, time_ids_B6: Tensor) -> Tensor:
        """The UNet's output in fp32, gradients kept."""
        ...

    def enable_checkpointing(self) -> None:
        """Recompute the UNet's activations in backward: less memory, about 1.4 times the arithmetic."""
        ...

    def to(self, device: torch.device | str, *parts: str) -> None:
        """Move "unet", "te1", "te2", "vae" (all of them when none is named)."""
        ...
