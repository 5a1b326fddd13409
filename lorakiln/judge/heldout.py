"""How well the model explains pictures it never trained on: denoising loss on fixed noise at fixed timesteps.

Shapes: B pictures, N timesteps, C latent channels, H and W latent height and width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorakiln.base import images
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets
from lorakiln.diffusion import loss
from lorakiln.diffusion.noise import slot_noise
from lorakiln.diffusion.objective import Objective
from lorakiln.families.family import Family, TextStates
from lorakiln.judge.interval import Interval, difference, interval


@dataclass(frozen=True, eq=False, slots=True)
class HeldOut:
    """Pictures of one size, ready to be measured: latents scaled as the UNet sees them, the mode of the posterior.

    `masks_B1HW` holds 1 where the loss counts; None: everywhere.
    """

    latents_BCHW: Tensor
    text: TextStates
    time_ids_B6: Tensor
    masks_B1HW: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents_BCHW)

    def part(self, start: int, end: int) -> "HeldOut":
        """Some of the pictures."""
        text = TextStates(self.text.context_BTC[start:end], self.text.pooled_BC[start:end])
        mask = None if self.masks_B1HW is None else self.masks_B1HW[start:end]
        return HeldOut(self.latents_BCHW[start:end], text, self.time_ids_B6[start:end], mask)


ENCODED = 2  # pictures at once: the VAE is fp32, and takes gigabytes for a large one


@torch.no_grad()
def read_held_out(
    family: Family, pictures: Sequence[Path], captions: Sequence[str], masks: Sequence[Path] | None = None
) -> HeldOut:
    """Cut pictures to the base's square and encode them, and masks (white counts) to latent resolution.

    Raises UserError naming a picture that cannot be read.
    """
    side = family.resolution
    buckets = Buckets(Size(side, side), enabled=False)
    crops = [buckets.fit(images.measure(path).size) for path in pictures]
    pixels = [images.to_pixels(images.open_picture(path), crop) for path, crop in zip(pictures, crops, strict=True)]
    latents = []
    for start in range(0, len(pixels), ENCODED):
        some = torch.stack([torch.as_tensor(one) for one in pixels[start : start + ENCODED]])
        latents.append(family.encode_pixels(some, list(map(str, pictures[start : start + ENCODED]))).mean_BCHW)
    mask_B1HW = None
    if masks is not None:
        cut = [
            images.to_mask(images.open_picture(path).convert("L"), crop, family.latent_factor)
            for path, crop in zip(masks, crops, strict=True)
        ]
        mask_B1HW = torch.stack([torch.as_tensor(one) for one in cut])
    text = family.encode_text(family.tokenize(captions))
    return HeldOut(family.scale(torch.cat(latents)), text, family.conditioning(crops), mask_B1HW)


@torch.no_grad()
def denoising_losses(
    family: Family,
    held_out: HeldOut,
    *,
    timesteps: int = 16,
    seed: int = 0,
    batch: int = 0,
    on_step: Callable[[int], None] = lambda pictures: None,
) -> Tensor:
    """Mean squared error loss_BN of each picture at the midpoints of `timesteps` equal parts of the schedule.

    Each picture meets its own fixed noise at each timestep, so two models are compared on the same questions (as in
    Li et al. 2023, "Your Diffusion Model is Secretly a Zero-Shot Classifier"). A pure function of weights and seed.
    At most `batch` pictures go through the UNet at once (0: all); `on_step(pictures)` hears of each time.
    """
    objective = Objective(family.schedule)
    rows = []
    for start in range(0, len(held_out), batch or len(held_out)):
        some = held_out.part(start, start + (batch or len(held_out)))
        latent_BCHW, slots, columns = some.latents_BCHW, range(start, start + len(some)), []
        for n in range(timesteps):
            timestep_B = torch.full((len(some),), int((n + 0.5) * family.schedule.num_timesteps / timesteps))
            noise_BCHW = slot_noise(latent_BCHW.shape[1:], seed, n, slots, use="held out")
            task = objective.make(latent_BCHW, noise_BCHW, timestep_B)
            prediction_BCHW = family.predict(task.noised_BCHW, timestep_B, some.text, some.time_ids_B6)
            error_BCHW = (prediction_BCHW - task.target_BCHW) ** 2
            columns.append(loss.mean(error_BCHW, some.masks_B1HW))
            on_step(len(some))
        rows.append(torch.stack(columns, dim=1))
    return torch.cat(rows)


def gain(before_BN: Tensor, after_BN: Tensor) -> float:
    """Share of the held-out loss that training took away, averaged over pictures and schedule; below 0 it got worse."""
    return 1 - float(after_BN.mean() / before_BN.mean())


def gains(before_BN: Tensor, after_BN: Tensor) -> list[float]:
    """For each picture the share of its loss that is gone: 1 - exp(mean over timesteps of log(after / before)).

    A geometric mean, so that each noise level counts alike, whose losses differ tenfold. NaN where a loss is none.
    """
    return (1 - (after_BN.double() / before_BN.double()).log().mean(1).exp()).tolist()


BANDS = ("fine", "middle", "coarse")  # little noise: how things are drawn; much noise: what is shown


def bands(before_BN: Tensor, after_BN: Tensor) -> dict[str, Interval]:
    """The gain in each third of the schedule, least noise first, with its interval over the pictures.

    Fewer than three timesteps leave bands empty, and those are left out.
    """
    edges = [round(number * before_BN.shape[1] / len(BANDS)) for number in range(len(BANDS) + 1)]
    spans = zip(BANDS, edges, edges[1:], strict=False)
    return {name: interval(gains(before_BN[:, a:b], after_BN[:, a:b])) for name, a, b in spans if a < b}


def memorising(trained: Sequence[float], unseen: Sequence[float]) -> Interval:
    """The memorising gap: gain on pictures that were trained on less that on held-out ones, with its interval.

    A model that learned what the set has in common gains on both alike; one that learned the pictures, on its own only
    (the generalisation gap, as membership tests use it: Yeom et al. 2018).
    """
    return difference(trained, unseen)


def peaked(history: Sequence[Sequence[float]]) -> int | None:
    """Which of the measurements in order (gains of the same pictures) was the peak, once it is beyond doubt; else None.

    It is once the last two lie below the best, each beyond the noise of the paired differences between pictures. With
    one picture there is no telling noise, so there is never an answer.
    """
    means = [interval(gains).mean for gains in history]
    if len(history) < 3 or not all(map(math.isfinite, means)):
        return _broken(means)
    best = max(range(len(means)), key=lambda at: means[at])
    if best >= len(history) - 2:
        return None
    fell = [interval(a - b for a, b in zip(history[best], later, strict=True)) for later in history[-2:]]
    return best if all(one.above() for one in fell) else None


def _broken(means: Sequence[float]) -> int | None:
    """The best of the measurements before a model stopped giving numbers; None where it still does."""
    if not means or math.isfinite(means[-1]):
        return None
    good = [at for at, mean in enumerate(means) if math.isfinite(mean)]
    return max(good, key=lambda at: means[at]) if good else None
