"""Whether a model predicts the noise or the velocity: what its file says, checked against what its weights do."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.diffusion import noise
from lorakiln.diffusion.schedule import Prediction
from lorakiln.families.family import Family

LAST, EARLY = 999, 200
SIDE = 32  # latents; a model of 1024 pixels still shows what it is at 256, for a sixteenth of the arithmetic
EPSILON_ABOVE, V_BELOW, TRAINED_ABOVE = 0.7, 0.5, 0.3


@torch.no_grad()
def probe_prediction(family: Family, seeds: Sequence[int] = (0, 1, 2)) -> Prediction | None:
    """What the UNet predicts, by its output for noise alone and an empty prompt; None where it cannot be told.

    At t = 999 an epsilon model gives its input back (correlation near 1), a v model minus its idea of the picture
    (near 0). At t = 200 both give mostly the noise; where the output has nothing of it, the weights are untrained and
    nothing is concluded. Raises UserError when the output is NaN.
    """
    early, last = correlation(family, EARLY, seeds), correlation(family, LAST, seeds)
    if early < TRAINED_ABOVE:
        return None
    if last > EPSILON_ABOVE:
        return "epsilon"
    return "v" if last < V_BELOW else None


@torch.no_grad()
def correlation(family: Family, timestep: int, seeds: Sequence[int]) -> float:
    """Pearson correlation between noise and the UNet's output for it at `timestep`, the mean over `seeds`."""
    batch = len(seeds)
    side = min(SIDE, family.resolution // family.latent_factor)
    noise_BCHW = _noise((family.latent_channels, side, side), seeds)
    size = Size(family.resolution, family.resolution)
    time_ids_B6 = family.conditioning([Crop(size, size, 0, 0, size)] * batch)
    text = family.encode_text(family.tokenize([""] * batch))
    timestep_B = torch.full((batch,), timestep)
    _, noise_rate_B = family.schedule.rates(timestep_B)
    noised_BCHW = noise_BCHW * noise_rate_B[:, None, None, None]
    out_BN = family.predict(noised_BCHW, timestep_B, text, time_ids_B6).cpu().flatten(1)
    if not out_BN.isfinite().all():
        raise UserError(f"the UNet's output is NaN or infinite in {family.dtype}; try another type or another file")
    noise_BN = noise_BCHW.flatten(1)
    out_BN, noise_BN = (rows - rows.mean(1, keepdim=True) for rows in (out_BN, noise_BN))
    scale_B = out_BN.norm(dim=1) * noise_BN.norm(dim=1)
    return float(((out_BN * noise_BN).sum(1) / scale_B.clamp(min=1e-12)).mean())


def check_words(requested: str, ztsnr: str | bool) -> None:
    """Raises UserError for a word that `decide` and `decide_ztsnr` do not know."""
    if requested not in ("auto", "epsilon", "v"):
        raise UserError(f"prediction = '{requested}': choose from auto, epsilon, v")
    if ztsnr not in ("auto", "on", "off", True, False):
        raise UserError(f"ztsnr = '{ztsnr}': choose from auto, on, off")


def decide(
    where: str, requested: str, said: tuple[str, str] | None, probed: Prediction | None
) -> tuple[Prediction, list[str]]:
    """(what the model predicts, notes for the user) from the recipe, the file and the probe.

    Raises UserError where the weights contradict recipe or file; the recipe's word, if the weights bear it out,
    outweighs the file's.
    """
    word, source = said or (None, "")
    if probed:
        if requested not in ("auto", probed):
            raise UserError(f"prediction = '{requested}': {where} is a {_kind(probed)} by its output at t = {LAST}; "
                            f"set prediction = 'auto' or '{probed}'")  # fmt: skip
        if requested == "auto" and word not in (None, probed):
            raise UserError(f"{where}: {source} says {word}, but its output at t = {LAST} is that of a "
                            f"{_kind(probed)}; set prediction = '{probed}' to go by its weights")  # fmt: skip
        notes = []
        if word is None:
            notes.append(f"{where} does not say what it predicts; by its output at t = {LAST} it is a {_kind(probed)}")
        elif word != probed:
            notes.append(f"{where}: {source} says {word}; taken as {probed}, as the recipe and its weights say")
        return probed, notes
    if requested != "auto" and word not in (None, requested):
        raise UserError(f"prediction = '{requested}': {where} is a {_kind(word)} by {source}; "
                        f"set prediction = 'auto' or '{word}'")  # fmt: skip
    chosen = word or (requested if requested != "auto" else "epsilon")
    basis = f"by {source}" if word else ("as the recipe says" if requested != "auto" else "assumed; nothing says so")
    return cast(Prediction, chosen), [
        f"{where}: its output at t = {LAST} does not show what it predicts: {chosen} {basis}"
    ]


def decide_ztsnr(
    where: str, requested: str | bool, said: tuple[bool, str] | None, prediction: str, stated: bool
) -> tuple[bool, list[str]]:
    """(whether the schedule ends in pure noise, notes); `stated`: the file itself says that it predicts v.

    A v model whose file lost all its keys is taken to end in pure noise, as those in circulation do.
    """
    wanted = None if requested == "auto" else requested in ("on", True)
    if wanted and prediction == "epsilon":
        raise UserError(f"ztsnr = 'on': {where} predicts epsilon, which cannot start from pure noise; needs a v model")
    if wanted is not None:
        told = said is not None and said[0] != wanted
        return wanted, [f"ztsnr = '{_switch(wanted)}', where {said[1]} of {where} says otherwise"] if told else []
    if prediction == "epsilon":
        return False, []
    if said is not None:
        return said[0], []
    if stated:
        return False, []
    return True, [f"{where} does not say whether its noise ends in zero signal; assumed, as v models do: ztsnr = 'off' "
                  "if it does not"]  # fmt: skip


def _noise(shape_CHW: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
    rows = [torch.randn(shape_CHW, generator=noise.generator(seed, "probe")) for seed in seeds]
    return torch.stack(rows)


def _kind(word: str) -> str:
    return {"epsilon": "noise (epsilon) model", "v": "velocity (v) model"}[word]


def _switch(value: bool) -> str:
    return "on" if value else "off"
