"""What adapter to train: its kind, its width, where it goes; an option that a kind does not have is refused."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.settings.adapter import ALIASES

COMMON = ("rank", "alpha", "targets", "exclude", "ranks", "rank_stabilised", "rank_dropout", "module_dropout")
CONV = ("conv_rank", "conv_alpha", "tucker")
DORA = ("dora", "dora_axis")
# kind -> the options it has; a new kind is a row here and a part in `parts`
OPTIONS: dict[str, tuple[str, ...]] = {
    "lora": COMMON + CONV + DORA,
    "loha": COMMON + CONV + DORA,
    "lokr": COMMON + CONV + DORA + ("factor", "full_matrix", "decompose_both"),
}


@dataclass(frozen=True, slots=True)
class RankRule:
    """`rank` and `alpha` for the modules whose kohya name or module path matches `pattern` (shell wildcards).

    Rank 0 leaves the module out; alpha None is the rank, a scale of one.
    """

    pattern: str
    rank: int
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """One kind of adapter and its options; the defaults are a plain LoRA on kohya's default targets.

    The change of a layer's weight is multiplied by alpha / rank, or alpha / sqrt(rank) where `rank_stabilised`
    (Kalajdzievski 2023). `conv_rank` 0 leaves the convolutions alone. `targets` and `exclude` are shell patterns on
    kohya names or module paths; empty `targets` means kohya's default set. The last matching rule of `ranks` wins.
    `dora_axis` "input" normalises each input column, which is what other programs apply as trained.
    `factor` (LoKr) splits both sizes of a weight; -1 splits them as evenly as they go.
    """

    kind: Literal["lora", "loha", "lokr"] = "lora"
    rank: int = 16
    alpha: float = 16.0
    conv_rank: int = 0
    conv_alpha: float = 1.0
    targets: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ranks: tuple[RankRule, ...] = ()
    rank_stabilised: bool = False
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    tucker: bool = False
    dora: bool = False
    dora_axis: Literal["input", "output"] = "input"
    factor: int = -1
    full_matrix: bool = False
    decompose_both: bool = False

    def __post_init__(self) -> None:
        if self.kind not in OPTIONS:
            raise UserError(f"adapter.kind = '{self.kind}': unknown{nearest(self.kind, OPTIONS)}")
        for option in fields(self):
            changed = option.name != "kind" and getattr(self, option.name) != option.default
            if changed and option.name not in OPTIONS[self.kind]:
                raise UserError(unknown(self.kind, option.name))
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name in ("rank", "conv_rank"):
            _check(name, getattr(self, name), getattr(self, name) >= (name == "rank"), "a whole number from 1")
        for name in ("alpha", "conv_alpha"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "above 0 (0 would switch the adapter off)")
        for name in ("rank_dropout", "module_dropout"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for rule in self.ranks:
            _check("ranks", f"{rule.pattern} {rule.rank}", rule.rank >= 0, "a rank of at least 0")
            _check("ranks", f"{rule.pattern} alpha {rule.alpha}", rule.alpha is None or rule.alpha > 0, "alpha above 0")
        _check("factor", self.factor, self.factor == -1 or self.factor >= 1, "-1 or at least 1")
        _check("dora_axis", self.dora_axis, self.dora_axis in ("input", "output"), "input or output")
        if self.tucker and not self.conv_rank:
            raise UserError("adapter.tucker = true: has no effect without conv_rank")
        if self.dora_axis == "output" and not self.dora:
            raise UserError('adapter.dora_axis = "output": has no effect without dora = true')
        if self.full_matrix and self.decompose_both:
            raise UserError("adapter.decompose_both = true: has no effect with full_matrix = true")

    def width(self, name: str, path: str, *, spatial: bool) -> tuple[int, float]:
        """(rank, alpha) of one module; `spatial` for a convolution with a kernel above 1x1. Rank 0: leave it out."""
        rank, alpha = (self.conv_rank, self.conv_alpha) if spatial else (self.rank, self.alpha)
        for rule in self.ranks:
            if matches(name, path, (rule.pattern,)):
                rank, alpha = rule.rank, float(rule.rank if rule.alpha is None else rule.alpha)
        return rank, alpha

    def scale(self, rank: int, alpha: float) -> float:
        """What the change of a weight is multiplied by."""
        return alpha / rank**0.5 if self.rank_stabilised else alpha / rank


def make_spec(kind: str, options: Mapping[str, Any]) -> AdapterSpec:
    """A spec from a recipe's table. Raises UserError naming an unknown option and those that the kind has."""
    if kind not in OPTIONS:
        raise UserError(f"adapter.kind = '{kind}': unknown{nearest(kind, OPTIONS)}")
    for name in options:
        if name not in OPTIONS[kind]:
            raise UserError(unknown(kind, name))
    return AdapterSpec(kind=kind, **options)  # ty: ignore[invalid-argument-type]


def unknown(kind: str, option: str) -> str:
    """The line for an option that `kind` does not have."""
    hint = f"; did you mean '{ALIASES[option]}'?" if option in ALIASES else ""
    return f"adapter.{option}: {kind} has no such option{hint} (it has {', '.join(sorted(OPTIONS[kind]))})"


def matches(name: str, path: str, patterns: tuple[str, ...]) -> bool:
    """Whether any shell pattern matches a module's kohya name or its path."""
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _check(name: str, value: Any, fine: bool, allowed: str) -> None:
    if not fine:
        raise UserError(f"adapter.{name} = {value}: must be {allowed}")
