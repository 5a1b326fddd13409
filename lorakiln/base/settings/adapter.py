"""Settings of what is trained: the small matrices beside the frozen base."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Adapter(Section):
    kind: Literal["lora"] = setting("lora", "The kind of adapter.", effect="tensors")
    rank: int = setting(
        16, "Width of the adapter: more detail, more memory, more overfitting; 8-32 for a character.",
        effect="tensors", low=1, high=1024,
    )  # fmt: skip
    alpha: float = setting(
        8.0, "The adapter's output is scaled by alpha / rank; halving it is much like halving the learning rate.",
        effect="loss", low=1e-6,
    )  # fmt: skip
    conv_rank: int = setting(
        0, "Rank of the adapters on convolutions (LoCon); 0: linear layers only.", effect="tensors", low=0, high=1024
    )
    conv_alpha: float = setting(1.0, "Alpha of the adapters on convolutions.", effect="loss", low=1e-6)
