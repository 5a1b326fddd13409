"""The options that each optimizer and each schedule has, so that a wrong one is refused before anything is built.

What they default to is said where they are built (`optim`); a test holds the two against each other.
"""

from collections.abc import Mapping
from typing import Any, Literal

# a number, true or false, or a list of so many numbers
Kind = Literal["number", "flag", 2, 3]

_ADAM: dict[str, Kind] = {"betas": 2, "eps": "number", "weight_decay": "number"}
OPTIMIZER_OPTIONS: dict[str, dict[str, Kind]] = {
    "adamw": _ADAM,
    "adamw8bit": _ADAM,
    "prodigy": {
        "betas": 2, "beta3": "number", "eps": "number", "weight_decay": "number", "decouple": "flag",
        "use_bias_correction": "flag", "safeguard_warmup": "flag", "d0": "number", "d_coef": "number",
        "growth_rate": "number", "slice_p": "number",
    },
    "came": {"betas": 3, "eps1": "number", "eps2": "number", "clip_threshold": "number", "weight_decay": "number"},
    "adafactor": {
        "eps1": "number", "eps2": "number", "clip_threshold": "number", "decay_rate": "number", "beta1": "number",
        "weight_decay": "number", "scale_parameter": "flag", "relative_step": "flag", "warmup_init": "flag",
    },
    "lion": {"betas": 2, "weight_decay": "number"},
}  # fmt: skip
SCHEDULE_OPTIONS: dict[str, dict[str, Kind]] = {
    "constant": {},
    "linear": {"min_ratio": "number"},
    "cosine": {"min_ratio": "number"},
    "cosine_restarts": {"cycles": "number", "min_ratio": "number"},
    "polynomial": {"power": "number", "min_ratio": "number"},
    "rex": {"min_ratio": "number"},
    "wsd": {"decay": "number", "min_ratio": "number"},
}


def problem(who: str, known: Mapping[str, Kind], given: Mapping[str, Any]) -> str:
    """What is wrong with the options given to `who`; '' where nothing is."""
    for option, value in given.items():
        if option not in known:
            return f"{who} has no option '{option}'; it has {', '.join(known) or 'none'}"
        kind = known[option]
        if kind == "flag":
            fits, wanted = isinstance(value, bool), "true or false"
        elif kind == "number":
            fits, wanted = _is_number(value), "a number"
        else:
            fits = isinstance(value, list | tuple) and len(value) == kind and all(map(_is_number, value))
            wanted = f"a list of numbers, {kind} of them"
        if not fits:
            return f"{who}: {option} = {value!r}: must be {wanted}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
