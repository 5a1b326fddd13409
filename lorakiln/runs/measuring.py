"""Takes the measures of a subject: losses of every checkpoint first, which is cheap, then drawings of the finalists."""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lorakiln.adapters.network import Network
from lorakiln.adapters.part import Adapter
from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets
from lorakiln.families.family import Family
from lorakiln.judge import likeness, look
from lorakiln.judge.cell import Cell
from lorakiln.judge.copying import Gallery, copied_share
from lorakiln.judge.heldout import HeldOut, bands, denoising_losses, gains, memorising, read_held_out
from lorakiln.judge.interval import interval
from lorakiln.judge.plan import Plan, finalists, spread
from lorakiln.judge.verdict import Drawn, Measured, with_drawn
from lorakiln.judge.weights import Changed, changed, weigh
from lorakiln.runs.drawing import load_lora
from lorakiln.runs.reporter import Stages
from lorakiln.runs.subject import Shown, Subject
from lorakiln.sample.generate import Request, draw, to_picture
from lorakiln.tag.captions import parse
from lorakiln.tag.tagger import Tagger

BATCH = 8
SEEN = 40  # pictures of the set, besides the held-out ones, that drawings are held against
# what hardly any set is about, in words that every base knows
PLAIN = ("house, tree, white background", "dog, grey background", "automobile, street", "apple, table, fruit")


@dataclass(slots=True)
class Measures:
    """Everything measured, and the drawings it was measured on."""

    checkpoints: list[Measured]
    cells: list[Cell] = field(default_factory=list)
    gallery: Gallery = field(default_factory=lambda: Gallery([]))
    trained: list[Shown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Losses:
    """Denoising losses of some pictures under whatever LoRA is on the base; text encoded anew each time."""

    def __init__(self, subject: Subject, pictures: Sequence[Shown], timesteps: int, done: Callable[[int], None]):
        self.family, self.timesteps, self.done = subject.family, timesteps, done
        self.captions = [one.caption for one in pictures]
        self.seed = subject.seed
        self.held: HeldOut | None = None
        if pictures:
            self.held = read_held_out(subject.family, [one.path for one in pictures], self.captions)
            self.before_BN = self()

    @torch.no_grad()
    def __call__(self) -> Tensor:
        assert self.held is not None
        text = self.family.encode_text(self.family.tokenize(self.captions))
        asked = replace(self.held, text=text)
        return denoising_losses(
            self.family, asked, timesteps=self.timesteps, seed=self.seed, batch=BATCH, on_step=self.done
        )

    def gains(self) -> list[float]:
        return gains(self.before_BN, self()) if self.held else []


def rate(subject: Subject) -> float:
    """UNet calls of one picture a second on this machine, timed on noise."""
    family = subject.family
    shape = (BATCH, family.latent_channels, *[family.resolution // family.latent_factor] * 2)
    latent_BCHW = torch.zeros(shape, device=family.device)
    side = Size(family.resolution, family.resolution)
    crops = [Buckets(side, enabled=False).fit(side)] * BATCH
    with torch.no_grad():
        text = family.encode_text(family.tokenize(["picture"] * BATCH))
        held = HeldOut(latent_BCHW, text, family.conditioning(crops))
        denoising_losses(family, held, timesteps=1)
        began = time.monotonic()
        denoising_losses(family, held, timesteps=2)
    return 2 * BATCH / (time.monotonic() - began)


def measure(subject: Subject, plan: Plan, tagger: Tagger | None, stages: Stages) -> Measures:
    """All measures of `plan`. Raises UserError for a LoRA that does not fit the base."""
    unseen = [subject.unseen[n] for n in spread(len(subject.unseen), plan.unseen)]
    trained = [subject.trained[n] for n in spread(len(subject.trained), plan.trained)]
    curve = len(unseen) or len(trained)
    count = len(subject.loras) * (curve * len(plan.strengths) + (len(trained) if unseen else 0))
    with stages.stage("judge losses", plan.timesteps * (len(unseen) + len(trained) + count)):
        done = stages.reporter.advance
        sides = [Losses(subject, each, plan.timesteps, done) for each in (unseen, trained)]
        found = [_losses(subject, number, sides, plan) for number in range(len(subject.loras))]
    measures = Measures(found, trained=list(subject.trained))
    if plan.finalists:
        _draw_finalists(subject, plan, tagger, stages, measures, unseen)
    return measures


@contextmanager
def put_on(subject: Subject, number: int) -> Generator[Network]:
    """One of the subject's LoRAs on its base, for a while."""
    network = load_lora(subject.family, subject.loras[number][2], 1.0)
    try:
        yield network
    finally:
        network.remove()


def _losses(subject: Subject, number: int, sides: Sequence[Losses], plan: Plan) -> Measured:
    name, step, _ = subject.loras[number]
    unseen, trained = sides
    on = unseen if unseen.held else trained
    with put_on(subject, number) as network:
        curve, parts, own = {}, {}, []
        for strength in plan.strengths:
            network.strength = strength
            after_BN = on()
            curve[strength] = gains(on.before_BN, after_BN)
            if strength == 1.0:
                parts = bands(on.before_BN, after_BN)
                own = trained.gains() if unseen.held and trained.held else curve[1.0]
        network.strength = 1.0
        weights = weigh([_changed(adapter) for adapter in network.adapters])
    gap = memorising(own, curve[1.0]) if unseen.held and own else None
    return Measured(name, step, curve, parts, interval(own) if own else None, gap, weights=weights)


@torch.no_grad()
def _changed(adapter: Adapter) -> Changed:
    place = adapter.place
    change, base = (tensor.float().flatten(1) for tensor in (adapter.weight_change(), place.weight))
    block = ".".join(place.path.split(".")[:2])
    return changed(place.name, f"{place.part} {block}", change, base, adapter.width.rank)


def _draw_finalists(
    subject: Subject, plan: Plan, tagger: Tagger | None, stages: Stages, measures: Measures, unseen: Sequence[Shown]
) -> None:
    """Add drawings and what they show to the finalists."""
    chosen = finalists(
        [math.nan if one.broken else max(one.gains.values()) for one in measures.checkpoints], plan.finalists
    )
    prompts, plain = _prompts(subject, plan, unseen)
    side = subject.family.resolution
    trained = [_square(one.path, side) for one in subject.trained]
    with stages.stage("look", len(trained)):
        measures.gallery = Gallery(trained, drawable(subject.family, trained, stages.reporter.advance))
    pens = _Pens(subject, plan)
    calls = len(prompts) * (len(plan.drawn) + plan.seeds - 1) + len(plain)
    total = (len(prompts) + len(plain)) * max(2, plan.seeds) + len(chosen) * calls
    with stages.stage("draw", total):
        report = stages.reporter.advance
        base = {seed: pens.draw("", 1.0, [*prompts, *plain], seed, report) for seed in range(max(2, plan.seeds))}
        measures.cells += base[0][: len(prompts)]
        eyes = _Eyes(subject, tagger, base, len(prompts), unseen, measures.gallery)
        for number in chosen:
            with put_on(subject, number) as network:
                name = subject.loras[number][0]
                drawn: dict[float, list[list[Cell]]] = {}
                for strength in plan.drawn:
                    network.strength = strength
                    seeds = range(plan.seeds) if strength == 1.0 else range(1)
                    asked = [[*prompts, *plain] if strength == 1.0 and seed == 0 else prompts for seed in seeds]
                    drawn[strength] = [
                        pens.draw(name, strength, texts, seed, report) for seed, texts in zip(seeds, asked, strict=True)
                    ]
            shown = {}
            for strength, cells in drawn.items():
                held = [replace(one, nearest=measures.gallery.nearest(one.picture)) for one in cells[0][: len(prompts)]]
                measures.cells += held
                shown[strength] = eyes.see(held, cells)
            measures.checkpoints[number] = with_drawn(measures.checkpoints[number], shown)
    if tagger is None:
        measures.notes.append("no tagger: fidelity, prompt following, drift and diversity were not measured")


class _Eyes:
    """What drawings show, beside the base's drawings of the same prompts (`base`, by seed) and the set's pictures.

    The first `count` prompts have the trigger, and those with a held-out picture's caption come first, in its order.
    """

    def __init__(
        self, subject: Subject, tagger: Tagger | None, base: dict[int, list[Cell]], count: int,
        unseen: Sequence[Shown], gallery: Gallery,
    ):  # fmt: skip
        self.subject, self.tagger, self.count, self.unseen = subject, tagger, count, unseen
        side = subject.family.resolution
        self.real = [_square(one.path, side) for one in unseen]
        known = spread(len(gallery.pictures), SEEN)
        self.own = look.features(subject.family, [*self.real, *(gallery.pictures[n] for n in known)])
        captions = [*(one.caption for one in unseen), *(subject.trained[n].caption for n in known)]
        self.kinship = look.kinship([one.prompt for one in base[0][:count]], captions)
        self.base = look.features(subject.family, [one.picture for one in base[0][:count]])
        if tagger:
            self.base_NV = {seed: self._tags(tagger, cells) for seed, cells in base.items()}
            self.real_NV = likeness.features(tagger, self.real[:count])

    @staticmethod
    def _tags(tagger: Tagger, drawings: Sequence[Cell]) -> np.ndarray:
        return likeness.features(tagger, [one.picture for one in drawings])

    def see(self, held: Sequence[Cell], cells: Sequence[Sequence[Cell]]) -> Drawn:
        """What one finalist's drawings at one strength show; `cells` by seed, `held` those with the trigger."""
        copied = copied_share([one.nearest for one in held if one.nearest])
        drawn = look.features(self.subject.family, [one.picture for one in held])
        style = look.similarity(drawn, self.base, self.own, self.kinship)
        return Drawn(copied, style) if self.tagger is None else self._tagged(self.tagger, held, cells, copied, style)

    def _tagged(
        self, tagger: Tagger, held: Sequence[Cell], cells: Sequence[Sequence[Cell]], copied: float, style: float | None
    ) -> Drawn:
        count, unseen = self.count, self.unseen
        own, first, second = self._tags(tagger, cells[0]), self.base_NV[0], self.base_NV[1]
        texts = [_without(one.prompt, self.subject.trigger) for one in held]
        pairs = next((n for n, one in enumerate(unseen) if n >= count or held[n].prompt != one.caption), len(unseen))
        leak = likeness.drift(own[count:], first[count:], second[count:]) if len(own) > count else None
        varied = None
        if len(cells) > 1:
            by_seed = [own[:count], *(self._tags(tagger, more)[:count] for more in cells[1:])]
            theirs = [self.base_NV[seed][:count] for seed in range(len(cells))]
            varied = likeness.diversity(list(np.stack(by_seed, 1)), list(np.stack(theirs, 1)))
        return Drawn(
            copied,
            style,
            likeness.fidelity(own[:pairs], first[:pairs], self.real_NV[:pairs]),
            likeness.following(own[:count], texts, tagger.vocabulary),
            likeness.following(first[:count], texts, tagger.vocabulary),
            leak,
            varied,
        )


class _Pens:
    """Draws prompts the same way each time."""

    def __init__(self, subject: Subject, plan: Plan):
        self.subject, side = subject, subject.family.resolution
        self.request = Request(
            prompt="", negative=subject.negative, width=side, height=side, steps=plan.steps, cfg=subject.cfg,
            rescale=subject.rescale, sampler="dpmpp_2m",
        )  # fmt: skip

    def draw(
        self, lora: str, strength: float, prompts: Sequence[str], seed: int, report: Callable[[int], None]
    ) -> list[Cell]:
        """The drawings; a picture that became NaN is grey."""
        wanted = [replace(self.request, prompt=text, seed=1000 * seed + n) for n, text in enumerate(prompts)]
        pictures = _drawn(self.subject, wanted)
        report(len(wanted))
        return [Cell(lora, strength, one.prompt, one.seed, p) for one, p in zip(wanted, pictures, strict=True)]


def _drawn(subject: Subject, wanted: Sequence[Request]) -> list[Image.Image]:
    try:
        return draw(subject.family, wanted, batch=BATCH)
    except UserError:  # NaN: what is said of the losses says it too
        return [Image.new("RGB", (one.width, one.height), "grey") for one in wanted]


def _prompts(subject: Subject, plan: Plan, unseen: Sequence[Shown]) -> tuple[list[str], list[str]]:
    """(prompts with the trigger, prompts that have nothing to do with the set).

    Captions of held-out pictures first, each beside its picture; then some of trained ones, where copies show first;
    then the user's own, which are contexts that the set need not show. Where these are too few, captions come again
    with another seed.
    """
    known = max(1, plan.prompts // 4) if unseen else plan.prompts
    own = list(subject.prompts[: max(0, plan.prompts - known) // 2])
    captions = [one.caption for one in unseen[: max(0, plan.prompts - known - len(own))]]
    trained = [
        subject.trained[n].caption for n in spread(len(subject.trained), plan.prompts - len(captions) - len(own))
    ]
    asked = [*captions, *trained, *own] or [subject.trigger]
    return list(islice(cycle(asked), plan.prompts)), list(PLAIN[: plan.plain])


def _without(prompt: str, trigger: str) -> str:
    return ", ".join(tag for tag in parse(prompt) if tag != trigger)


@torch.no_grad()
def drawable(
    family: Family, pictures: Sequence[Image.Image], report: Callable[[int], None] = lambda count: None
) -> list[Image.Image]:
    """Pictures of the base's square as its VAE gives them back; one at a time, since it is fp32."""
    found = []
    for picture in pictures:
        pixels_BCHW = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        found.append(to_picture(family.decode(family.encode_pixels(pixels_BCHW).mean_BCHW, scaled=False)[0]))
        report(1)
    return found


def _square(path: Path, side: int) -> Image.Image:
    """A picture as it is judged: cut to the base's square."""
    crop = Buckets(Size(side, side), enabled=False).fit(images.measure(path).size)
    whole = images.open_picture(path).resize(tuple(crop.resized), Image.Resampling.LANCZOS)
    return whole.crop((crop.left, crop.top, crop.left + side, crop.top + side))
