"""A recipe for these pictures, this purpose and this base, every value with its reason and its evidence."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import tomlkit

from lorakiln.advise.base_model import BaseFacts
from lorakiln.advise.evidence import cite
from lorakiln.advise.methods import METHODS, Choice, Method, tables
from lorakiln.advise.pictures import HELD_SHARE, HOLDABLE, Pictures, kind_of, trigger_place
from lorakiln.advise.prompts import sample_prompts
from lorakiln.base.recipe import parse
from lorakiln.base.settings import Recipe

Purpose = Literal["character", "style", "concept"]
Novelty = Literal["familiar", "novel", ""]
MOST_STEPS, FEWEST_STEPS = 8160, 336  # T4's longest and T7's shortest run
SMALL_SHARE = 0.2  # of pictures below the base's resolution, from which buckets stop enlarging
WIDTH = 78


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `novelty` "" means that nobody has tried; `trigger` "" means: as the captions have it.

    `own` are sentences from the user's ledger, which come before everything else.
    """

    folder: str
    base: BaseFacts
    purpose: Purpose
    pictures: Pictures
    novelty: Novelty = ""
    trigger: str = ""
    vram: float = 0.0  # GiB; 0: not known
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """A recipe's settings in order, each with its reason, and what is to be said about the whole."""

    method: str
    title: str
    notes: tuple[str, ...]
    choices: tuple[Choice, ...]

    def recipe(self) -> Recipe:
        return parse(tables(self.choices), f"advice {self.method}")

    def toml(self) -> str:
        """The recipe as a file: a comment above each value says why, with the rows that say so."""
        document = tomlkit.document()
        for note in (self.title, *self.notes):
            _comment(document, note)
        document.add(tomlkit.nl())
        table = tables(self.choices)
        reasons = {one.setting: f"{one.why} {cite(one.evidence)}" for one in self.choices}
        top = {key: value for key, value in table.items() if not isinstance(value, dict | list)}
        _fill(document, top, "", reasons)
        for section, values in table.items():
            if isinstance(values, dict):
                document.add(section, _fill(tomlkit.table(), values, section, reasons))
        datasets = tomlkit.aot()
        for values in table["dataset"]:
            datasets.append(_fill(tomlkit.table(), values, "dataset", reasons))
        document.add("dataset", datasets)
        return tomlkit.dumps(document)


def _comment(table: Any, text: str) -> None:
    for line in textwrap.wrap(text, WIDTH):
        table.add(tomlkit.comment(line))


def _fill(table: Any, values: dict[str, Any], section: str, reasons: dict[str, str]) -> Any:
    for key, value in values.items():
        _comment(table, reasons[f"{section}.{key}".lstrip(".")])
        item = tomlkit.item(value)
        if isinstance(value, dict):
            item = tomlkit.inline_table()
            item.update(value)
        elif isinstance(value, list) and value and isinstance(value[0], str):
            item = tomlkit.array()
            item.extend(value)
            item.multiline(True)
        table.add(key, item)
    return table


def advise(wish: Wish) -> list[Advice]:
    """The advised recipe first, then the one or two that are worth comparing with it."""
    return [_fitted(method, notes, wish) for method, notes in chosen(wish)]


def chosen(wish: Wish) -> list[tuple[Method, tuple[str, ...]]]:
    """The methods for a purpose and a number of pictures, best first, with what is to be said about the choice."""
    if wish.base.profile and wish.base.profile.name.startswith("starter"):
        return [(METHODS["starter"], ("The base is Kiln's own tiny one: settings for SDXL would learn nothing. [K1]",))]
    names = _style(wish) if wish.purpose == "style" else _character(wish)
    return [(METHODS[name], notes) for name, notes in names]


def _character(wish: Wish) -> list[tuple[str, tuple[str, ...]]]:
    count = wish.pictures.count
    what = "a character" if wish.purpose == "character" else "a concept"
    if count < 50:
        first = "came-character", (f"{count} pictures of {what}: CAME at 6e-5 is the guide's ideal below 50. [T7]",)
        if wish.purpose == "concept":
            first = first[0], (*first[1], "The guides speak of characters; a concept is taken as one. [T7]")
        return [first, ("prodigy-fast", ("The other way: Prodigy, which finds its own rate. [T1]",))]
    near = f"No row speaks of {what} with {count} pictures"
    if count <= 200:
        return [
            ("prodigy-fast", (f"{near}; Prodigy finds its own rate, so it is followed. [T1, M5]",)),
            ("prodigy-rich", ("Rank 32 for more detail. [T2]",)),
        ]
    return [
        ("prodigy-rich", (f"{near}; CAME grows too cautious above 200, so Prodigy at rank 32. [T10, T2, T4]",)),
        ("adamw-style-large", ("AdamW at 5e-4, as for a large style. [T10]",)),
    ]


def _style(wish: Wish) -> list[tuple[str, tuple[str, ...]]]:
    count, novel = wish.pictures.count, wish.novelty == "novel"
    steps = "The guides disagree on length: T9's 630 steps worked, T4 says 2,560 and T5 3,600 or more. "
    if count > 200:
        note = f"{count} pictures of a style: CAME failed above 200 and AdamW at 5e-4 did not. [T10]"
        return [("adamw-style-large", (note,)), ("prodigy-rich", ("Prodigy at rank 32. [T2, T4]",))]
    longer = "adamw8bit-baseline", ("Longer and at a higher rate, the guide's everyday settings. [T5]",)
    dora = "came-dora-style", ("The guide's DoRA, for once really decomposed. [T6, W7]",)
    if count >= 100:
        note = f"{count} pictures of a style: CAME works at 1e-4; with LoCon, as the guide's DoRA really was. [T9, T6]"
        if count > 150:
            note += " Between 150 and 200 no row speaks; T9 is the nearest."
        return [("came-locon-style", (note, steps + "T9 is followed: it was seen on a set like this.")), dora, longer]
    weak = f"{count} pictures of a style: CAME was weak here, so 1e-4 and not less. [T8]"
    if count < 50:
        weak = f"{count} pictures are few for a style (50-100 are usual): T8's settings are the nearest. [S1, T8]"
    if novel:
        note = "The base does not know this style; CAME leans on what it knows, so AdamW comes first. [T8, T12, T10]"
        return [("adamw8bit-baseline", (weak, note)), ("came-style-small", ("CAME, if you want to see. [T8]",))]
    note = (
        "It knows something like it, which is what helps here. [T8, B5]"
        if wish.novelty
        else ("Whether the base knows the style decides much here: try `kiln probe`. [T8, B5]")
    )
    return [("came-style-small", (weak, note)), longer, dora]


def _fitted(method: Method, notes: tuple[str, ...], wish: Wish) -> Advice:
    """The method with what these pictures, this base and this card change, and the rest of a whole recipe."""
    fitted = method.but(*_from_base(wish, method))
    if wish.pictures.count >= HOLDABLE:
        why = "kept from training, so that 'kiln judge' can tell learning from memorising"
        fitted = fitted.but(Choice("dataset.heldout", HELD_SHARE, why, ("W1",)))
        wish = replace(wish, pictures=wish.pictures.holding_out(HELD_SHARE))
    fitted = fitted.but(*_from_pictures(wish, fitted))
    fitted = fitted.but(*_from_card(wish, fitted))
    fitted = fitted.but(*_length(wish, fitted))
    steps = wish.pictures.steps_per_epoch(fitted.value("train.batch"))
    told = tables(fitted.choices)
    total = told["train"].get("steps") or told["train"]["epochs"] * steps
    whole = f"{wish.pictures.count} pictures, {steps} steps an epoch, {total:,} steps in all."
    first = Choice(
        "base", wish.base.base, wish.base.profile.title if wish.base.profile else "no profile known", ("B5",)
    )
    folder = Choice("dataset.folder", wish.folder, "your pictures", ("S3",))
    prompts = _prompts(wish)
    row = "T8" if wish.purpose == "style" else "T7"
    purpose = Choice("purpose", wish.purpose, "what worked differs by it; `kiln check` and your ledger ask it", (row,))
    choices = in_order((first, purpose, folder, *fitted.choices, *prompts))
    return Advice(method.name, f"{method.title}.", (*wish.own, *notes, whole), choices)


def in_order(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """The choices by section, as a recipe has them."""
    order = ["", "adapter", "optim", "train", "loss", "save", "sample", "dataset"]
    return tuple(sorted(choices, key=lambda one: order.index(one.setting.rpartition(".")[0])))


def _from_base(wish: Wish, method: Method) -> Iterable[Choice]:
    if wish.base.zero_snr and method.value("loss.min_snr_gamma"):
        yield Choice("loss.min_snr_gamma", 0.0, "off: this base's last step would weigh nothing", ("M2",))
    if method.name == "starter" and wish.base.zero_snr:
        yield Choice("sample.rescale", 0.7, "for a zero-terminal-SNR base", ("B3",))


def _from_pictures(wish: Wish, method: Method) -> Iterable[Choice]:
    texts, count = wish.pictures.written(), wish.pictures.count
    kind, place = kind_of(texts), trigger_place(texts)
    repeats = method.value("dataset.repeats") or 1
    fixed = {one.visits for one in wish.pictures.shown} - {0, 1}
    if fixed and repeats != 1:
        yield Choice("dataset.repeats", 1, "your folders' names already say how often", ("T6",))
    if kind in ("prose", "none"):
        what = "sentences" if kind == "prose" else "no captions"
        yield Choice("dataset.shuffle", False, f"{what}: there are no tags to shuffle", ("S5", "S7"))
        yield Choice("dataset.keep_tokens", 0, "only shuffled tags need keeping", ("S7",))
    elif wish.trigger and not (place and place[0] == wish.trigger):
        yield Choice("dataset.keep_tokens", 0, "the trigger below stands outside the tags", ("S7",))
    elif place:
        why = f"'{place[0]}' is in nearly all captions, as tag {place[1] + 1} at most"
        yield Choice("dataset.keep_tokens", place[1] + 1, why, ("S7", "T6"))
    if wish.trigger and not (place and place[0] == wish.trigger):
        yield Choice("dataset.prefix", wish.trigger, "the trigger word, put before every caption", ("S5",))
    bare = sum(one.caption is None for one in wish.pictures.shown)
    if bare and not any(one.trigger for one in wish.pictures.shown):
        yield Choice("dataset.missing", "empty", f"{bare} of {count} pictures have no caption; write some", ("S5",))
    low = wish.base.resolution
    small = sum(one.size.width * one.size.height < low * low for one in wish.pictures.shown)
    if small > SMALL_SHARE * count:
        why = f"{small} of {count} pictures are smaller than {low}x{low}: train them as they are rather than blurred"
        yield Choice("dataset.no_upscale", True, why, ("S2",))
    if not method.value("dataset.bucket_step"):
        yield Choice(
            "dataset.bucket_step", 64, "not the report's 256, which cuts up to a quarter of a picture off", ("S8",)
        )


def _from_card(wish: Wish, method: Method) -> Iterable[Choice]:
    """Fewer pictures a batch where the card is small; no checkpointing where it is large enough without."""
    from lorakiln.advise.estimate import memory

    if not wish.vram or not wish.base.unet:
        return
    told = tables((*method.choices, Choice("base", "x", "", ()), Choice("dataset.folder", "x", "", ())))
    recipe = parse(told, method.name)
    for batch in range(recipe.train.batch, 0, -1):
        for checkpointing in (False, True):
            train = recipe.train.model_copy(update={"batch": batch, "checkpointing": checkpointing})
            need = memory(recipe.model_copy(update={"train": train}), wish.base).total
            if need <= 0.95 * wish.vram:
                why = f"{need:.1f} of your {wish.vram:g} GiB at batch {batch}"
                yield Choice("train.batch", batch, why, ("T13", "C1"))
                yield Choice("train.checkpointing", checkpointing, why, ("C1", "C2"))
                return
    yield Choice("train.batch", 1, f"the smallest; {wish.vram:g} GiB may not do", ("T13", "C1"))


def _length(wish: Wish, method: Method) -> Iterable[Choice]:
    """Epochs, where the set is so small or large that the method's own would leave what the guides have tried."""
    epochs, batch = method.value("train.epochs"), method.value("train.batch")
    if method.value("train.steps") or method.name == "starter":
        return
    steps = wish.pictures.steps_per_epoch(batch) * (method.value("dataset.repeats") or 1)
    new = epochs
    if epochs * steps < FEWEST_STEPS:
        new = -(-FEWEST_STEPS // steps)
        yield Choice("train.epochs", new, f"so that it comes to {FEWEST_STEPS} steps, the fewest seen to work", ("T7",))
    elif epochs * steps > MOST_STEPS:
        new = max(6, MOST_STEPS // steps)
        why = f"{new * steps:,} steps; more than {MOST_STEPS:,} nobody reports" + (
            "" if new > 6 else ", but 6 epochs at least"
        )
        yield Choice("train.epochs", new, why, ("T4",))
    if new != epochs:
        every = max(1, round(new / 10))
        yield Choice("save.epochs", every, "about ten checkpoints to choose from", ("W1", "P1"))
        yield Choice("sample.epochs", every, "watch it while it trains", ("W2",))


def _prompts(wish: Wish) -> Iterable[Choice]:
    profile = wish.base.profile
    style = wish.purpose == "style" and profile
    why = "from your captions" + (", and things the base knows anyway" if style else "") + "; in this base's own words"
    prompts = sample_prompts(wish.pictures, profile, wish.trigger, wish.purpose)
    yield Choice("sample.prompts", prompts, why, ("W2", "B1" if profile else "B5"))
    if profile:
        rows = profile.evidence
        yield Choice("sample.sampler", profile.sampler, f"usual for {profile.title}", rows)
        yield Choice("sample.cfg", profile.cfg, f"usual for {profile.title}", rows)
        if profile.negative:
            yield Choice(
                "sample.negative", profile.negative, "keeps the base's habits out of what you judge", ("B6", *rows)
            )
        if profile.rescale:
            yield Choice("sample.rescale", profile.rescale, "for a zero-terminal-SNR base", rows)


def explained(advice: Advice) -> list[dict[str, Any]]:
    """Each setting with value, reason and evidence, for programs."""
    return [
        {"setting": one.setting, "value": one.value, "why": one.why, "evidence": list(one.evidence)}
        for one in advice.choices
    ]


__all__ = ["Advice", "Wish", "advise", "chosen", "explained", "replace"]
