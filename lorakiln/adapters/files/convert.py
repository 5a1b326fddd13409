"""From kohya's names to those of diffusers; the way back is `names.to_kohya`."""

import json
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from lorakiln.adapters.files.modules import Module, modules, scale_one
from lorakiln.adapters.files.names import PARTS, Names
from lorakiln.adapters.files.read import PEFT_CONFIG
from lorakiln.adapters.lora import DOWN, MID, UP
from lorakiln.adapters.magnitude import SCALE
from lorakiln.base.errors import UserError

PREFIXES = {part: start for start, part in PARTS.items()}


def to_diffusers(tensors: Mapping[str, Tensor], names: Names) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors under diffusers' names, metadata) that `load_lora_weights` of diffusers reads; scales are folded in.

    `names` maps each part's module paths to kohya's names. Raises UserError for what peft cannot express: LoHa, LoKr,
    Tucker, and DoRA over the input axis.
    """
    places = {name: (part, path) for part in names for path, name in names[part].items()}
    made: dict[str, Tensor] = {}
    ranks: dict[str, dict[str, int]] = {}
    normalised: set[str] = set()
    for module in modules(tensors):
        if module.name not in places:
            raise UserError(f"{module.name}: no layer of this model family; convert with the family it was made for")
        _refuse(module)
        part, path = places[module.name]
        held = scale_one(module)
        stem = PREFIXES[part] + path
        made |= {f"{stem}.lora_A.weight": held[DOWN], f"{stem}.lora_B.weight": held[UP]}
        if module.dora:
            made[f"{stem}.lora_magnitude_vector"] = held[SCALE].flatten()
            normalised.add(part)
        ranks.setdefault(part, {})[path] = module.width.rank
    config: dict[str, object] = {}
    for part, by_path in ranks.items():
        config |= _config(PREFIXES[part], by_path, part in normalised)
    return made, {"format": "pt", PEFT_CONFIG: json.dumps(config, sort_keys=True)}


def _refuse(module: Module) -> None:
    if module.kind != "lora" or MID in module.tensors:
        raise UserError(f"{module.name}: diffusers has no {module.kind}{' with Tucker' * (MID in module.tensors)}")
    if module.dora == "input":
        raise UserError(f"{module.name}: diffusers has DoRA over the output axis only; this file's is over the input")


def _config(prefix: str, ranks: Mapping[str, int], dora: bool) -> dict[str, object]:
    """peft's configuration of one part: alpha equals rank everywhere, the commonest rank being the rule."""
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: each for path, each in ranks.items() if each != rank}
    values = {
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "rank_pattern": others, "alpha_pattern": others,
        "target_modules": sorted(ranks), "use_dora": dora, "lora_bias": False,
    }  # fmt: skip
    return {prefix + name: value for name, value in values.items()}
