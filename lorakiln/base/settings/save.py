"""Settings of what is kept: LoRA checkpoints for choosing, and state for resuming."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Save(Section):
    epochs: int = setting(0, "Save the LoRA every so many epochs; 0: not by epochs.", effect="files", low=0)
    steps: int = setting(0, "Save the LoRA every so many steps; 0: not by steps.", effect="files", low=0)
    keep: int = setting(0, "Keep only the last so many of these checkpoints; 0: keep all.", effect="files", low=0)
    dtype: Literal["fp32", "bf16", "fp16"] = setting("bf16", "Number format of the saved LoRA.", effect="files")
    state_minutes: float = setting(
        5.0, "Minutes between saves of the state that --resume continues from; it is also saved with every checkpoint.",
        effect="files", low=0.0,
    )  # fmt: skip
