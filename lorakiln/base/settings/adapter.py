"""Settings of what is trained: the small matrices beside the frozen base."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting

# what other tools call these settings
ALIASES = {
    "use_dora": "dora = true",
    "dora_wd": "dora = true",
    "weight_decompose": "dora = true",
    "wd_on_output": 'dora_axis = "output"',
    "wd_on_out": 'dora_axis = "output"',
    "network_dim": "rank",
    "dim": "rank",
    "network_alpha": "alpha",
    "conv_dim": "conv_rank",
    "use_tucker": "tucker = true",
    "use_cp": "tucker = true",
    "algo": "kind",
    "rs_lora": "rank_stabilised = true",
    "full_matrix_mode": "full_matrix = true",
}


class RankRule(Section):
    pattern: str = setting(
        ..., "Shell pattern on kohya's module names or the model's own, e.g. '*attn2*'.", effect="tensors"
    )
    rank: int = setting(..., "Rank of the matching modules; 0 leaves them out.", effect="tensors", low=0, high=1024)
    alpha: float | None = setting(None, "Their alpha; unset: their rank, a scale of one.", effect="tensors", low=1e-6)


class Adapter(Section):
    kind: Literal["lora", "loha", "lokr"] = setting(
        "lora",
        "LoRA; LoHa (two products multiplied: more rank for the size); LoKr (a Kronecker product: smallest files).",
        effect="tensors",
    )
    rank: int = setting(
        16,
        "Width of the adapter: more detail, more memory, more overfitting; 8-32 for a character.",
        effect="tensors",
        low=1,
        high=1024,
    )
    alpha: float = setting(
        8.0,
        "The adapter's output is scaled by alpha / rank; halving it is much like halving the learning rate.",
        effect="tensors",
        low=1e-6,
    )
    conv_rank: int = setting(
        0, "Rank of the adapters on convolutions (LoCon); 0: linear layers only.", effect="tensors", low=0, high=1024
    )
    conv_alpha: float = setting(1.0, "Alpha of the adapters on convolutions.", effect="tensors", low=1e-6)
    tucker: bool = setting(
        False, "Tucker decomposition of convolutions: fewer weights at the same rank.", effect="tensors"
    )
    dora: bool = setting(
        False, "DoRA: train the size of each weight column apart from its direction.", effect="tensors"
    )
    dora_axis: Literal["input", "output"] = setting(
        "input", "Over which axis DoRA measures; other programs apply only 'input' as it was trained.", effect="tensors"
    )
    rank_stabilised: bool = setting(
        False, "Scale by alpha / sqrt(rank) instead, so that high ranks learn as fast (rsLoRA).", effect="tensors"
    )
    rank_dropout: float = setting(
        0.0, "Chance that a rank is left out of a step.", effect="tensors", low=0.0, high=0.99
    )
    module_dropout: float = setting(
        0.0, "Chance that a module is left out of a step.", effect="tensors", low=0.0, high=0.99
    )
    factor: int = setting(
        -1, "LoKr: how each weight is split; -1: as evenly as it goes.", effect="tensors", low=-1, high=1024
    )
    full_matrix: bool = setting(False, "LoKr: train the large factor whole, without a rank.", effect="tensors")
    decompose_both: bool = setting(False, "LoKr: give the small factor a rank too.", effect="tensors")
    targets: list[str] = setting(
        list, "Patterns of the modules to train; empty: kohya's default, all of the attention blocks.", effect="tensors"
    )
    exclude: list[str] = setting(list, "Patterns of modules to leave out.", effect="tensors")
    ranks: list[RankRule] = setting(
        list, "Other ranks for some modules; the last rule that matches counts.", effect="tensors"
    )
