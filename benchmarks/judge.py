"""Is the verdict right? Runs whose truth is known, judged: `python -m benchmarks.judge [--json] [--full]`.

The truth is that of benchmarks/judge_truth.py: quality on several hundred pictures of the style that no run ever saw.
Runs are kept in `--folder` and what was measured in `docs/experiments`, a row a checkpoint, so that a second call, here
or elsewhere, goes on from there. Needs what `make starter` fetches.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: OpenMP must not spin

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from benchmarks import judge_truth as truth
from lorakiln import families
from lorakiln.base import recipe as recipes
from lorakiln.families.family import Family
from lorakiln.judge.copying import Gallery
from lorakiln.judge.plan import PLANS, Plan
from lorakiln.runs.drawing import load_lora
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.judge import run_judge
from lorakiln.runs.measuring import PLAIN
from lorakiln.runs.reporter import Silent, Stages
from lorakiln.runs.run import train
from lorakiln.runs.subject import checkpoints, of_run
from lorakiln.sample.generate import Request, draw, to_picture
from tools.starter import examples, latents, masters
from tools.starter.compose import Picture, compose
from tools.starter.places import BUILD, RESOLUTION

ROWS = Path(__file__).parents[1] / "docs" / "experiments"
STRENGTHS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.15, 1.4)
UNSEEN = 300  # pictures that hold the truth
GOOD_STEPS, GOOD_LR = 300, 2e-3
STEPS, CFG = 10, 4.0  # of the drawings


@dataclass(frozen=True)
class Case:
    """One run. `length` and `lr` are factors on a good run's; `flaw` is "", "twice" (each picture twice) or "shuffled"
    (captions of other pictures)."""

    style: str
    pictures: int
    length: float
    lr: float
    rank: int
    flaw: str = ""
    seed: int = 1

    @property
    def name(self) -> str:
        flaw = f"-{self.flaw}" if self.flaw else ""
        return f"{self.style}-{self.pictures}p-{self.length:g}x-lr{self.lr:g}-r{self.rank}{flaw}-s{self.seed}"


def cases(style: str = "noto", seed: int = 1) -> list[Case]:
    """The table's runs, the telling ones first, so that a sample is a fair look at all of them."""
    told = [
        (40, 1, 1, 16), (40, 0.2, 0.1, 16), (8, 2, 3, 16), (40, 1, 8, 16), (20, 0.5, 1, 8), (40, 0.05, 1, 16),
        (5, 8, 1, 16), (80, 1, 1, 16), (40, 4, 1, 16), (40, 1, 0.3, 16), (40, 1, 30, 16), (20, 2, 3, 4),
        (40, 1, 3, 64), (200, 1, 1, 32), (10, 1, 1, 1), (40, 8, 0.3, 16), (200, 4, 3, 64), (5, 0.5, 1, 4),
        (80, 0.3, 3, 8), (80, 2, 0.3, 16), (20, 1, 10, 16), (10, 4, 0.3, 8), (200, 0.3, 1, 8), (40, 2, 1, 1),
        (20, 8, 1, 32), (80, 1, 10, 4), (5, 1, 0.1, 64), (200, 1, 0.1, 16),
    ]  # fmt: skip
    found = [Case(style, *row, seed=seed) for row in told]
    found[4:4] = [Case(style, 20, 1, 1, 16, "twice", seed)]
    return [*found, Case(style, 40, 1, 1, 16, "shuffled", seed), Case(style, 20, 4, 1, 16, "twice", seed),
            Case(style, 40, 2, 3, 16, "shuffled", seed)]  # fmt: skip


class Style:
    """The pictures of one emoji family: some to train on, others that hold the truth."""

    def __init__(self, name: str, seed: int):
        rows, index = masters.load(name)
        known = [emoji for emoji in latents.concepts() if emoji.code in index]
        rng = random.Random(f"{name} {seed}")
        rng.shuffle(known)
        split = min(260, len(known) // 2)
        self.name, self.trigger, self.rows, self.index = name, f"{name}_style", rows, index
        self.training, self.others = known[:split], known[split:]

    def picture(self, emoji, rng: random.Random) -> tuple[Picture, str]:
        made = compose(self.rows[self.index[emoji.code]], rng)
        text = examples.caption(emoji, made.background, made.size, rng)
        return made, text.replace(examples.STYLE, self.trigger)

    def write(self, case: Case, folder: Path) -> None:
        """The training pictures of a case, with their captions and flaws."""
        rng = random.Random(case.name)
        chosen = [self.training[n % len(self.training)] for n in range(case.pictures)]
        made = [self.picture(emoji, rng) for emoji in chosen]
        texts = [text for _, text in made]
        if case.flaw == "shuffled":
            rng.shuffle(texts)
        folder.mkdir(parents=True, exist_ok=True)
        for n, ((picture, _), text) in enumerate(zip(made, texts, strict=True)):
            for copy in ("", "-again")[: 2 if case.flaw == "twice" else 1]:
                Image.fromarray(picture.pixels).save(folder / f"{n:03d}{copy}.png")
                (folder / f"{n:03d}{copy}.txt").write_text(text, encoding="utf-8")

    def unseen(self, count: int, seed: str = "truth") -> tuple[np.ndarray, list[str]]:
        """Pictures that no run ever sees, and their captions."""
        rng = random.Random(f"{self.name} {seed}")
        made = [self.picture(rng.choice(self.others), rng) for _ in range(count)]
        return np.stack([picture.pixels for picture, _ in made]), [text for _, text in made]


def recipe_of(case: Case, folder: Path) -> recipes.Recipe:
    """Four checkpoints on the way and the end."""
    steps, rank = max(5, round(case.length * GOOD_STEPS)), float(case.rank)
    table = {
        "base": "starter", "runs": str(folder / "runs"), "name": case.name, "seed": case.seed,
        "adapter": {"rank": case.rank, "alpha": rank, "conv_rank": case.rank, "conv_alpha": rank},
        "optim": {"lr": case.lr * GOOD_LR, "schedule": "constant", "warmup": 0.05},
        "train": {"epochs": 100_000, "steps": steps, "batch": 4}, "save": {"steps": max(1, -(-steps // 4))},
        "cache": {"latents": "memory"},
        "dataset": [{
            "folder": str(folder / "sets" / case.name), "bucket_step": 16, "shuffle": True, "keep_tokens": 3,
            "heldout": 0.15,
        }],
    }  # fmt: skip
    return recipes.parse(table, case.name)


class Truth:
    """Q of every checkpoint at every strength."""

    def __init__(self, family: Family, style: Style, drawings: int):
        self.family, self.style = family, style
        self.unseen_NHWC, texts = style.unseen(UNSEEN)
        self.prompts = texts[:drawings]
        self.plain = [text for text in PLAIN for _ in range(max(1, drawings // 12))]
        self.scale = truth.Scale.of(truth.features(self.unseen_NHWC))
        self.unseen_NF = self._features(self.unseen_NHWC)
        self.base_NF = self._features(self._drawn(self.prompts))
        self.base_plain_NF = self._features(self._drawn(self.plain))
        self.other_plain_NF = self._features(self._drawn(self.plain, seed=5000))

    def curve(self, lora: Path, trained_NHWC: np.ndarray) -> dict[float, tuple[float, float, float] | None]:
        """Strength -> what Q is made of: (similarity, drift, copying); None where it draws no pictures any more."""
        network = load_lora(self.family, lora, 1.0)
        found: dict[float, tuple[float, float, float] | None] = {}
        for strength in STRENGTHS:
            network.strength = strength
            try:
                drawn, plain = self._drawn(self.prompts), self._drawn(self.plain)
            except ValueError:
                found[strength] = None
                continue
            like = truth.similarity(self._features(drawn), self.base_NF, self.unseen_NF)
            moved = truth.drift(self._features(plain), self.base_plain_NF, self.other_plain_NF)
            copies = truth.copied(drawn, trained_NHWC, self.unseen_NHWC)
            found[strength] = like, moved, copies
        network.remove()
        return found

    def _drawn(self, prompts: Sequence[str], seed: int = 0) -> np.ndarray:
        wanted = [
            Request(text, width=RESOLUTION, height=RESOLUTION, steps=STEPS, cfg=CFG, seed=seed + n)
            for n, text in enumerate(prompts)
        ]
        return np.stack([np.asarray(picture) for picture in draw(self.family, wanted, batch=8)])

    def _features(self, pictures_NHWC: np.ndarray) -> np.ndarray:
        return self.scale(truth.features(pictures_NHWC))


def trained_pictures(case: Case, folder: Path) -> np.ndarray:
    files = sorted((folder / "sets" / case.name).glob("*.png"))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def one_case(case: Case, folder: Path, known: Truth, most: int, plan: Plan) -> Iterator[dict]:
    """Train, judge and measure the truth of one run; a row for each of at most so many checkpoints and the last."""
    began, recipe = time.monotonic(), recipe_of(case, folder)
    run = RunFolder(folder / "runs" / case.name, case.name)
    if run.finished_at() is None:
        known.style.write(case, folder / "sets" / case.name)
        try:
            train(recipe, Path(f"{case.name}.toml"), overwrite=True, reporter=Silent())
        except ValueError as error:  # a rate that ends in NaN: its checkpoints are still there to be judged
            print(f"{case.name}: {error}")
    loras = checkpoints(run)
    loras = [loras[n] for n in sorted({round(n * (len(loras) - 1) / max(1, most - 1)) for n in range(most)})]
    stages = Stages(Silent())
    subject = of_run(run.path, None, stages)
    object.__setattr__(subject, "loras", tuple(loras))
    done = run_judge(subject, 0, "", Silent(), stages, plan)
    for one, (name, step, path) in zip(done.measures.checkpoints, loras, strict=True):
        curve = known.curve(path, trained_pictures(case, folder))
        top, gain = one.top()
        drawn = max((each.copied or 0 for each in one.drawn.values()), default=0)
        yield {
            **asdict(case), "case": case.name, "checkpoint": name, "step": step,
            "truth": {f"{strength:g}": made and [round(each, 4) for each in made] for strength, made in curve.items()},
            "said": done.verdict.words[one.name], "best": done.verdict.best == one.name,
            "strength": done.verdict.strength, "top_strength": top, "top_gain": gain, "copied": drawn,
            "curve": {f"{at:g}": [round(each, 5) for each in gains] for at, gains in one.curve.items()},
            "bands": {name: round(band.mean, 5) for name, band in one.bands.items()},
            "trained": round(one.trained.mean, 5) if one.trained else None,
            "drawn": {f"{at:g}": asdict(each) for at, each in one.drawn.items()},
            "heldout": done.verdict.heldout, "minutes": round((time.monotonic() - began) / 60, 2),
        }  # fmt: skip


def qualities(row: dict) -> dict[float, float]:
    """Strength -> Q of a row's checkpoint; one that draws no pictures any more is worth -1."""
    return {float(at): truth.quality(*made) if made else -1.0 for at, made in row["truth"].items()}


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Right words, and runs whose chosen checkpoint and strength are within 5 % of Q*, with Wilson's intervals."""
    right, close = [], []
    by_run: dict[str, list[dict]] = {}
    for row in rows:
        by_run.setdefault(row["case"], []).append(row)
    for held in by_run.values():
        curves = [qualities(row) for row in held]
        right += [word == row["said"] for word, row in zip(truth.words(curves), held, strict=True)]
        most = max(truth.best(curve)[1] for curve in curves)
        chosen = next(n for n, row in enumerate(held) if row["best"])
        strength = held[chosen]["strength"] or 1.0
        points = sorted(curves[chosen].items())
        reached = float(np.interp(strength, [s for s, _ in points], [q for _, q in points]))
        close.append(reached >= most - 0.05 * abs(most))
    found: dict[str, float] = {"checkpoints": len(right), "runs": len(close)}
    for name, hits in (("verdict_accuracy", right), ("best_within_5pct", close)):
        found[name] = sum(hits) / max(1, len(hits))
        found[f"{name}_low"], found[f"{name}_high"] = wilson(sum(hits), len(hits))
    return found


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5 / (1 + z * z / of)
    return max(0.0, middle - reach), min(1.0, middle + reach)


@torch.no_grad()
def copying(family: Family, style: Style, count: int) -> dict[str, float]:
    """Planted copies, that is training pictures as a model draws them from memory, and others drawn alike."""
    rng = random.Random(f"copies {style.name}")
    trained = [Image.fromarray(style.picture(emoji, rng)[0].pixels) for emoji in style.training[:40]]
    gallery, hits, alarms = Gallery(trained), [], []
    for n in range(count):
        picture = spoilt(family, trained[n % len(trained)], rng, n)
        found = gallery.nearest(picture)
        hits.append(found.copied and found.index == n % len(trained))
    pictures, _ = style.unseen(count, "innocent")
    for pixels in pictures:
        alarms.append(gallery.nearest(spoilt(family, Image.fromarray(pixels), rng, len(alarms))).copied)
    found = {}
    for name, each in (("copy_recall", hits), ("copy_false_alarms", alarms)):
        found[name] = sum(each) / count
        found[f"{name}_low"], found[f"{name}_high"] = wilson(sum(each), count)
    return found


def spoilt(family: Family, picture: Image.Image, rng: random.Random, seed: int) -> Image.Image:
    """A picture as a model draws it from memory: through the VAE, a little wrong, and changed in one way or none."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    latent = family.scale(family.encode_pixels(pixels).mean_BCHW)
    latent = latent + 0.15 * torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    redrawn = to_picture(family.decode(latent)[0])
    left, top = rng.randint(0, 16), rng.randint(0, 16)
    return rng.choice([
        lambda one: one, lambda one: one, ImageOps.mirror,
        lambda one: one.crop((left, top, left + 112, top + 112)).resize(one.size),
        lambda one: ImageEnhance.Color(one).enhance(0.5), lambda one: ImageEnhance.Brightness(one).enhance(0.75),
    ])(redrawn)  # fmt: skip


def measure(folder: Path, minutes: float, full: bool, style: str, seed: int) -> dict[str, float]:
    """Go on where the rows in `folder` end, until the time is up or all is done; then sum up what is there."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    began, family, known = time.monotonic(), families.load("starter"), Style(style, seed)
    rows_file = ROWS / f"judge-{style}-{seed}.jsonl"
    ROWS.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.exists() else []
    found = copying(family, known, 200 if full else 60)
    todo = [case for case in cases(style, seed) if case.name not in {row["case"] for row in rows}]
    reality = Truth(family, known, 96 if full else 24) if todo else None
    longest = 0.0
    for case in todo:
        start = time.monotonic()
        if not full and start - began + longest > 60 * minutes:
            break
        assert reality is not None
        fresh = list(one_case(case, folder, reality, 5 if full else 3, PLANS[1 if full else 4]))
        with rows_file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in fresh)
        rows += fresh
        longest = max(longest, time.monotonic() - start)
    return found | summary(rows) | {"minutes": (time.monotonic() - began) / 60}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--full", action="store_true", help="every case, however long it takes")
    parser.add_argument("--minutes", type=float, default=20, help="begin no case that would end later")
    parser.add_argument("--style", default="noto", help="noto is the table's; thresholds are fitted on twemoji")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=BUILD.parent / "judge-proof")
    options = parser.parse_args()
    figures = measure(options.folder, options.minutes, options.full, options.style, options.seed)
    print("| what | measured | to reach |\n|---|---|---|")
    targets = {"verdict_accuracy": ">= 0.90", "best_within_5pct": ">= 0.90", "copy_recall": ">= 0.95",
               "copy_false_alarms": "<= 0.05"}  # fmt: skip
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} | {targets.get(name, '')} |")
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
