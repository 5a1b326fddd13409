"""Memory, time and money of a run before it starts: counted from shapes, and rated cards; an estimate, said as one."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache

from lorakiln.advise import shapes
from lorakiln.advise.base_model import BaseFacts
from lorakiln.advise.cards import Card
from lorakiln.advise.pictures import Pictures
from lorakiln.advise.shapes import Layer, Unit
from lorakiln.base.errors import UserError
from lorakiln.base.settings import Recipe

GIB = 2**30
CONTEXT = 0.6  # GiB of driver context and workspaces, taken as given
# bytes of state for each trained number; CAME's and Adafactor's rows and columns are too few to count
STATE = {"adamw": 8.0, "adamw8bit": 2.1, "prodigy": 16.0, "came": 4.0, "adafactor": 0.0, "lion": 4.0}
# while a unit is recomputed, backward holds its kept values and about as many gradients and copies of inputs
RECOMPUTE = 6.3
LATENT = 8  # pixels a latent, each way
# GiB in fp32: the whole VAE, and encoding or decoding one picture of 1024 pixels
VAE_WEIGHTS, ENCODE_PEAK, DECODE_PEAK = 0.31, 2.5, 3.0
VAE_FLOPS, DECODE_FLOPS, TEXT_FLOPS = 4.88e12, 9.9e12, 0.111e12  # one picture of 1024 pixels, one caption
DRAWN_AT_ONCE = 4  # samples
OVERHEAD = (1.1, 2.2)  # a step takes this many times its arithmetic at the card's rate
PIXELS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB on the card at the fullest moment of training; `caching` and `sampling` are the fullest of those phases.

    Text encoders and VAE stay on the card throughout: samples need them, and captions that are shuffled anew.
    """

    base: float
    text: float
    vae: float
    adapter: float
    optimizer: float
    activations: float
    context: float
    caching: float
    sampling: float

    @property
    def training(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self) if part.name not in PHASES)

    @property
    def total(self) -> float:
        return max(self.training, self.caching, self.sampling)


PHASES = ("caching", "sampling")


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds, from the best to the worst that can be expected of the card.

    `first` is encoding before step 1, `samples` all drawing of samples. `measured` is how many remembered runs the
    step's time was taken from; 0: calculated.
    """

    step: tuple[float, float]
    first: tuple[float, float]
    steps: int
    samples: tuple[float, float] = (0.0, 0.0)
    measured: int = 0

    @property
    def whole(self) -> tuple[float, float]:
        low, high = (
            first + self.steps * step + samples
            for first, step, samples in zip(self.first, self.step, self.samples, strict=True)
        )
        return low, high


def memory(recipe: Recipe, base: BaseFacts, size: tuple[int, int] | None = None) -> Memory:
    """GiB that training takes at `size` pixels (None: the largest bucket's area as a square)."""
    width = 4 if precision(recipe) == "fp32" else 2
    units = units_of(recipe, base, size)
    numbers = sum(adapter_weights(recipe, layer) for layer in adapted(recipe, base, units))
    config = base.unet or {}
    weights = (shapes.unet_weights(config) + shapes.transformer_norms(config)) * width / GIB
    text = sum(shapes.text_weights(one) for one in base.text) * width / GIB
    trains_text = bool(recipe.optim.text_lr or recipe.optim.second_text_lr)
    values = _activations(units, recipe) + (_text_activations(base) if trains_text else 0)
    activations = recipe.train.batch * values * width / GIB
    adapter, optimizer = 8 * numbers / GIB, state_bytes(recipe) * numbers / GIB
    resident = weights + text + VAE_WEIGHTS + adapter + CONTEXT
    encoding = resident + ENCODE_PEAK * _pixels(recipe, base, size) / PIXELS
    if recipe.cache.latents == "off":  # then pictures are encoded between steps, beside the optimizer's state
        encoding += optimizer
    sampling = resident + optimizer + _drawing(recipe, base, width) if drawn(recipe) else 0.0
    return Memory(weights, text, VAE_WEIGHTS, adapter, optimizer, activations, CONTEXT, encoding, sampling)


def _drawing(recipe: Recipe, base: BaseFacts, width: int) -> float:
    """GiB beyond the weights while samples are drawn: the UNet's fullest block, then the VAE's on one picture."""
    sides = _sample_size(recipe, base)
    at_once = min(DRAWN_AT_ONCE, drawn(recipe)) * (2 if recipe.sample.cfg > 1 else 1)
    block = max(unit.kept for unit in units_of(recipe, base, sides)) * at_once * width / GIB
    return max(block, DECODE_PEAK * sides[0] * sides[1] / PIXELS)


def _sample_size(recipe: Recipe, base: BaseFacts) -> tuple[int, int]:
    return recipe.sample.width or base.resolution, recipe.sample.height or base.resolution


def drawn(recipe: Recipe) -> int:
    """Pictures of one look at the samples; a file of prompts is taken to hold four."""
    return len(recipe.sample.prompts) + (4 if recipe.sample.file else 0)


def precision(recipe: Recipe) -> str:
    """The base's number format on a GPU."""
    return "bf16" if recipe.train.precision == "auto" else recipe.train.precision


def state_bytes(recipe: Recipe) -> float:
    """Bytes of optimizer state for each trained number; another tool's optimizer is taken to be like Adam."""
    if recipe.optim.name == "adafactor" and recipe.optim.options.get("beta1"):
        return 4.0
    return STATE.get(recipe.optim.name, 8.0)


def adapted(recipe: Recipe, base: BaseFacts, units: Iterable[Unit]) -> list[Layer]:
    """The layers that get an adapter, with kohya's default targets."""
    wanted = ("linear", "conv") if recipe.adapter.conv_rank else ("linear",)
    found = [layer for unit in units for layer in unit.layers if layer.target in wanted] if recipe.optim.lr else []
    for config, rate in zip(base.text, (recipe.optim.text_lr, recipe.optim.second_text_lr), strict=False):
        found += shapes.text_layers(config) if rate else []
    return found


def adapter_weights(recipe: Recipe, layer: Layer) -> int:
    """Trained numbers of one layer's adapter."""
    adapter = recipe.adapter
    rank = adapter.conv_rank if layer.spatial else adapter.rank
    inside, outside, area = layer.inside, layer.outside, layer.kernel**2
    if adapter.kind == "lokr":
        return _lokr(recipe, inside, outside, area, rank) + (inside if adapter.dora else 0)
    if adapter.tucker and layer.spatial:
        numbers = rank * (inside + outside + rank * area)
    else:
        numbers = rank * (inside * area + outside)
    numbers *= 2 if adapter.kind == "loha" else 1
    return numbers + (inside if adapter.dora_axis == "input" else outside) * adapter.dora


def _lokr(recipe: Recipe, inside: int, outside: int, area: int, rank: int) -> int:
    """A small factor, and a large one as a product of rank `rank` where that is smaller than the whole."""
    small_in, large_in = split(inside, recipe.adapter.factor)
    small_out, large_out = split(outside, recipe.adapter.factor)
    small = small_out * small_in
    if recipe.adapter.decompose_both and rank < max(small_out, small_in) / 2:
        small = rank * (small_out + small_in)
    if recipe.adapter.full_matrix or rank >= max(large_out, large_in) / 2:
        return small + large_out * large_in * area
    return small + rank * (large_out + large_in * area)


def split(size: int, factor: int) -> tuple[int, int]:
    """(small, large) with small x large = size: `factor` if it divides, else the most even pair up to it."""
    if factor > 0 and size % factor == 0:
        small, large = sorted((factor, size // factor))
        return small, large
    limit = factor if factor > 0 else size
    small = max(n for n in range(1, int(size**0.5) + 1) if size % n == 0 and n <= limit)
    return small, size // small


def _activations(units: Iterable[Unit], recipe: Recipe) -> float:
    """Values that a picture's forward leaves for backward, at their most."""
    units = with_gradients(list(units), conv=recipe.adapter.conv_rank > 0)
    mids = sum(
        recipe.adapter.rank * layer.places for unit in units for layer in unit.layers if layer.target == "linear"
    )
    if not recipe.train.checkpointing:
        return sum(unit.kept for unit in units) + mids
    kept = sum(unit.given if unit.recomputed else unit.kept for unit in units)
    return kept + RECOMPUTE * max(unit.kept for unit in units if unit.recomputed)


def with_gradients(units: list[Unit], *, conv: bool) -> list[Unit]:
    """The units from the first adapter on: before it nothing is trained, so nothing is kept."""
    wanted = ("linear", "conv") if conv else ("linear",)
    first = next(n for n, unit in enumerate(units) if any(layer.target in wanted for layer in unit.layers))
    return units[first:]


def _text_activations(base: BaseFacts) -> int:
    """Values that the trained text encoders keep: about fourteen times the stream in every layer."""
    return sum(14 * shapes.PROMPT * one["hidden_size"] * one["num_hidden_layers"] for one in base.text)


def units_of(recipe: Recipe, base: BaseFacts, size: tuple[int, int] | None) -> list[Unit]:
    side = int(_pixels(recipe, base, size) ** 0.5)
    width, height = size or (side, side)
    return _cached_units(json.dumps(base.unet, sort_keys=True), width // LATENT, height // LATENT)


@cache
def _cached_units(config: str, width: int, height: int) -> list[Unit]:
    return shapes.unet(json.loads(config), width, height)


def _pixels(recipe: Recipe, base: BaseFacts, size: tuple[int, int] | None) -> int:
    if size:
        return size[0] * size[1]
    return max((table.resolution or base.resolution) ** 2 for table in recipe.dataset)


def flops(recipe: Recipe, base: BaseFacts) -> float:
    """Arithmetic of one picture, forward and backward, with the adapter."""
    units = units_of(recipe, base, None)
    reached = with_gradients(units, conv=recipe.adapter.conv_rank > 0)
    layers = float(sum(layer.flops for unit in units for layer in unit.layers))
    attention = float(sum(one.flops for unit in units for one in unit.attention))
    backward = float(sum(layer.flops for unit in reached for layer in unit.layers))
    adapters = 2.0 * sum(
        recipe.adapter.rank * (one.inside + one.outside) * one.places for one in adapted(recipe, base, units)
    )
    # backward to the inputs costs a forward, attention's two and a half (it recomputes), an adapter's two
    total = layers + backward + 3.5 * attention + 3 * adapters
    if recipe.train.checkpointing:
        total += sum(layer.flops for unit in reached if unit.recomputed for layer in unit.layers) + attention + adapters
    if recipe.adapter.dora:
        total *= 1.05
    if recipe.optim.text_lr or recipe.optim.second_text_lr:
        total += 3 * TEXT_FLOPS
    return total


def duration(recipe: Recipe, base: BaseFacts, pictures: Pictures, card: Card) -> Time:
    """Seconds of a run on a card, its rate being what matrix products reach there."""
    train = recipe.train
    per_epoch = pictures.steps_per_epoch(train.batch, train.accumulate)
    steps = steps_of(recipe, pictures)
    visits = sum(pictures.buckets().values()) / per_epoch
    rate = card.tflops * 1e12 / (4 if precision(recipe) == "fp32" else 1)
    arithmetic = flops(recipe, base) * visits / rate
    area = _pixels(recipe, base, None) / PIXELS
    encode = pictures.count * (VAE_FLOPS * area * 4 + TEXT_FLOPS) / rate
    low, high = OVERHEAD
    # the least a step takes is its launches, whatever the arithmetic
    launches = 0.05 if train.batch == 1 else 0.06
    drawing = looks(recipe, per_epoch, steps) * drawn(recipe) * _drawing_flops(recipe, base) / rate
    return Time(
        (max(low * arithmetic, launches), high * arithmetic + launches), (5 + low * encode, 40 + 3 * encode), steps,
        (low * drawing, high * drawing),
    )  # fmt: skip


def steps_of(recipe: Recipe, pictures: Pictures) -> int:
    """Optimizer steps of a whole run, as `train.plan` makes them."""
    train = recipe.train
    whole = train.epochs * pictures.steps_per_epoch(train.batch, train.accumulate)
    return min(train.steps or whole, whole)


def looks(recipe: Recipe, per_epoch: int, steps: int) -> int:
    """How often samples are drawn: before, after, and as scheduled."""
    sample = recipe.sample
    moments = {0, steps}
    for every in (sample.epochs * per_epoch, sample.steps):
        moments |= set(range(every, steps, every)) if every else set()
    return len(moments)


def _drawing_flops(recipe: Recipe, base: BaseFacts) -> float:
    """Arithmetic of one sample: its steps, with and without the prompt, and its decoding in fp32."""
    sides = _sample_size(recipe, base)
    units = units_of(recipe, base, sides)
    forward = sum(layer.flops for unit in units for layer in unit.layers)
    forward += sum(one.flops for unit in units for one in unit.attention)
    passes = recipe.sample.count * (2 if recipe.sample.cfg > 1 else 1)
    return passes * forward + 4 * DECODE_FLOPS * sides[0] * sides[1] / PIXELS


def largest_batch(recipe: Recipe, base: BaseFacts, vram: float) -> int:
    """The most pictures a step that fit into `vram` GiB (with 5 % to spare); 0 where not even one does."""
    best = 0
    for batch in range(1, 65):
        train = recipe.train.model_copy(update={"batch": batch})
        if memory(recipe.model_copy(update={"train": train}), base).total > 0.95 * vram:
            break
        best = batch
    return best


def price(time: Time, per_hour: float) -> tuple[float, float]:
    """Money, from the best to the worst time."""
    if per_hour < 0:
        raise UserError(f"--price {per_hour:g}: must be at least 0")
    low, high = time.whole
    return low / 3600 * per_hour, high / 3600 * per_hour
