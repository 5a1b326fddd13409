"""The guides' ways to train, each as settings with reasons; also the recipes that can be loaded by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.recipe import apply_change, parse
from lorakiln.base.settings import Recipe
from lorakiln.exchange.report import UNSET


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting of the recipe, its value, why, and the evidence rows that say so."""

    setting: str
    value: Any
    why: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """A named way to train. `choices` hold everything but base and pictures."""

    name: str
    title: str
    evidence: tuple[str, ...]
    choices: tuple[Choice, ...] = field(default=())

    def value(self, setting: str) -> Any:
        """What it says of a setting, or None."""
        return next((one.value for one in self.choices if one.setting == setting), None)

    def but(self, *choices: Choice) -> "Method":
        """The same with other choices for some settings; new settings go to the end."""
        new = {one.setting: one for one in choices}
        kept = tuple(new.pop(one.setting, one) for one in self.choices)
        return replace(self, choices=(*kept, *new.values()))

    def without(self, *settings: str) -> "Method":
        """The same with nothing to say of some settings."""
        return replace(self, choices=tuple(one for one in self.choices if one.setting not in settings))


def _c(setting: str, value: Any, why: str, *evidence: str) -> Choice:
    return Choice(setting, value, why, evidence)


_PRODIGY = {"weight_decay": 0.01, "d_coef": 1.0, "use_bias_correction": True, "betas": [0.9, 0.99]}
_COMMON = (
    _c("train.precision", "bf16", "half the memory of fp32; the adapter itself stays in fp32", "T1", "C1"),
    _c("train.checkpointing", True, "5 GiB less per picture for 1.4 times the work", "T1", "C1", "C2"),
)
_CAME_STYLE = (
    _c("adapter.kind", "lora", "with convolutions below: what the guide's DoRA runs really were", "T6"),
    _c("adapter.rank", 16, "enough for a style", "T6"),
    _c("adapter.alpha", 8.0, "half the rank, which halves the rate", "T6", "M1"),
    _c("adapter.conv_rank", 16, "a style lives in textures too", "T6"),
    _c("adapter.conv_alpha", 8.0, "as for the linear layers", "T6"),
    _c("optim.name", "came", "little memory, steady on small sets", "T6", "T9"),
    _c("optim.lr", 1e-4, "what worked for a style; 5e-4 gives abstract void, 6e-5 is too timid", "T9", "T11", "T8"),
    _c("optim.text_lr", 0.0, "a style needs no new words; the captions are then encoded once", "T6"),
    _c("optim.options", {"weight_decay": 0.1}, "holds back overfitting", "T6"),
    _c("optim.schedule", "cosine", "fast first, careful at the end", "T6"),
    _c("train.batch", 4, "fewer for a smaller card", "T6"),
    _c("train.epochs", 10, "of 2 repeats: 125 pictures make 630 steps, which worked", "T6", "T9"),
    *_COMMON,
    _c("loss.min_snr_gamma", 8.0, "nearly clean steps count less", "T6"),
    _c("save.epochs", 1, "ten checkpoints to choose from", "W1", "P1"),
    _c("sample.epochs", 1, "watch it while it trains", "W2"),
    _c("dataset.repeats", 2, "the guide's own", "T6", "T9"),
    _c("dataset.keep_tokens", 1, "the trigger stays in front", "T6", "S7"),
    _c("dataset.shuffle", True, "so that no tag's place is learned", "T1"),
)

PRODIGY_FAST = Method(
    "prodigy-fast", "Prodigy on 20-40 pictures: finds its own rate", ("T1", "M5"),
    (
        _c("adapter.rank", 16, "low rank for few pictures, against overfitting", "T1"),
        _c("adapter.alpha", 2.0, "the preset's own; Prodigy makes up for the small scale", "T1", "M1"),
        _c("optim.name", "prodigy", "finds its own step size", "T1"),
        _c("optim.lr", 1.0, "a factor on that step size: leave it at 1", "T1", "M5"),
        _c("optim.text_lr", 1.0, "the preset's 0 trains both parts at 1", "T1"),
        _c("optim.options", _PRODIGY, "the preset's own", "T1"),
        _c("optim.schedule", "cosine", "the preset's own", "T1"),
        _c("train.batch", 3, "the preset's own", "T1"),
        _c("train.epochs", 50, "for 20-40 pictures", "T1"),
        *_COMMON,
        _c("save.epochs", 5, "every 5 rather than every 10: more to choose from", "T1", "W1"),
        _c("sample.epochs", 5, "watch it while it trains", "W2"),
        _c("dataset.keep_tokens", 1, "the trigger stays in front", "S7"),
        _c("dataset.shuffle", True, "so that no tag's place is learned", "T1"),
    ),
)  # fmt: skip
PRODIGY_RICH = replace(
    PRODIGY_FAST.but(
        _c("adapter.rank", 32, "for a larger set or a richer style", "T2"),
        _c("adapter.alpha", 32.0, "with it; a scale of one", "T2"),
        _c("train.epochs", 12, "6-12 epochs for a larger set", "T4"),
        _c("save.epochs", 1, "twelve checkpoints to choose from", "T1", "W1"),
        _c("sample.epochs", 1, "watch it while it trains", "W2"),
    ),
    name="prodigy-rich", title="Prodigy at rank 32, for larger sets", evidence=("T2", "T4", "T1"),
)  # fmt: skip
PRODIGY_LONG = replace(
    PRODIGY_RICH.but(
        _c("dataset.repeats", 16, "40 pictures make 2,568 steps of 3; 8,160 is the most that is reported", "T4"),
    ),
    name="prodigy-long", title="Prodigy at rank 32, 2,560 to 8,160 steps", evidence=("T4", "T2", "T1"),
)  # fmt: skip
BASELINE = Method(
    "adamw8bit-baseline", "AdamW at 5e-4, long: DuskFall's everyday settings", ("T5",),
    (
        _c("adapter.rank", 32, "more detail than 8-16", "T5"),
        _c("adapter.alpha", 16.0, "16-32; half the rank is the safer end", "T5", "M1"),
        _c("optim.name", "adamw8bit", "a good balance of result and memory", "T5"),
        _c("optim.lr", 5e-4, "the guide's baseline", "T5"),
        _c("optim.text_lr", 1e-4, "lower than the UNet's, so that prompts are not spoiled", "T5"),
        _c("optim.schedule", "cosine", "fast first, careful at the end", "T6"),
        _c("train.batch", 4, "2-4", "T5"),
        _c("train.epochs", 3600, "so that the steps below decide, whatever the set's size", "T5"),
        _c("train.steps", 3600, "above 3,600 steps a style grows consistent", "T5", "T4"),
        *_COMMON,
        _c("loss.min_snr_gamma", 5.0, "nearly clean steps count less", "T6"),
        _c("save.steps", 300, "twelve checkpoints to choose from", "W1", "P1"),
        _c("sample.steps", 300, "watch it while it trains", "W2"),
        _c("dataset.keep_tokens", 1, "the trigger stays in front", "S7"),
        _c("dataset.shuffle", True, "so that no tag's place is learned", "T1"),
    ),
)  # fmt: skip
ADAFACTOR = replace(
    BASELINE.but(
        _c("optim.name", "adafactor", "hardly any memory of its own", "T3", "T5"),
        _c("optim.lr", 5e-4, "as given; other tools would throw it away unless told not to", "T3"),
    ),
    name="adafactor", title="Adafactor at 5e-4", evidence=("T3", "T5"),
)  # fmt: skip
CAME_LOCON = Method("came-locon-style", "CAME and LoCon for a style of 100-150 pictures", ("T6", "T9"), _CAME_STYLE)
_DORA = (
    _c("adapter.kind", "lora", "with convolutions and, below, DoRA", "T6"),
    _c("adapter.dora", True, "what the guide meant; never really tried there", "T6", "W7"),
)
CAME_DORA = replace(
    CAME_LOCON.but(*_DORA), name="came-dora-style", title="CAME and DoRA for a style", evidence=("T6", "W7")
)
_630_STEPS = (
    _c("train.epochs", 630, "so that the steps below decide, whatever the set's size", "T9"),
    _c("train.steps", 630, "as long as 125 pictures took in 10 epochs of 2 repeats, which worked", "T9"),
    _c("save.steps", 63, "ten checkpoints to choose from", "W1", "P1"),
    _c("sample.steps", 63, "watch it while it trains", "W2"),
)
CAME_LOCON_630 = replace(
    CAME_LOCON.but(*_630_STEPS).without("save.epochs", "sample.epochs"),
    name="came-locon-style-630", title="CAME and LoCon for a style, 630 steps on a set of any size",
    evidence=("T9", "T6"),
)  # fmt: skip
CAME_DORA_630 = replace(
    CAME_LOCON_630.but(*_DORA),
    name="came-dora-style-630", title="CAME and DoRA for a style, 630 steps on a set of any size",
    evidence=("T9", "T6", "W7"),
)  # fmt: skip
CAME_SMALL = replace(
    CAME_LOCON.but(
        _c("optim.lr", 1e-4, "1e-4 or more: 6e-5 on 73 pictures was weak", "T8", "T12"),
        _c("train.epochs", 20, "of 2 repeats: 73 pictures make 740 steps, as in the guide but at a higher rate", "T8"),
        _c("save.epochs", 2, "ten checkpoints to choose from", "W1", "P1"),
        _c("sample.epochs", 2, "watch it while it trains", "W2"),
    ),
    name="came-style-small", title="CAME for a style of 50-100 pictures that the base half knows",
    evidence=("T8", "T6"),
)  # fmt: skip
CAME_CHARACTER = replace(
    CAME_LOCON.but(
        _c("adapter.kind", "lora", "a character needs no convolutions", "T7"),
        _c("adapter.rank", 8, "ideal for a character below 50 pictures", "T7"),
        _c("adapter.alpha", 4.0, "half the rank, which halves the rate", "T7", "M1"),
        _c("adapter.conv_rank", 0, "the guide's 8/4 has none", "T7"),
        _c("optim.name", "came", "perfect on 14 pictures", "T7"),
        _c("optim.lr", 6e-5, "a character wants a lower rate than a style", "T7", "T12"),
        _c("optim.text_lr", 1.2e-5, "a fifth of the UNet's, as in the guide's baseline", "T5"),
        _c("train.batch", 2, "2-4", "T5"),
        _c("train.epochs", 48, "14 pictures make the guide's 336 steps", "T7"),
        _c("save.epochs", 4, "twelve checkpoints to choose from", "W1", "P1"),
        _c("sample.epochs", 4, "watch it while it trains", "W2"),
        _c("dataset.repeats", 1, "the epochs say how often", "T7"),
    ).without("adapter.conv_alpha"),
    name="came-character", title="CAME for a character below 50 pictures", evidence=("T7",),
)  # fmt: skip
ADAMW_LARGE = replace(
    CAME_LOCON.but(
        _c("adapter.kind", "lora", "what reached B+ on 282 pictures", "T10"),
        _c("adapter.conv_rank", 0, "the guide's run had none", "T10"),
        _c("optim.name", "adamw", "CAME is too cautious above 200 pictures", "T10"),
        _c("optim.lr", 5e-4, "5e-4 or more", "T10"),
        _c("optim.options", {"weight_decay": 0.01}, "AdamW's own", "T10"),
        _c("train.epochs", 20, "of 2 repeats: at 10 still improving; 282 pictures make 2,820 steps", "T10", "T4"),
        _c("save.epochs", 2, "ten checkpoints to choose from", "W1", "P1"),
        _c("sample.epochs", 2, "watch it while it trains", "W2"),
    ).without("adapter.conv_alpha"),
    name="adamw-style-large", title="AdamW at 5e-4 for a style above 200 pictures", evidence=("T10", "T4"),
)  # fmt: skip
STARTER = Method(
    "starter", "For the tiny base that ships with Kiln", ("K1",),
    (
        _c("adapter.rank", 16, "enough for a style", "T6"),
        _c("adapter.alpha", 16.0, "a scale of one", "M1"),
        _c("adapter.conv_rank", 16, "a style lives in textures too", "T6"),
        _c("adapter.conv_alpha", 16.0, "as for the linear layers", "M1"),
        _c("optim.lr", 2e-3, "the starter is tiny and takes ten times SDXL's rate", "K1"),
        _c("optim.text_lr", 1e-3, "half of it: the encoders are small too, and the trigger word is new to them", "K1"),
        _c("optim.schedule", "cosine", "fast first, careful at the end", "T6"),
        _c("optim.warmup", 0.05, "a gentle start for so high a rate", "K1"),
        _c("train.epochs", 40, "360 steps for 40 pictures, a tenth held out", "K1"),
        _c("train.batch", 4, "2-4", "T5"),
        _c("loss.debiased", True, "counts noisy steps more, where it is decided how things are drawn", "K1"),
        _c("save.epochs", 10, "four checkpoints to choose from", "W1"),
        _c("sample.epochs", 10, "watch it while it trains", "W2"),
        _c("dataset.bucket_step", 16, "the starter draws at 128 pixels, where 64 would be half a side", "K1", "S8"),
        _c("dataset.keep_tokens", 1, "the trigger stays in front", "S7"),
        _c("dataset.shuffle", True, "so that no tag's place is learned", "T1"),
    ),
)  # fmt: skip

METHODS = {
    method.name: method
    for method in (
        PRODIGY_FAST, PRODIGY_RICH, PRODIGY_LONG, ADAFACTOR, BASELINE, CAME_CHARACTER, CAME_SMALL, CAME_LOCON,
        CAME_DORA, CAME_LOCON_630, CAME_DORA_630, ADAMW_LARGE, STARTER,
    )
}  # fmt: skip


def tables(choices: Sequence[Choice]) -> dict[str, Any]:
    """A recipe's tables from choices; "dataset.x" goes into its one [[dataset]]."""
    table: dict[str, Any] = {}
    for one in choices:
        section, _, key = one.setting.rpartition(".")
        place = table
        if section == "dataset":
            place = table.setdefault("dataset", [{}])[0]
        elif section:
            place = table.setdefault(section, {})
        place[key] = one.value
    return table


def named(name: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of that name with `section.key=value` changes laid over it, e.g. base and dataset.0.folder.

    Raises UserError for an unknown name, a bad change, and while base or folder are not given.
    """
    if name not in METHODS:
        raise UserError(f"--recipe {name}: no such recipe{nearest(name, METHODS)}")
    table = tables(METHODS[name].choices)
    table["base"] = UNSET
    table["dataset"][0]["folder"] = UNSET
    table["name"] = name
    for change in changes:
        apply_change(table, change)
    needed = {"base": (table["base"], "pony.safetensors"),
              "dataset.0.folder": (table["dataset"][0]["folder"], "my-pictures")}  # fmt: skip
    missing = {key: example for key, (value, example) in needed.items() if value == UNSET}
    if missing:
        what = " and ".join(f"--set {key}=..." for key in missing)
        example = " ".join(f"--set {key}={value}" for key, value in missing.items())
        raise UserError(f"--recipe {name} says how to train, not on what: add {what}, for example {example}")
    return parse(table, f"recipe {name}")
