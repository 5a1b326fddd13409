"""Settings of how the weights move: optimizer, learning rates, schedule."""

from typing import Any, Literal

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from lorakiln.base.errors import nearest
from lorakiln.base.settings.field import Section, setting
from lorakiln.base.settings.options import OPTIMIZER_OPTIONS, SCHEDULE_OPTIONS, problem

OPTIMIZERS = tuple(OPTIMIZER_OPTIONS)


class RateRule(Section):
    pattern: str = setting(
        ..., "Shell pattern on kohya's module names or the model's own, e.g. '*output_blocks*'.", effect="tensors"
    )
    factor: float = setting(..., "Factor on the learning rate of the matching modules.", effect="tensors", low=0.0)


class Optim(Section):
    name: str = setting(
        "adamw",
        f"The optimizer: {', '.join(OPTIMIZERS)}, or any torch optimizer by its path, as in 'torch.optim.NAdam'.",
        effect="tensors",
    )
    lr: float = setting(
        1e-4,
        "Learning rate of the UNet's adapters. Too high: noise and artefacts; too low: nothing is learned.",
        effect="tensors",
        low=0.0,
    )
    text_lr: float = setting(
        0.0,
        "Learning rate of both text encoders' adapters; 0: the text encoders stay frozen and are cached.",
        effect="tensors",
        low=0.0,
    )
    text2_lr: float | None = setting(
        None, "Learning rate of the second text encoder alone; unset: text_lr.", effect="tensors", low=0.0
    )
    rates: list[RateRule] = setting(
        list, "Other learning rates for some modules; the last rule that matches counts.", effect="tensors"
    )
    loraplus: float = setting(
        1.0, "LoRA+: factor on the rate of the matrices that start at zero; 16 is usual.", effect="tensors", low=1.0
    )
    options: dict[str, Any] = setting(
        dict, "The optimizer's own options, e.g. {weight_decay = 0.01, betas = [0.9, 0.99]}.", effect="tensors"
    )
    schedule: Literal["constant", "linear", "cosine", "cosine_restarts", "polynomial", "rex", "wsd"] = setting(
        "cosine", "How the learning rate moves from its peak to the end of the run.", effect="tensors"
    )
    schedule_options: dict[str, Any] = setting(
        dict, "The schedule's own options, e.g. {min_ratio = 0.1}.", effect="tensors"
    )
    warmup: float = setting(
        0.0,
        "Steps over which the learning rate rises to its peak; below 1: a share of the run.",
        effect="tensors",
        low=0.0,
    )
    clip: float = setting(
        1.0,
        "Largest norm of the whole gradient; above it the gradient is scaled down. 0: never.",
        effect="tensors",
        low=0.0,
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPTIMIZERS and "." not in name:
            raise PydanticCustomError("choice", "unknown optimizer{hint}", {"hint": nearest(name, OPTIMIZERS)})
        return name

    @field_validator("options", "schedule_options")
    @classmethod
    def _fitting(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Another tool's optimizer, named by a path, is asked for its options when it is built."""
        noun, key, table = (
            ("optimizer", "name", OPTIMIZER_OPTIONS)
            if info.field_name == "options"
            else ("schedule", "schedule", SCHEDULE_OPTIONS)
        )
        name = info.data.get(key)  # None: that setting is wrong itself, which is told
        wrong = problem(f"{noun} '{name}'", table[name], options) if name in table else ""
        if wrong:
            raise PydanticCustomError("choice", "{wrong}", {"wrong": wrong})
        return options

    @property
    def second_text_lr(self) -> float:
        """text2_lr, or text_lr where it is unset."""
        return self.text_lr if self.text2_lr is None else self.text2_lr
