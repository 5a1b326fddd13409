"""What a LoRA file is: kinds, ranks, where it acts and how strongly, how it was trained, and its trigger words."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lorakiln.adapters.files.history import steps
from lorakiln.adapters.files.modules import Module, modules
from lorakiln.adapters.files.read import AdapterFile
from lorakiln.adapters.files.write import hashes


@dataclass(frozen=True, slots=True)
class Inspection:
    """A file described. Counts are of modules; `norms` are root sums of squares of the changes' Frobenius norms.

    `tags` are (tag, share of the most frequent tag's count), most frequent first: a trigger word is in every caption.
    `history` is what was done to the tensors since they were trained, the oldest first. `hash_matches` is None where
    the file states no hash, else whether its tensors are those it was written with.
    """

    kinds: Mapping[str, int]
    parts: Mapping[str, int]
    ranks: Mapping[int, int]
    alphas: Mapping[float, int]
    dora: Mapping[str, int]
    dtypes: Mapping[str, int]
    parameters: int
    norms: Mapping[str, float]
    training: Mapping[str, str]
    recipe: str
    history: tuple[Mapping[str, Any], ...]
    trigger_phrase: str
    tags: tuple[tuple[str, float], ...]
    dataset_hash: str
    model_hash: str
    hash_matches: bool | None


def inspect(file: AdapterFile, tensors: Mapping[str, torch.Tensor]) -> Inspection:
    """Describe `file`, whose tensors under kohya's names are `tensors` (`names.to_kohya`)."""
    held = modules(tensors)
    digest = hashes(file.tensors, {})["sshs_model_hash"]
    stated = file.metadata.get("sshs_model_hash")
    return Inspection(
        kinds=Counter(module.kind for module in held),
        parts=Counter(module.part for module in held),
        ranks=dict(sorted(Counter(module.width.rank for module in held).items())),
        alphas=dict(sorted(Counter(round(module.width.alpha, 4) for module in held).items())),
        dora=Counter(module.dora for module in held if module.dora),
        dtypes=Counter(str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()),
        parameters=sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(".alpha")),
        norms=_norms(held),
        training={key[3:]: value for key, value in file.metadata.items() if key.startswith("ss_") and len(value) < 200},
        recipe=file.metadata.get("lorakiln.recipe", ""),
        history=tuple(steps(file.metadata)),
        trigger_phrase=file.metadata.get("modelspec.trigger_phrase", ""),
        tags=_tags(file.metadata.get("ss_tag_frequency", "{}")),
        dataset_hash=file.metadata.get("lorakiln.dataset_hash", ""),
        model_hash=digest,
        hash_matches=None if stated is None else stated == digest,
    )


@torch.no_grad()
def _norms(held: list[Module]) -> dict[str, float]:
    squares: dict[str, float] = {}
    for module in held:
        squares[module.block] = squares.get(module.block, 0.0) + module.norm() ** 2
    return {block: math.sqrt(square) for block, square in squares.items()}


def _tags(text: str, most: int = 20) -> tuple[tuple[str, float], ...]:
    try:
        frequencies: Any = json.loads(text)
    except json.JSONDecodeError:
        return ()
    counts: Counter[str] = Counter()
    for folder in frequencies.values() if isinstance(frequencies, dict) else ():
        if isinstance(folder, dict):
            counts.update({tag.strip(): count for tag, count in folder.items() if isinstance(count, int)})
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return tuple((tag, count / ordered[0][1]) for tag, count in ordered)
