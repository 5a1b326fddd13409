"""Settings of how the weights move: optimizer, learning rates, schedule."""

from typing import Any, Literal

from lorakiln.base.settings.field import Section, setting


class Optim(Section):
    name: Literal["adamw"] = setting("adamw", "The optimizer.", effect="tensors")
    lr: float = setting(
        1e-4, "Learning rate of the UNet's adapters. Too high: noise and artefacts; too low: nothing is learned.",
        effect="tensors", low=0.0,
    )  # fmt: skip
    text_lr: float = setting(
        0.0, "Learning rate of both text encoders' adapters; 0: the text encoders stay frozen and are cached.",
        effect="tensors", low=0.0,
    )  # fmt: skip
    text2_lr: float | None = setting(
        None, "Learning rate of the second text encoder alone; unset: text_lr.", effect="tensors", low=0.0
    )
    options: dict[str, Any] = setting(
        dict, "The optimizer's own options, e.g. {weight_decay = 0.01, betas = [0.9, 0.99]}.", effect="tensors"
    )
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "cosine", "How the learning rate moves from its peak to the end of the run.", effect="tensors"
    )
    schedule_options: dict[str, Any] = setting(
        dict, "The schedule's own options, e.g. {min_ratio = 0.1}.", effect="tensors"
    )
    warmup: float = setting(
        0.0, "Steps over which the learning rate rises from zero; below 1: a share of the run.",
        effect="tensors", low=0.0,
    )  # fmt: skip
    clip: float = setting(
        1.0, "Largest norm of the whole gradient; above it the gradient is scaled down. 0: never.",
        effect="tensors", low=0.0,
    )  # fmt: skip
