"""Is the verdict right? Runs whose truth is known, judged: `python -m benchmarks.judge [--json] [--full]`.

The truth is that of benchmarks/judge_truth.py: quality on several hundred pictures of the style that no run ever saw.
Runs and all drawings are kept in `--folder`, and what was measured in `docs/experiments`, a row a checkpoint, so that a
second call, here or elsewhere, goes on from there. Needs what `make starter` fetches.
"""

import argparse
import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from operator import eq
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: OpenMP must not spin

import numpy as np
import torch

from benchmarks import judge_truth as truth
from benchmarks.judge_cases import Case, cases, recipe_of, trained_pictures, write
from benchmarks.judge_copies import copying, redrawn
from benchmarks.judge_styles import STYLES, TABLE, Style, style_of
from lorakiln import families
from lorakiln.base.files import write_text
from lorakiln.families.family import Family
from lorakiln.judge import strengths
from lorakiln.judge.interval import Interval, interval
from lorakiln.judge.plan import PLANS
from lorakiln.judge.strengths import WORDS, Rule
from lorakiln.judge.verdict import Drawn, Measured, Verdict, judge
from lorakiln.runs.drawing import load_lora
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.judge import run_judge
from lorakiln.runs.measuring import PLAIN
from lorakiln.runs.reporter import Silent, Stages
from lorakiln.runs.run import train
from lorakiln.runs.subject import checkpoints, of_run
from lorakiln.sample.generate import Request, draw
from tools.starter.places import BUILD, RESOLUTION

ROWS = Path(__file__).parents[1] / "docs" / "experiments"
UNSEEN = 300  # pictures that hold the truth
PLAN = PLANS[2]  # how thoroughly the judge looks
DRAWINGS = 16  # with the trigger at each strength; without it two of each plain prompt
DRIFTS = (0.5, 1.1)  # strengths at which drift is measured; between them it is taken to be straight, beyond them level
STEPS, CFG = 6, 4.0  # of the drawings


@dataclass(frozen=True)
class Outcome:
    """One run: the right words and what was said, checkpoint by checkpoint; Q*, the best Q of the checkpoint that the
    judge chose, its Q at the strength that the judge said, and the rule of the words."""

    case: str
    words: list[str]
    said: list[str]
    best: float
    chosen: float
    used: float
    rule: Rule

    @property
    def right_checkpoint(self) -> bool:
        return self.chosen >= 0.95 * self.best

    @property
    def as_good(self) -> bool:
        """Whether checkpoint and strength, used as the judge says, draw as well as any of the run."""
        return self.used >= self.best - self.rule.reach


class Truth:
    """Q of every checkpoint at every strength.

    The unseen pictures pass through the base's VAE first: what it cannot draw, no LoRA on its UNet can learn.
    """

    def __init__(self, family: Family, style: Style, drawings: int):
        self.family, self.style = family, style
        self.unseen_NHWC, texts = style.unseen(UNSEEN)
        self.prompts = texts[:drawings]
        self.plain = [text for text in PLAIN for _ in range(max(1, drawings // 10))]
        base_NF = truth.features(self._drawn(self.prompts))
        unseen_NF = truth.features(np.concatenate([redrawn(family, one) for one in np.split(self.unseen_NHWC, 20)]))
        self.scale_F = truth.scale(base_NF, unseen_NF)
        self.base_NF, self.unseen_NF = base_NF / self.scale_F, unseen_NF / self.scale_F
        self.base_plain_NF = self._features(self._drawn(self.plain))
        self.other_plain_NF = self._features(self._drawn(self.plain, seed=5000))

    def curve(self, lora: Path, trained_NHWC: np.ndarray, keep: Path) -> dict[float, tuple[float, float, float] | None]:
        """Strength -> what Q is made of: (similarity, drift, copying); None where it draws no pictures any more.

        The drawings are kept in the file `keep`.
        """
        found: dict[float, tuple[float, float, float] | None] = {}
        drifts, within = {0.0: 0.0}, truth.near(trained_NHWC, self.unseen_NHWC)
        kept: dict[str, np.ndarray] = {}
        for strength in truth.STRENGTHS:
            network = load_lora(self.family, lora, strength)
            network.merge()
            try:
                drawn = kept[f"{strength:g}"] = self._drawn(self.prompts)
                if strength in DRIFTS:
                    plain_NF = self._features(self._drawn(self.plain))
                    drifts[strength] = truth.drift(plain_NF, self.base_plain_NF, self.other_plain_NF)
                like = truth.similarity(self._features(drawn), self.base_NF, self.unseen_NF)
                found[strength] = like, 0.0, truth.copied(drawn, trained_NHWC, within)
            except ValueError:
                found[strength] = None
            network.remove()
        keep.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(keep, **kept)
        moved = np.interp(truth.STRENGTHS, list(drifts), list(drifts.values()))
        return {
            at: made and (made[0], float(far), made[2]) for (at, made), far in zip(found.items(), moved, strict=True)
        }

    def _drawn(self, prompts: Sequence[str], seed: int = 0) -> np.ndarray:
        wanted = [
            Request(text, width=RESOLUTION, height=RESOLUTION, steps=STEPS, cfg=CFG, seed=seed + n, sampler="dpmpp_2m")
            for n, text in enumerate(prompts)
        ]
        return np.stack([np.asarray(picture) for picture in draw(self.family, wanted, batch=16)])

    def _features(self, pictures_NHWC: np.ndarray) -> np.ndarray:
        return truth.features(pictures_NHWC) / self.scale_F


def trained_run(case: Case, folder: Path, style: Style) -> RunFolder:
    """The run of a case, trained unless it was before."""
    run = RunFolder(folder / "runs" / case.name, case.name)
    if run.finished_at() is None:
        write(style, case, folder / "sets" / case.name)
        try:
            train(recipe_of(case, folder), Path(f"{case.name}.toml"), overwrite=True, reporter=Silent())
        except ValueError as error:  # a rate that ends in NaN: its checkpoints are still there to be judged
            print(f"{case.name}: {error}")
    return run


def measured_run(case: Case, folder: Path, known: Truth, most: int) -> list[dict]:
    """Train, judge and measure the truth of one run; a row for each of at most so many checkpoints and the last.

    No rows where a run ended in NaN before its first checkpoint: there is nothing to judge.
    """
    began = time.monotonic()
    run = trained_run(case, folder, known.style)
    rows, trained_NHWC = judged(case, run, most), trained_pictures(case, folder)
    paths = {name: path for name, _, path in checkpoints(run)} if rows else {}
    for row in rows:
        keep = folder / "drawings" / f"{row['checkpoint']}.npz"
        curve = known.curve(paths[row["checkpoint"]], trained_NHWC, keep)
        row["truth"] = {f"{at:g}": made and [round(each, 4) for each in made] for at, made in curve.items()}
        row["minutes"] = round((time.monotonic() - began) / 60, 2)
        began = time.monotonic()
    return rows


def judged(case: Case, run: RunFolder, most: int) -> list[dict]:
    """What the judge measured on at most so many checkpoints of a run."""
    if not (run.lora.exists() or run.checkpoints()):
        return []
    loras = checkpoints(run)
    loras = tuple(loras[n] for n in sorted({len(loras) - 1 - n * len(loras) // most for n in range(most)}))
    stages = Stages(Silent())
    subject = replace(of_run(run.path, None, stages), loras=loras)
    done = run_judge(subject, 0, "", Silent(), stages, PLAN)
    return [
        {
            **asdict(case), "case": case.name, "checkpoint": one.name, "step": one.step,
            "curve": {f"{at:g}": [round(each, 5) for each in gains] for at, gains in one.curve.items()},
            "bands": {name: round(band.mean, 5) for name, band in one.bands.items()},
            "trained": asdict(one.trained) if one.trained else None, "gap": asdict(one.gap) if one.gap else None,
            "drawn": {f"{at:g}": asdict(each) for at, each in one.drawn.items()},
            "heldout": done.verdict.heldout,
        } for one in done.measures.checkpoints
    ]  # fmt: skip


def judged_again(rows: Sequence[dict], folder: Path, most: int) -> list[dict]:
    """The rows with what the judge measures now of the runs that are here; their truth stays as it is."""
    fields = {each.name for each in dataclasses.fields(Case)}
    fresh = {}
    for case in {row["case"]: Case(**{name: row[name] for name in fields}) for row in rows}.values():
        run = RunFolder(folder / "runs" / case.name, case.name)
        fresh |= {row["checkpoint"]: row for row in judged(case, run, most)}
    return [row | fresh.get(row["checkpoint"], {}) for row in rows]


def qualities(row: dict) -> dict[float, float]:
    """Strength -> Q of a row's checkpoint; one that draws no pictures any more is worth -1."""
    return {float(at): truth.quality(*made) if made else -1.0 for at, made in row["truth"].items()}


def verdict_of(rows: Sequence[dict]) -> Verdict:
    """What the judge says, as it is now, of what it measured on one run's checkpoints."""
    found = [
        Measured(
            row["checkpoint"], row["step"], {float(at): gains for at, gains in row["curve"].items()},
            trained=Interval(**row["trained"]) if row["trained"] else None,
            gap=Interval(**row["gap"]) if row["gap"] else None,
            drawn={float(at): Drawn(**each) for at, each in row["drawn"].items()},
        ) for row in rows
    ]  # fmt: skip
    return judge(found, rows[0]["heldout"])


def outcomes(rows: Sequence[dict]) -> Iterator[Outcome]:
    """Truth and verdict of each run."""
    by_run: dict[str, list[dict]] = {}
    for row in rows:
        by_run.setdefault(row["case"], []).append(row)
    style_best: dict[str, float] = {}
    for row in rows:
        style_best[row["style"]] = max(style_best.get(row["style"], 0.0), strengths.best(qualities(row)))
    for case, held in by_run.items():
        curves, said = [qualities(row) for row in held], verdict_of(held)
        rule = truth.rule(style_best[held[0]["style"]])
        chosen = next(curve for curve, row in zip(curves, held, strict=True) if row["checkpoint"] == said.best)
        yield Outcome(
            case, strengths.words(curves, rule), [said.words[row["checkpoint"]] for row in held],
            max(map(strengths.best, curves)), strengths.best(chosen), strengths.at(chosen, said.strength or 0.0),
            rule,
        )  # fmt: skip


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Shares with their 95 % intervals: right words; runs whose chosen checkpoint is within 5 % of Q*; runs where it is
    as good as any at the strength that was said."""
    runs = list(outcomes(rows))
    shares = {
        "verdict_accuracy": [word == said for run in runs for word, said in zip(run.words, run.said, strict=True)],
        "best_within_5pct": [run.right_checkpoint for run in runs],
        "strength_as_good": [run.as_good for run in runs],
    }
    found: dict[str, float] = {"checkpoints": len(shares["verdict_accuracy"]), "runs": len(runs)}
    for name, hits in shares.items():
        found |= share_of(name, hits)
    # the checkpoints of a run are right or wrong together, so it is the runs that this interval goes over
    by_run = interval([sum(map(eq, run.words, run.said)) / len(run.words) for run in runs])
    found["verdict_accuracy_low"], found["verdict_accuracy_high"] = max(0.0, by_run.low), min(1.0, by_run.high)
    return found


def again(rows: Sequence[dict], times: int = 20) -> dict[str, float]:
    """How often the truth would say the same of itself if it were measured again: its Q shaken, so that two strengths
    come out as far apart by chance as they do. A judge whose drawings are as many can hardly do better."""
    rng, runs = np.random.default_rng(0), list(outcomes(rows))
    curves: dict[str, list[dict[float, float]]] = {}
    for row in rows:
        curves.setdefault(row["case"], []).append(qualities(row))
    words, choices = [], []
    for run in runs * times:
        known = curves[run.case]
        shaken = [{t: q + rng.normal(0, truth.NOISE / 2**0.5) for t, q in curve.items()} for curve in known]
        words += map(eq, run.words, strengths.words(shaken, run.rule))
        chosen = max(range(len(known)), key=lambda n: strengths.best(shaken[n]))
        choices.append(strengths.best(known[chosen]) >= 0.95 * run.best)
    return {"words_again": sum(words) / max(1, len(words)), "choices_again": sum(choices) / max(1, len(choices))}


def share_of(name: str, hits: Sequence[bool]) -> dict[str, float]:
    """A share with Wilson's interval, under its name."""
    low, high = wilson(sum(hits), len(hits))
    return {name: sum(hits) / max(1, len(hits)), f"{name}_low": low, f"{name}_high": high}


def crossed(rows: Sequence[dict]) -> list[str]:
    """Lines of a table: for each right word, how often which word was said."""
    pairs = Counter((word, said) for run in outcomes(rows) for word, said in zip(run.words, run.said, strict=True))
    lines = [f"| right word | {' | '.join(WORDS)} |", "|---" * (len(WORDS) + 1) + "|"]
    return lines + [f"| {word} | {' | '.join(str(pairs[word, said]) for said in WORDS)} |" for word in WORDS]


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5 / (1 + z * z / of)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Go on where the rows end, until the time is up or all is done; then sum up what is there."""
    torch.set_num_threads(max(1, min(2, torch.get_num_threads()) // options.part[1]))
    began, family = time.monotonic(), families.load("starter")
    styles = [style_of(name, options.seed) for name in options.style]
    for style in styles:
        go_on(options, family, style, began)
    rows = read_rows(options.style, options.seed)
    found = summary(rows) | again(rows)
    planted = [copying(family, style, 200 if options.full else 60) for style in styles]
    for name, each in zip(("copy_recall", "copy_false_alarms"), zip(*planted, strict=True), strict=True):
        found |= share_of(name, list(chain.from_iterable(each)))
    return found | {"minutes": (time.monotonic() - began) / 60}


def go_on(options: argparse.Namespace, family: Family, style: Style, began: float) -> None:
    """The cases of a style that no row tells of yet, as far as the time goes."""
    rows_file = rows_of(style.name, options.seed)
    rows = read_rows([style.name], options.seed)
    if options.again:
        rows = judged_again(rows, options.folder, options.checkpoints)
        write_text(rows_file, "".join(json.dumps(row) + "\n" for row in rows))
    have, (part, parts) = {row["case"] for row in rows}, options.part
    todo = [case for case in cases(style.name, options.seed)[part - 1 :: parts] if case.name not in have]
    known = Truth(family, style, DRAWINGS) if todo else None
    longest = 0.0
    for case in todo:
        start = time.monotonic()
        if not options.full and start - began + longest > 60 * options.minutes:
            break
        assert known is not None
        fresh = measured_run(case, options.folder, known, options.checkpoints)
        with rows_file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in fresh))
        longest = max(longest, time.monotonic() - start)


def rows_of(style: str, seed: int) -> Path:
    return ROWS / f"judge-{style}-{seed}.jsonl"


def read_rows(styles: Sequence[str], seed: int = 1) -> list[dict]:
    files = [file for style in styles if (file := rows_of(style, seed)).exists()]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def part_of(text: str) -> tuple[int, int]:
    """N/M, 1 <= N <= M."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: N/M with 1 <= N <= M")
    return int(part), int(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--full", action="store_true", help="every case, however long it takes")
    parser.add_argument("--again", action="store_true", help="judge the rows' runs anew first, where the judge changed")
    parser.add_argument("--minutes", type=float, default=20, help="begin no case that would end later")
    parser.add_argument("--checkpoints", type=int, default=4, help="of each run, the last one among them")
    parser.add_argument(
        "--style",
        nargs="+",
        default=list(TABLE),
        choices=STYLES,
        help="default: the table's; thresholds are from chalk",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=part_of, default=(1, 1), help="N/M: every Mth of the cases, on 1/M of the cores")
    parser.add_argument("--folder", type=Path, default=BUILD.parent / "judge-proof")
    options = parser.parse_args()
    if options.again and options.part != (1, 1):
        parser.error("--again writes all rows anew, so it goes without --part")
    figures = measure(options)
    print("| what | measured | to reach |\n|---|---|---|")
    targets = {"verdict_accuracy": ">= 0.90", "best_within_5pct": ">= 0.90", "copy_recall": ">= 0.95",
               "copy_false_alarms": "<= 0.05"}  # fmt: skip
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} | {targets.get(name, '')} |")
    print("\n".join(["", *crossed(read_rows(options.style, options.seed))]))
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
