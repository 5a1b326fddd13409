"""Settings of the run's length, batch and arithmetic."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Train(Section):
    epochs: int = setting(10, "Times each picture is seen, times its dataset's repeats.", effect="tensors", low=1)
    steps: int = setting(
        0, "Stop after this many optimizer steps; 0: as many as the epochs hold.", effect="tensors", low=0
    )
    batch: int = setting(1, "Pictures a step and process.", effect="order", low=1)
    accumulate: int = setting(1, "Batches whose gradients are added up before a step.", effect="tensors", low=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "Arithmetic of the frozen base; 'auto': bf16 on a GPU that has it, else fp16; fp32 on a CPU. "
        "The adapter itself is always kept in fp32.", effect="loss",
    )  # fmt: skip
    adapter_precision: Literal["fp32", "bf16"] = setting(
        "fp32",
        "Numbers that the adapter may hold between steps; 'bf16' rounds it by chance after each step, on average to "
        "where the step led: no memory is saved, but a LoRA saved in bf16 is exactly what was trained.",
        effect="tensors",
    )
    checkpointing: bool = setting(
        False,
        "Recompute activations instead of keeping them: far less memory, about 1.4 times the work.",
        effect="memory",
    )
    deterministic: bool = setting(
        False, "Only bit-reproducible GPU kernels; slower. A CPU run is bit-reproducible anyway.", effect="memory"
    )
