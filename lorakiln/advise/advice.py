"""A recipe for these pictures, this purpose and this base, every value with its reason and its evidence."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import tomlkit

from lorakiln.advise import length
from lorakiln.advise.base_model import BaseFacts
from lorakiln.advise.cards import CPU, Card
from lorakiln.advise.estimate import Time, duration, memory
from lorakiln.advise.evidence import cite
from lorakiln.advise.measured import refined
from lorakiln.advise.methods import METHODS, Choice, Method, tables
from lorakiln.advise.novelty import UNKNOWN, Novelty
from lorakiln.advise.pictures import HELD_SHARE, HOLDABLE, Pictures, kind_of, trigger_place
from lorakiln.advise.profiles import PROFILES
from lorakiln.advise.prompts import sample_prompts
from lorakiln.base.ledger import Entry
from lorakiln.base.recipe import parse
from lorakiln.base.records import Size
from lorakiln.base.settings import Recipe
from lorakiln.data.buckets import Buckets

Purpose = Literal["character", "style", "concept"]
SMALL_SHARE = 0.2  # of pictures below the base's resolution, from which buckets stop enlarging
FEW, FEW_RANK = 50, 16  # below so many pictures no higher rank
STEP = 64  # of buckets
WIDTH = 78


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, and with what.

    `trigger` "" means: as the captions have it. `own` are sentences from the user's ledger, which come before
    everything else; `runs` its entries. `eight_bit`: bitsandbytes is installed. `seconds` is the most that the run may
    take; 0: no limit. `card` None: this machine's CPU, or not known.
    """

    folder: str
    base: BaseFacts
    purpose: Purpose
    pictures: Pictures
    novelty: Novelty = UNKNOWN
    trigger: str = ""
    vram: float = 0.0  # GiB; 0: not known
    own: tuple[str, ...] = ()
    bf16: bool = True
    eight_bit: bool = True
    card: Card | None = None
    runs: tuple[Entry, ...] = ()
    seconds: float = 0.0


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
    if _tiny(wish):
        return [(METHODS["starter"], ("The base is Kiln's own tiny one: settings for SDXL would learn nothing. [K1]",))]
    names = _style(wish) if wish.purpose == "style" else _character(wish)
    return [(METHODS[name], notes) for name, notes in names]


def _tiny(wish: Wish) -> bool:
    return bool(wish.base.profile and wish.base.profile.name.startswith("starter"))


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
    count, novel = wish.pictures.count, wish.novelty.word == "novel"
    harder = "New to the base, and novel styles are harder: T4's 2,560 steps at least, not T9's 630. [T12, T4]"
    if count > 200:
        note = f"{count} pictures of a style: CAME failed above 200 and AdamW at 5e-4 did not. [T10]"
        notes = (note, harder) if novel else (note,)
        return [("adamw-style-large", notes), ("prodigy-rich", ("Prodigy at rank 32. [T2, T4]",))]
    longer = "adamw8bit-baseline", ("Longer and at a higher rate, the guide's everyday settings. [T5]",)
    dora = "came-dora-style", ("The guide's DoRA, for once really decomposed. [T6, W7]",)
    if count >= 100:
        note = f"{count} pictures of a style: CAME works at 1e-4; with LoCon, as the guide's DoRA really was. [T9, T6]"
        if count > 150:
            note += " Between 150 and 200 no row speaks; T9 is the nearest."
        if novel:
            return [("came-locon-style", (note, harder)), longer, dora]
        steps = "The guides disagree on length: T9's 630 steps worked, T4 says 2,560 and T5 3,600 or more. "
        steps += "T9 is followed: it was seen on a set like this" + (
            ", and the base knows the style. [B5]" if wish.novelty.word else ". [T9]"
        )
        return [("came-locon-style", (note, steps)), dora, longer]
    weak = f"{count} pictures of a style: CAME was weak here, so 1e-4 and not less. [T8]"
    if count < 50:
        weak = f"{count} pictures are few for a style (50-100 are usual): T8's settings are the nearest. [S1, T8]"
    if novel:
        note = "The base does not know this style; CAME leans on what it knows, so AdamW comes first. [T8, T12, T10]"
        return [("adamw8bit-baseline", (weak, note)), ("came-style-small", ("CAME, if you want to see. [T8]",))]
    note = (
        "It knows something like it, which is what helps here. [T8, B5]"
        if wish.novelty.word
        else ("Whether the base knows the style decides much here: try `kiln probe`. [T8, B5]")
    )
    return [("came-style-small", (weak, note)), longer, dora]


def _fitted(method: Method, notes: tuple[str, ...], wish: Wish) -> Advice:
    """The method with what these pictures, this base, card and purse change, and the rest of a whole recipe."""
    fitted = method.but(*_from_base(wish, method))
    fitted = fitted.but(*_from_pictures(wish, fitted))
    fitted = fitted.but(*_prompts(wish), *_around(wish))
    fitted = fitted.but(*_from_machine(wish, fitted))
    fitted = fitted.but(*_from_card(wish, fitted))
    trained = _visited(wish, fitted)
    fitted = fitted.but(*length.tried(fitted, trained, novel=wish.purpose == "style" and wish.novelty.word == "novel"))
    purse = ()
    if wish.seconds:
        fitted = length.affordable(fitted, trained, _time(wish, fitted, trained), wish.seconds)
        purse = (_purse(wish, _time(wish, fitted, trained)),)
    whole = (_whole(wish, fitted, trained), *purse)
    return Advice(method.name, f"{method.title}.", (*wish.own, *notes, *_said(wish), *whole), in_order(fitted.choices))


def _around(wish: Wish) -> Iterable[Choice]:
    """What every recipe has: base, pictures, purpose, and some held out where they can be spared."""
    title = wish.base.profile.title if wish.base.profile else "no profile known"
    row = "T8" if wish.purpose == "style" else "T7"
    yield Choice("base", wish.base.base, title, ("B5",))
    yield Choice("purpose", wish.purpose, "what worked differs by it; `kiln check` and your ledger ask it", (row,))
    yield Choice("dataset.folder", wish.folder, "your pictures", ("S3",))
    if wish.pictures.count >= HOLDABLE:
        why = "kept from training, so that 'kiln judge' can tell learning from memorising"
        yield Choice("dataset.heldout", HELD_SHARE, why, ("W1",))


def _visited(wish: Wish, method: Method) -> Pictures:
    """The pictures as the method visits them: cut to its buckets, repeated, and some held out."""
    side = wish.base.resolution
    no_upscale = bool(method.value("dataset.no_upscale"))
    buckets = Buckets(Size(side, side), method.value("dataset.bucket_step"), no_upscale=no_upscale)
    shown = wish.pictures.cut_to(buckets).repeated(method.value("dataset.repeats") or 1)
    return shown.holding_out(method.value("dataset.heldout") or 0.0)


def _whole(wish: Wish, method: Method, trained: Pictures) -> str:
    steps = trained.steps_per_epoch(method.value("train.batch"))
    about = "" if trained.exact else " (a step or two off until 'kiln curate' has looked at the folder)"
    return (
        f"{wish.pictures.count} pictures, {steps} steps an epoch, {length.steps(method, steps):,} steps in all{about}."
    )


def _time(wish: Wish, method: Method, trained: Pictures) -> Time:
    recipe = parse(tables(method.choices), f"advice {method.name}")
    return refined(duration(recipe, wish.base, trained, wish.card or CPU), recipe, wish.base, wish.runs, wish.card)


def _purse(wish: Wish, time: Time) -> str:
    low, high = (seconds / 60 for seconds in time.whole)
    source = "from runs of yours" if time.measured else "an estimate"
    return f"It takes {low:.0f} to {high:.0f} min of the {wish.seconds / 60:.0f} that it may ({source}). [W6]"


def _said(wish: Wish) -> Iterable[str]:
    """What is known of what was asked, and which of it changes nothing here."""
    word = wish.novelty.word
    if wish.novelty.sentence:
        yield wish.novelty.sentence
    if word and _tiny(wish):
        yield "Whether the base knows it changes no setting here: this base has one way to be trained. [K1]"
    elif word and wish.purpose != "style":
        some = "an early" if word == "familiar" else "a late"
        yield (
            f"It is {word} to the base: expect {some} checkpoint to do. No setting changes, since the rows that ask "
            "for more speak of styles. [B5, T12]"
        )
    place = trigger_place(wish.pictures.written())
    if wish.trigger and place and place[0] == wish.trigger:
        yield f"'{wish.trigger}' stands in the captions already, so naming it changes nothing. [S5]"
    if wish.base.profile is None:
        yield (
            f"Kiln does not know this base, so prompts and prediction are plain. Of which release is it? Say it once: "
            f"--like {'|'.join(name for name in PROFILES if not name.startswith('starter'))}. [B1, B2, B3]"
        )


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
    if count < FEW and method.value("adapter.rank") > FEW_RANK:
        rank, alpha = method.value("adapter.rank"), method.value("adapter.alpha")
        why = f"more invites overfitting below {FEW} pictures"
        yield Choice("adapter.rank", FEW_RANK, why, ("S1", "T1"))
        yield Choice("adapter.alpha", alpha * FEW_RANK / rank, "with it: the same scale", ("M1",))
    bare = sum(one.caption is None for one in wish.pictures.shown)
    if bare and not any(one.trigger for one in wish.pictures.shown):
        yield Choice("dataset.missing", "empty", f"{bare} of {count} pictures have no caption; write some", ("S5",))
    low = wish.base.resolution
    small = sum(one.size.width * one.size.height < low * low for one in wish.pictures.shown)
    step = method.value("dataset.bucket_step") or STEP
    if small > SMALL_SHARE * count and min(min(one.size) for one in wish.pictures.shown) >= step:
        why = f"{small} of {count} pictures are smaller than {low}x{low}: train them as they are rather than blurred"
        yield Choice("dataset.no_upscale", True, why, ("S2",))
    if not method.value("dataset.bucket_step"):
        yield Choice(
            "dataset.bucket_step", STEP, "not the report's 256, which cuts up to a quarter of a picture off", ("S8",)
        )


def _from_machine(wish: Wish, method: Method) -> Iterable[Choice]:
    """What this card and installation do not have, replaced by what is nearest."""
    if method.value("train.precision") == "bf16" and not wish.bf16:
        yield Choice("train.precision", "fp16", "this card has no bf16", ("P2",))
    if method.value("optim.name") == "adamw8bit" and not wish.eight_bit:
        why = "the same rate as adamw8bit, 0.3 GiB more; for that one: pip install bitsandbytes"
        yield Choice("optim.name", "adamw", why, ("T5", "P2"))


def _from_card(wish: Wish, method: Method) -> Iterable[Choice]:
    """Fewer pictures a batch where the card is small; no checkpointing where it is large enough without.

    Where that is not enough the text encoders stay frozen, and then the rank is halved.
    """
    if not wish.vram or not wish.base.unet:
        return
    batch = method.value("train.batch")
    for given in _smaller(method):
        for pictures in range(batch, 0, -1):
            for checkpointing in (False, True):
                fitted = method.but(*given).but(
                    Choice("train.batch", pictures, "", ()), Choice("train.checkpointing", checkpointing, "", ())
                )
                need = memory(parse(tables(fitted.choices), method.name), wish.base).total
                if need <= 0.95 * wish.vram:
                    why = f"{need:.1f} of your {wish.vram:g} GiB at batch {pictures}"
                    yield from given
                    yield Choice("train.batch", pictures, why, ("T13", "C1"))
                    yield Choice("train.checkpointing", checkpointing, why, ("C1", "C2"))
                    return
    yield from given
    yield Choice(
        "train.batch", 1, f"the smallest; it needs {need:.1f} GiB, so {wish.vram:g} will not do", ("T13", "C1")
    )
    yield Choice("train.checkpointing", True, "it would need more without", ("C1", "C2"))


def _smaller(method: Method) -> Iterable[tuple[Choice, ...]]:
    """What may be given up for memory, least first."""
    yield ()
    frozen: tuple[Choice, ...] = ()
    if method.value("optim.text_lr"):
        frozen = (Choice("optim.text_lr", 0.0, "off: with it nothing fits into this card", ("T13", "T6")),)
        yield frozen
    rank, alpha = method.value("adapter.rank"), method.value("adapter.alpha")
    if rank > 8:
        half = Choice("adapter.rank", rank // 2, "halved: with more nothing fits into this card", ("T13",))
        yield (*frozen, half, Choice("adapter.alpha", alpha / 2, "with it: the same scale", ("M1",)))


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


__all__ = ["Advice", "Wish", "advise", "chosen", "explained"]
