"""What a LoRA's header may still say once its tensors were merged, resized or renamed, and what was done to them.

`lorakiln.recipe`, `ss_*` and the tags tell how the tensors were trained; `lorakiln.history` (a JSON list of steps, the
oldest first) tells what has happened to them since. A merged file was not trained, so it keeps only what its sources
agree on of their base.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lorakiln.adapters.files.metadata import network_keys
from lorakiln.adapters.files.modules import Module, modules
from lorakiln.adapters.files.read import PEFT_CONFIG, AdapterFile
from lorakiln.adapters.files.write import hashes
from lorakiln.adapters.lora import DOWN
from lorakiln.adapters.spec import AdapterSpec

HISTORY = "lorakiln.history"
TRIGGER = "modelspec.trigger_phrase"
NETWORK = ("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args")
# what a header says of the base alone
OF_THE_BASE = {
    "ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash",
    "ss_zero_terminal_snr", "lorakiln.base_hash", "modelspec.sai_model_spec", "modelspec.architecture",
    "modelspec.implementation", "modelspec.prediction_type", "modelspec.resolution",
}  # fmt: skip


def without_hashes(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata less the hashes of tensors that are about to change."""
    return {
        key: value for key, value in metadata.items() if not key.startswith("sshs_") and not key.endswith("hash_sha256")
    }


def resized(file: AdapterFile, tensors: Mapping[str, Tensor], rank: int, energy: float) -> dict[str, str]:
    """The header of `file` resized to `tensors`."""
    asked = {name: value for name, value in (("rank", rank), ("energy", energy)) if value}
    step = {"verb": "resize", "of": _digest(file)} | asked
    return _trained(file) | widths(tensors) | _history(file, step)


def merged(files: Sequence[tuple[AdapterFile, float]], tensors: Mapping[str, Tensor], rank: int) -> dict[str, str]:
    """The header of one LoRA made of several."""
    every = [file.metadata for file, _ in files]
    shared = {
        key: value
        for key, value in every[0].items()
        if key in OF_THE_BASE and all(one.get(key) == value for one in every)
    }
    phrases = dict.fromkeys(one[TRIGGER] for one in every if one.get(TRIGGER))
    if phrases:
        shared[TRIGGER] = ", ".join(phrases)
    return shared | widths(tensors) | sources(files, {"rank": rank} if rank else {})


def sources(files: Sequence[tuple[AdapterFile, float]], more: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The history of what was made of several LoRAs at these strengths."""
    of = [{"title": _title(file), "hash": _digest(file), "strength": strength} for file, strength in files]
    return {HISTORY: json.dumps([{"verb": "merge", "of": of} | dict(more or {})], sort_keys=True)}


def renamed(file: AdapterFile, tensors: Mapping[str, Tensor], *, kohya: bool) -> dict[str, str]:
    """The header of `file` under other names: `kohya` says its widths, peft's configuration does otherwise."""
    kept = {key: value for key, value in without_hashes(file.metadata).items() if key not in (PEFT_CONFIG, "format")}
    if not kohya:
        return {key: value for key, value in kept.items() if key not in NETWORK}
    return kept if "ss_network_dim" in kept else kept | widths(tensors)


def widths(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The `ss_network_*` keys of LoRAs whose scale is one, from their tensors: the largest ranks."""
    held = modules(tensors)
    if any(module.kind != "lora" for module in held):
        return {}
    ranks = {wide: [module.width.rank for module in held if _spatial(module) == wide] for wide in (False, True)}
    linear, conv = max(ranks[False], default=0), max(ranks[True], default=0)
    dora = next((module.dora for module in held if module.dora), "")
    spec = AdapterSpec(
        rank=linear or conv,
        alpha=float(linear or conv),
        conv_rank=conv,
        conv_alpha=float(conv or 1),
        dora=bool(dora),
        dora_axis="output" if dora == "output" else "input",
    )
    return network_keys(spec)


def steps(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """The steps of a file's history; none where it has none that can be read."""
    try:
        found = json.loads(metadata.get(HISTORY, "[]"))
    except ValueError:
        return []
    return [step for step in found if isinstance(step, dict)] if isinstance(found, list) else []


def _trained(file: AdapterFile) -> dict[str, str]:
    """What stays true of how a file was trained when its widths do not."""
    kept = without_hashes(file.metadata)
    return {key: value for key, value in kept.items() if key not in (*NETWORK, PEFT_CONFIG, "format")}


def _history(file: AdapterFile, step: Mapping[str, Any]) -> dict[str, str]:
    return {HISTORY: json.dumps([*steps(file.metadata), dict(step)], sort_keys=True)}


def _title(file: AdapterFile) -> str:
    return file.metadata.get("ss_output_name") or file.metadata.get("modelspec.title") or ""


def _digest(file: AdapterFile) -> str:
    return hashes(file.tensors, {})["sshs_model_hash"]


def _spatial(module: Module) -> bool:
    return math.prod(module.tensors[DOWN].shape[2:]) > 1
