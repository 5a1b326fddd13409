"""Rules about settings that change nothing in their recipe, and about those that training would refuse."""

from collections.abc import Callable, Iterator
from typing import Any

from lorakiln.adapters.spec import make_spec
from lorakiln.advise.findings import Case, Said, rule
from lorakiln.advise.pictures import HELD_SHARE
from lorakiln.base.errors import UserError
from lorakiln.base.settings import Adapter, Dataset, Recipe
from lorakiln.base.settings.field import Section

Test = Callable[[Any, Recipe], bool]


def _huber(recipe: Recipe) -> bool:
    return recipe.loss.kind in ("huber", "smooth_l1")


def _frozen_text(recipe: Recipe) -> bool:
    return not (recipe.optim.text_lr or recipe.optim.second_text_lr)


def _prompts(recipe: Recipe) -> bool:
    return bool(recipe.sample.prompts or recipe.sample.file)


# setting -> (when it has no effect, given its table and the recipe; why). It is told where it is not at its default.
IDLE: dict[str, tuple[Test, str]] = {
    "adapter.rank": (lambda own, recipe: own.full_matrix, "full_matrix has no rank"),
    "adapter.alpha": (lambda own, recipe: own.full_matrix, "full_matrix has a scale of one"),
    "adapter.rank_stabilised": (lambda own, recipe: own.full_matrix, "full_matrix has a scale of one"),
    "adapter.conv_alpha": (
        lambda own, recipe: own.full_matrix or not own.conv_rank,
        "there is no conv_rank, or full_matrix has a scale of one",
    ),
    "loss.huber_schedule": (lambda own, recipe: not _huber(recipe), "loss.kind is neither huber nor smooth_l1"),
    "loss.huber_c": (lambda own, recipe: not _huber(recipe), "loss.kind is neither huber nor smooth_l1"),
    "loss.multires_discount": (lambda own, recipe: not own.multires_levels, "multires_levels = 0"),
    "save.keep": (lambda own, recipe: not (own.epochs or own.steps), "nothing is saved but the end"),
    "sample.epochs": (lambda own, recipe: not _prompts(recipe), "there are no prompts"),
    "sample.steps": (lambda own, recipe: not _prompts(recipe), "there are no prompts"),
    "sample.negative": (lambda own, recipe: own.cfg == 1, "cfg = 1 asks for no guidance"),
    "sample.rescale": (lambda own, recipe: own.cfg == 1, "cfg = 1 asks for no guidance"),
    "cache.text": (lambda own, recipe: not _frozen_text(recipe), "trained text encoders are never cached"),
    "cache.text_megabytes": (
        lambda own, recipe: own.text == "off" or not _frozen_text(recipe),
        "no captions are cached",
    ),
    "cache.folder": (lambda own, recipe: own.latents != "disk", "latents are not kept on the disk"),
    "dataset.bucket_min": (lambda own, recipe: not own.bucket or own.no_upscale, "buckets are {buckets}"),
    "dataset.bucket_max": (lambda own, recipe: not own.bucket or own.no_upscale, "buckets are {buckets}"),
    "dataset.bucket_step": (lambda own, recipe: not own.bucket, "buckets are off"),
    "dataset.no_upscale": (lambda own, recipe: not own.bucket, "buckets are off"),
    "dataset.keep_tokens": (
        lambda own, recipe: not (own.shuffle or own.tag_dropout),
        "tags are neither shuffled nor dropped",
    ),
}


@rule("K035", "warning", "settings that have no effect in this recipe", "T3", "T6")
def idle(case: Case) -> Said | None:
    told = [f"{path} = {_shown(value)} ({why})" for path, value, why in _idle(case.recipe)]
    return Said(f"without effect: {', '.join(told)}") if told else None


def _idle(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    for name, (test, why) in IDLE.items():
        section, key = name.split(".")
        for path, table in _tables(recipe, section):
            value = getattr(table, key)
            if value != type(table).model_fields[key].get_default(call_default_factory=True) and test(table, recipe):
                yield f"{path}.{key}", value, why.format(buckets=_buckets(table))


def _tables(recipe: Recipe, section: str) -> list[tuple[str, Section]]:
    if section == "dataset":
        return [(f"dataset.{number}", table) for number, table in enumerate(recipe.dataset)]
    return [(section, getattr(recipe, section))]


def _buckets(table: Any) -> str:
    if not isinstance(table, Dataset):
        return ""
    return "the pictures' own size (no_upscale)" if table.bucket else "off"


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


@rule("K036", "warning", "more steps than the epochs hold", "T4")
def ends_early(case: Case) -> Said | None:
    train = case.recipe.train
    if not case.time or train.steps <= case.steps:
        return None
    per_epoch = case.steps / train.epochs
    enough = -(-train.steps // max(1, round(per_epoch)))
    text = f"train.steps = {train.steps:,}, but the epochs hold {case.steps:,}: the run ends at {case.steps:,}"
    return Said(text, {"train.epochs": enough})


@rule("K037", "error", "a recipe that training would refuse", "W8", "W6")
def refused(case: Case) -> Said | None:
    return next((Said(text, fix) for text, fix in _refusals(case)), None)


def _refusals(case: Case) -> Iterator[tuple[str, dict[str, Any]]]:
    recipe, optim = case.recipe, case.recipe.optim
    rates = {rate for rate in (optim.lr, optim.text_lr, optim.second_text_lr) if rate}
    if not rates:
        yield "optim.lr = 0, optim.text_lr = 0: nothing would be trained", {"optim.lr": 1e-4}
    if optim.name == "prodigy" and len(rates) > 1:
        yield (
            "Prodigy finds one step size, so the UNet and the text encoders need one rate, or 0",
            {"optim.text_lr": optim.lr},
        )
    if optim.name == "prodigy" and (optim.loraplus != 1 or any(one.factor != 1 for one in optim.rates)):
        yield "Prodigy finds one step size, so optim.loraplus and optim.rates would ask for another", {
            "optim.loraplus": 1.0, "optim.rates": [],
        }  # fmt: skip
    if case.time and optim.warmup >= 1 and optim.warmup > case.steps:
        yield f"optim.warmup = {optim.warmup:g} is longer than the run of {case.steps:,} steps", {"optim.warmup": 0.05}
    if recipe.loss.min_timestep >= recipe.loss.max_timestep:
        yield (
            (
                f"loss.min_timestep = {recipe.loss.min_timestep} leaves none below "
                f"loss.max_timestep = {recipe.loss.max_timestep}"
            ),
            {"loss.min_timestep": 0},
        )
    if wrong := _wrong_adapter(recipe.adapter):
        yield wrong, {}
    judge, heldout = recipe.judge, any(table.heldout for table in recipe.dataset)
    if (judge.epochs or judge.steps) and not heldout:
        yield "[judge] measures held-out pictures, and there are none", {"dataset.0.heldout": HELD_SHARE}
    if judge.stop and not (judge.epochs or judge.steps):
        yield f"judge.stop = '{judge.stop}': when to measure is not said", {"judge.epochs": 1}
    for number, table in enumerate(recipe.dataset):
        if table.random_crop and recipe.cache.latents != "off":
            yield f"dataset.{number}.random_crop: a cached picture is always cut the same", {"cache.latents": "off"}


def _wrong_adapter(adapter: Adapter) -> str:
    """What is wrong with the adapter's options for its kind; '' where nothing is."""
    lists = ("targets", "exclude", "ranks")
    changed = adapter.model_dump(exclude={"kind", *lists}, exclude_defaults=True)
    try:
        make_spec(adapter.kind, {"rank": adapter.rank, "alpha": adapter.alpha} | changed)
    except UserError as error:
        return str(error)
    return ""
