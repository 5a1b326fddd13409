"""Does the base already know this? Its error on the pictures, held against its error on drawings of its own.

Shapes: B pictures, N timesteps, C latent channels, H and W latent height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets
from lorakiln.families.family import Family
from lorakiln.judge.heldout import HeldOut, denoising_losses, read_held_out
from lorakiln.sample.generate import Request, draw
from lorakiln.sample.grid import grid

FEWEST = 4  # pictures below which a mean says nothing
TIMESTEPS = 12
# the cleaner half of the schedule: there an error is about how things are drawn, not about what is shown
FINE = TIMESTEPS // 2
NOVEL = 0.12  # relative excess from which the base does not know how these are drawn


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured, as natural logarithms of ratios of errors.

    `excess`: how much worse the base explains these pictures than drawings of its own of the same captions, both held
    against a linear filter that knows each picture's spectrum; 0 is as well, 0.3 a third worse. `spread`: its standard
    error. `words`: how much better with its own caption than with another picture's; `own_words` the same for the
    drawings; `trigger`: how much better with the trigger word than without.
    """

    excess: float
    spread: float
    words: float
    own_words: float
    trigger: float
    count: int

    @property
    def novelty(self) -> Literal["familiar", "novel"]:
        return "novel" if self.excess > NOVEL else "familiar"

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        percent = 100 * (torch.tensor(self.excess).exp().item() - 1)
        how = f"{percent:.0f} % worse than" if percent >= 1 else "as well as"
        end = "new to it" if self.novelty == "novel" else "nothing new to it"
        sure = "" if abs(self.excess - NOVEL) > 2 * self.spread else " (close to the line: look at the pictures)"
        return f"The base explains these {self.count} pictures {how} drawings of its own: {end}{sure}."


def probe(
    family: Family,
    pictures: Sequence[Path],
    captions: Sequence[str],
    drawings: Sequence[Path],
    trigger: str = "",
    seed: int = 0,
) -> Probe:
    """Measure pictures against the base's `drawings` of the same captions (of `draw_own`), a drawing a picture.

    Raises UserError for fewer than four pictures.
    """
    if len(pictures) < FEWEST:
        raise UserError(f"{len(pictures)} pictures are too few to tell anything; give {FEWEST} or more")
    plain = [without(text, trigger) for text in captions]
    turned = [*plain[1:], plain[0]]
    theirs, own = (read_held_out(family, files, plain) for files in (pictures, drawings))
    bare_BN, own_BN = (denoising_losses(family, one, timesteps=TIMESTEPS, seed=seed) for one in (theirs, own))

    def mean_B(ready: HeldOut, texts: Sequence[str]) -> Tensor:
        """The base's error on each picture over all noise levels, with other captions."""
        asked = replace(ready, text=family.encode_text(family.tokenize(texts)))
        return denoising_losses(family, asked, timesteps=TIMESTEPS, seed=seed).mean(1)

    with torch.no_grad():
        excess_B = _beyond_linear(family, theirs, bare_BN) - _beyond_linear(family, own, own_BN)
        named_B = mean_B(theirs, captions) if trigger else bare_BN.mean(1)
        return Probe(
            excess=float(excess_B.mean()),
            spread=float(excess_B.std() / len(pictures) ** 0.5),
            words=float((mean_B(theirs, turned) / bare_BN.mean(1)).log().mean()),
            own_words=float((mean_B(own, turned) / own_BN.mean(1)).log().mean()),
            trigger=float((bare_BN.mean(1) / named_B).log().mean()),
            count=len(pictures),
        )


def without(caption: str, trigger: str) -> str:
    """The caption without one of its tags."""
    tags = [tag.strip() for tag in caption.split(",")]
    return ", ".join(tag for tag in tags if tag and tag != trigger)


def _beyond_linear(family: Family, ready: HeldOut, losses_BN: Tensor) -> Tensor:
    """How far below a linear filter's the base's error lies on each picture's finer noise levels, log_B; lower: knows.

    The filter is the best linear one for that very picture (Wiener 1949): it knows the spectrum and nothing of shapes.
    What is left is what only a model of such pictures can do, whatever their busyness.
    """
    return (losses_BN / linear_losses(family, ready.latents_BCHW))[:, :FINE].log().mean(1)


def linear_losses(family: Family, latents_BCHW: Tensor, timesteps: int = TIMESTEPS) -> Tensor:
    """The expected error_BN of each picture's best linear filter, for what the base predicts (epsilon or v)."""
    power_BCHW = torch.fft.fft2(latents_BCHW.float(), norm="ortho").abs() ** 2
    columns = []
    for n in range(timesteps):
        at = torch.full((1,), int((n + 0.5) * family.schedule.num_timesteps / timesteps))
        signal, noise = (rate.to(latents_BCHW.device) for rate in family.schedule.rates(at))
        seen_BCHW = signal**2 * power_BCHW
        error_B = (seen_BCHW / (seen_BCHW + noise**2)).mean((1, 2, 3))
        # an error of v is that of epsilon over the signal's rate
        columns.append(error_B / signal**2 if family.schedule.prediction == "v" else error_B)
    return torch.stack(columns, 1)


def draw_own(
    family: Family,
    captions: Sequence[str],
    folder: Path,
    cfg: float = 4.0,
    steps: int = 20,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """What the base draws of the captions, as PNG files in `folder`: pictures that it certainly knows."""
    side = family.resolution
    rescale = 0.7 if family.schedule.prediction == "v" and cfg > 1 else 0.0
    wanted = [
        Request(prompt=text, width=side, height=side, steps=steps, cfg=cfg, seed=n, rescale=rescale)
        for n, text in enumerate(captions)
    ]
    files = []
    for n, picture in enumerate(draw(family, wanted, on_step=on_step)):
        path = folder / f"{n:03d}.png"
        with atomic(path) as stream:
            picture.save(stream, format="PNG")
        files.append(path)
    return files


def sheet(family: Family, pictures: Sequence[Path], drawings: Sequence[Path], most: int = 8) -> Image.Image:
    """The pictures above, the base's drawings of their captions below."""
    side = family.resolution
    buckets = Buckets(Size(side, side), enabled=False)
    rows = [[_cut(path, buckets) for path in row[:most]] for row in (pictures, drawings)]
    return grid(rows, ["your pictures", "what the base draws"])


def _cut(path: Path, buckets: Buckets) -> Image.Image:
    crop = buckets.fit(images.measure(path).size)
    left, top = crop.left, crop.top
    whole = images.open_picture(path).resize(tuple(crop.resized), Image.Resampling.LANCZOS)
    return whole.crop((left, top, left + crop.target.width, top + crop.target.height))
