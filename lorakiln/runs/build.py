"""From a recipe to the objects of a run: the only place that reads settings and makes parts of them."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import read
from lorakiln.adapters.inject import inject
from lorakiln.adapters.network import Network
from lorakiln.adapters.spec import AdapterSpec, RankRule, make_spec, matches
from lorakiln.base import images, settings
from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.base.settings import Recipe
from lorakiln.data.buckets import Buckets
from lorakiln.data.cache import LatentCache
from lorakiln.data.dataset import Dataset, DatasetSpec
from lorakiln.data.loader import Batching, Loader
from lorakiln.diffusion.objective import LossOptions, NoiseOptions, Objective
from lorakiln.families.family import Family, TextStates
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from lorakiln.optim.rounding import Rounded
from lorakiln.optim.schedules import schedules
from lorakiln.runs import judging
from lorakiln.runs.machine import World, choose_device, join_world, load_base
from lorakiln.runs.parts import Parts
from lorakiln.runs.picture_notes import picture_notes
from lorakiln.runs.pictures import read_pictures
from lorakiln.runs.reporter import Stages
from lorakiln.runs.samples import requests
from lorakiln.runs.text import FrozenText, live
from lorakiln.tag import captions
from lorakiln.train.learner import Learner
from lorakiln.train.plan import Plan
from lorakiln.train.scale import LossScale
from lorakiln.train.step import Step

PART_NAMES = {"unet": "UNet", "te1": "text encoder 1", "te2": "text encoder 2"}


def build(recipe: Recipe, stages: Stages) -> Parts:
    """Load, scan and check everything; UserError for the first thing that cannot work."""
    device = choose_device(recipe.device)
    world = join_world(device)
    rates = learning_rates(recipe)
    with stages.stage("load base"):
        family = load_family(recipe, device)
    with stages.stage("scan pictures"):
        dataset, heldout = read_pictures(recipe, [dataset_spec(table, family.resolution) for table in recipe.dataset])
    judging.check(recipe.judge, heldout)
    network = make_network(recipe, family, rates)
    for note in (*family.notes, *network.notes, *idle_widths(recipe.adapter)):
        stages.reporter.note(note)
    for path in dataset.ignored:
        stages.reporter.note(f"{path}: neither a picture that can be read nor a caption; left out")
    if heldout:
        names = ", ".join(example.name for example in heldout)
        stages.reporter.note(f"held out of training, to judge by: {len(heldout)} pictures ({names})")
    frozen = [PART_NAMES[part] for part in PART_NAMES if part not in rates]
    if frozen:
        stages.reporter.note(f"frozen (learning rate 0): {', '.join(frozen)}")
    loader = make_loader(recipe, family, dataset, world)
    for note in picture_notes(dataset, loader.masks):
        stages.reporter.note(note)
    plan = Plan(loader, recipe.train.epochs, recipe.train.steps)
    learner = make_learner(recipe, family, network, rates, plan.steps)
    text = None
    encode: Callable[[Sequence[str]], TextStates] = partial(live, family)
    if not {"te1", "te2"} & rates.keys():
        text = encode = FrozenText(family, cached=recipe.cache.text == "memory", megabytes=recipe.cache.text_megabytes)
    step = Step(family, objective(recipe.loss, family), encode, recipe.seed)
    wanted = requests(recipe.sample, family)
    return Parts(world, family, dataset, loader, plan, network, learner, step, text, wanted, heldout)


def load_family(recipe: Recipe, device: torch.device) -> Family:
    """The frozen base as the recipe wants it."""
    if recipe.train.deterministic:  # else cuBLAS refuses; it is read when the first product is taken
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.train.deterministic)
    family = load_base(
        recipe.base,
        device,
        recipe.train.precision,
        vae=recipe.vae,
        prediction=recipe.prediction,
        ztsnr=recipe.ztsnr,
    )
    if recipe.train.checkpointing:
        family.enable_checkpointing()
    return family


def learning_rates(recipe: Recipe) -> dict[str, float]:
    """Part -> learning rate, for the parts that are trained."""
    optim = recipe.optim
    rates = {"unet": optim.lr, "te1": optim.text_lr, "te2": optim.second_text_lr}
    trained = {part: rate for part, rate in rates.items() if rate > 0}
    if not trained:
        raise UserError("optim.lr = 0, optim.text_lr = 0: nothing would be trained; give one of them a learning rate")
    return trained


def adapter_spec(adapter: settings.Adapter) -> AdapterSpec:
    """The adapter's options; one that its kind does not have is refused unless it is left at its default."""
    rules = tuple(RankRule(rule.pattern, rule.rank, rule.alpha) for rule in adapter.ranks)
    lists = {"targets": tuple(adapter.targets), "exclude": tuple(adapter.exclude), "ranks": rules}
    changed = adapter.model_dump(exclude={"kind", *lists}, exclude_defaults=True)
    sizes = {"rank": adapter.rank, "alpha": adapter.alpha}
    return make_spec(adapter.kind, sizes | changed | {name: value for name, value in lists.items() if value})


def idle_widths(adapter: settings.Adapter) -> list[str]:
    """A note on widths that were given to a LoKr without any."""
    if not adapter.full_matrix:
        return []
    given = adapter.model_dump(exclude_defaults=True)
    idle = [name for name in ("rank", "alpha", "conv_alpha", "rank_stabilised") if name in given]
    return [f"adapter.{name}: has no effect with full_matrix = true, whose scale is one" for name in idle]


def make_network(recipe: Recipe, family: Family, rates: dict[str, float]) -> Network:
    """The adapter inside the base, fresh or continued from `init`."""
    spec = adapter_spec(recipe.adapter)
    names = {part: family.module_names(part, conv=spec.conv_rank > 0 or bool(spec.targets)) for part in rates}
    network = inject({part: family.parts[part] for part in rates}, names, spec, recipe.seed)
    if recipe.init:
        layers = {part: family.module_names(part, conv=True) for part in family.parts}
        tensors = to_kohya(read(Path(recipe.init)), layers)
        try:
            network.load_state_dict(tensors)
        except UserError as error:
            raise UserError(f"init = '{recipe.init}': {error}") from None
    return network


def dataset_spec(table: settings.Dataset, resolution: int) -> DatasetSpec:
    """One [[dataset]] table as the value that `data` reads."""
    side = table.resolution or resolution
    rules = captions.CaptionRules(
        **{name: getattr(table, name) for name in captions.CaptionRules.__dataclass_fields__ if name != "separator"}
    )
    plain = captions.CaptionRules(prefix=table.prefix, suffix=table.suffix, wildcards=table.wildcards)
    return DatasetSpec(
        folder=Path(table.folder),
        repeats=table.repeats,
        folder_names=table.folder_names,
        buckets=Buckets(
            Size(side, side), table.bucket_step, table.bucket_min, table.bucket_max, table.no_upscale, table.bucket
        ),
        read_caption=captions.reader(table.extensions),
        draw=captions.drawer(rules),
        plain=captions.drawer(plain),
        missing=table.missing,
        flip=table.flip,
        random_crop=table.random_crop,
        weight=table.weight,
        masks=Path(table.masks) if table.masks not in ("", "alpha") else table.masks,
        background=images.parse_colour(table.background),
    )


def make_loader(recipe: Recipe, family: Family, dataset: Dataset, world: World) -> Loader:
    """The latent cache and the batches drawn from it."""
    folder = Path(recipe.cache.folder or Path(recipe.runs) / ".cache")

    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = family.encode_pixels(pixels)
        return posterior.mean_BCHW, posterior.logvar_BCHW

    where = folder if recipe.cache.latents == "disk" else recipe.cache.latents
    cache = LatentCache(where, encode, vae=family.digest("vae"))
    train = recipe.train
    return Loader(dataset, cache, Batching(recipe.seed, train.batch, train.accumulate, world.rank, world.size))


def objective(loss: settings.Loss, family: Family) -> Objective:
    """What is asked of the model."""
    return Objective(
        family.schedule,
        min_timestep=loss.min_timestep,
        max_timestep=min(loss.max_timestep, family.schedule.num_timesteps),
        timesteps=loss.timesteps,
        noise=NoiseOptions(
            offset=loss.noise_offset,
            multires_levels=loss.multires_levels,
            multires_discount=loss.multires_discount,
            input_perturbation=loss.input_perturbation,
        ),
        loss=LossOptions(
            kind=loss.kind,
            huber_schedule=loss.huber_schedule,
            huber_c=loss.huber_c,
            min_snr_gamma=loss.min_snr_gamma,
            debiased=loss.debiased,
        ),
    )


def make_learner(recipe: Recipe, family: Family, network: Network, rates: dict[str, float], steps: int) -> Learner:
    """Optimizer and schedule around the network's parameters."""
    optim = recipe.optim
    groups, group_rates = rate_groups(optim, network, rates)
    flat = FlatParameters(groups)
    optimizer = optimizers[optim.name](flat, **optim.options)
    if recipe.train.adapter_precision == "bf16":
        optimizer = Rounded(optimizer, flat, recipe.seed)
    factor = partial(schedules[optim.schedule], total=steps, warmup=optim.warmup, **optim.schedule_options)

    def rates_at(step: int) -> dict[str, float]:
        return {name: rate * factor(step - 1) for name, rate in group_rates.items()}

    optimizer.set_lr(rates_at(1))  # refuses bad options now rather than at the first step
    scale = LossScale() if family.dtype == torch.float16 else None
    return Learner(network, flat, optimizer, rates_at, optim.clip, scale)


def rate_groups(
    optim: settings.Optim, network: Network, rates: dict[str, float]
) -> tuple[dict[str, list[torch.nn.Parameter]], dict[str, float]]:
    """(group -> parameters, group -> learning rate): one group a part, and one more for each other rate in it.

    Raises UserError for a rule whose pattern no trained layer matches.
    """
    for rule in optim.rates:
        if not any(matches(trained.module, trained.path, (rule.pattern,)) for trained in network.trained()):
            raise UserError(f"optim.rates: the pattern '{rule.pattern}' matches no trained layer of {', '.join(rates)}")
    groups: dict[str, list[torch.nn.Parameter]] = {}
    group_rates: dict[str, float] = {}
    for trained in network.trained():
        rules = [rule.factor for rule in optim.rates if matches(trained.module, trained.path, (rule.pattern,))]
        factor = (rules[-1] if rules else 1.0) * (optim.loraplus if trained.fast else 1.0)
        name = trained.part if factor == 1 else f"{trained.part} x{factor:g}"
        groups.setdefault(name, []).append(trained.parameter)
        group_rates[name] = rates[trained.part] * factor
    return groups, group_rates
