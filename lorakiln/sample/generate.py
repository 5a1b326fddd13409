"""Requests in, pictures out: batches what can share a batch, and draws each as if it were alone.

Shapes: B batch, C latent channels, H and W latent height and width, T text tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.diffusion import noise
from lorakiln.families.family import Family, TextStates
from lorakiln.sample.sampler import Steps, clean, guided, samplers, spaced

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to draw. Sizes in pixels; `cfg` 1 leaves the negative prompt out; `rescale` 0..1 is for ZTSNR."""

    prompt: str
    negative: str = ""
    width: int = 1024
    height: int = 1024
    steps: int = 28
    cfg: float = 6.0
    seed: int = 0
    sampler: str = "euler"
    rescale: float = 0.0

    def facts(self) -> dict[str, str]:
        """What a PNG says of itself."""
        return {name: str(getattr(self, name)) for name in self.__dataclass_fields__}


def check(request: Request, family: Family) -> None:
    """UserError with the setting, its value and what is allowed, if the request cannot be drawn on this base."""
    for name in ("width", "height"):
        value, factor = getattr(request, name), family.latent_factor
        if value < factor or value % factor:
            raise UserError(f"{name} = {value}: must be a positive multiple of {factor}")
    if request.cfg < 0:
        raise UserError(f"cfg = {request.cfg:g}: must be at least 0")
    if not 0 <= request.rescale <= 1:
        raise UserError(f"rescale = {request.rescale:g}: must be from 0 to 1")
    samplers[request.sampler]
    spaced(family.schedule, request.steps)


def draw(
    family: Family,
    requests: Sequence[Request],
    *,
    batch: int = 4,
    on_step: Callable[[int, int], None] | None = None,
) -> "list[Image]":
    """The pictures in the order of `requests`, at most `batch` at a time.

    A picture depends on its own request alone: those of one size, sampler, step count and prompt length share a batch,
    which changes nothing but rounding. `on_step(done, total)` hears of each UNet call. UserError for a bad request.
    """
    for request in requests:
        check(request, family)
    groups: dict[tuple, list[int]] = defaultdict(list)
    for index, request in enumerate(requests):
        groups[_shared(family, request)].append(index)
    chunks = [indices[i : i + batch] for indices in groups.values() for i in range(0, len(indices), batch)]
    total = sum(requests[indices[0]].steps for indices in chunks)
    pictures: dict[int, Image] = {}
    done = 0
    for indices in chunks:

        def report(step: int, done: int = done) -> None:
            if on_step:
                on_step(done + step, total)

        latent_BCHW = draw_latents(family, [requests[i] for i in indices], report)
        for index, latent_CHW in zip(indices, latent_BCHW, strict=True):
            pictures[index] = to_picture(decode(family, latent_CHW[None])[0])
        done += requests[indices[0]].steps
    return [pictures[index] for index in range(len(requests))]


def _shared(family: Family, request: Request) -> tuple:
    """What requests must agree on to be drawn together; prompts of other lengths would pad each other."""
    chunks = family.tokenize([request.negative, request.prompt]).first_BNT.shape[1]
    return request.width, request.height, request.steps, request.sampler, request.cfg == 1, chunks


@torch.no_grad()
def draw_latents(
    family: Family, requests: Sequence[Request], on_step: Callable[[int], None] = lambda step: None
) -> Tensor:
    """latent_BCHW (fp32, scaled as the UNet sees it) of requests that agree on size, steps, sampler and length."""
    steps = spaced(family.schedule, requests[0].steps)
    x_BCHW = steps.start * first_noise(family, requests)
    denoise = denoiser(family, requests, steps, on_step)

    def fresh(step: int) -> Tensor:
        shape = tuple(x_BCHW.shape[1:])
        drawn = [noise.slot_noise(shape, request.seed, step, [0], use="sampler") for request in requests]
        return torch.cat(drawn).to(x_BCHW.device)

    return samplers[requests[0].sampler](denoise, x_BCHW, steps.sigmas, fresh)


def first_noise(family: Family, requests: Sequence[Request]) -> Tensor:
    """Unit noise_BCHW, each from a CPU generator seeded with its request's seed, as diffusers and ComfyUI draw it."""
    drawn = []
    for request in requests:
        side = family.latent_factor
        shape = (1, family.latent_channels, request.height // side, request.width // side)
        drawn.append(torch.randn(shape, generator=torch.Generator("cpu").manual_seed(request.seed)))
    return torch.cat(drawn).to(family.device)


def denoiser(
    family: Family, requests: Sequence[Request], steps: Steps, on_step: Callable[[int], None]
) -> Callable[[Tensor, float], Tensor]:
    """`denoise(x_BCHW, sigma) -> x_0`: one UNet call with positive and negative prompts in one batch."""
    guide = any(request.cfg != 1 for request in requests)
    text = _encode(family, requests, guide)
    whole = [Size(request.width, request.height) for request in requests]
    crops = [Crop(size, size, 0, 0, size) for size in whole] * (2 if guide else 1)
    time_ids_B6 = family.conditioning(crops).to(family.device)
    scale_B, rescale_B = (
        torch.tensor([getattr(request, name) for request in requests], device=family.device)
        for name in ("cfg", "rescale")
    )

    def denoise(x_BCHW: Tensor, sigma: float) -> Tensor:
        input_BCHW = x_BCHW / (sigma**2 + 1) ** 0.5
        if guide:
            input_BCHW = input_BCHW.repeat(2, 1, 1, 1)
        timestep_B = torch.full((len(input_BCHW),), steps.timestep(sigma), device=family.device)
        output_BCHW = family.predict(input_BCHW, timestep_B, text, time_ids_B6).float()
        if guide:
            positive_BCHW, negative_BCHW = output_BCHW.chunk(2)
            output_BCHW = guided(positive_BCHW, negative_BCHW, scale_B, rescale_B)
        on_step(steps.sigmas.index(sigma) + 1)
        return clean(x_BCHW, output_BCHW, sigma, family.schedule.prediction)

    return denoise


def _encode(family: Family, requests: Sequence[Request], guide: bool) -> TextStates:
    prompts = [request.prompt for request in requests]
    negatives = [request.negative for request in requests]
    # tokenized together even when the negative is not used, so that cfg does not change how a prompt is padded
    tokens = family.tokenize(prompts + negatives)
    return family.encode_text(tokens if guide else tokens[: len(prompts)])


@torch.no_grad()
def decode(family: Family, latent_BCHW: Tensor) -> Tensor:
    """pixels_BCHW, fp32 in -1..1; UserError when the latent has become NaN, which would decode to black."""
    if not latent_BCHW.isfinite().all():
        raise UserError("the sample became NaN: try a lower LoRA strength, or precision = 'fp32'")
    return family.decode(latent_BCHW)


def to_picture(pixels_CHW: Tensor) -> "Image":
    """An RGB picture of pixels in -1..1; what lies outside is cut off."""
    from PIL import Image

    bytes_HWC = (pixels_CHW.float() / 2 + 0.5).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(bytes_HWC.cpu().contiguous().numpy(), "RGB")
