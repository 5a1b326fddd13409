"""`kiln judge`: measure, decide, and write verdict.json, report.html and a model card beside what was judged."""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic, write_text
from lorakiln.judge import report
from lorakiln.judge.interval import Interval
from lorakiln.judge.plan import PLANS, Plan, choose
from lorakiln.judge.verdict import Measured, Verdict, judge
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.machine import device_name
from lorakiln.runs.measuring import Measures, measure, rate
from lorakiln.runs.reporter import Reporter, Stages
from lorakiln.runs.row import save_row
from lorakiln.runs.subject import Subject
from lorakiln.tag import wd
from lorakiln.tag.tagger import Tagger

CARD, PAGE, VERDICT = "README.md", "report.html", "verdict.json"
MARK = "<!-- Made by kiln judge. -->"
SLOWER = 2.2  # loading LoRAs, decoding, looking at and comparing pictures, over the UNet calls alone


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict with what it rests on, and how long it took."""

    subject: Subject
    measures: Measures
    verdict: Verdict
    plan: Plan
    seconds: float
    foretold: float


def run_judge(
    subject: Subject, budget: float, tagger: str, reporter: Reporter, stages: Stages, plan: Plan | None = None
) -> Judged:
    """Judge within `budget` seconds (0: as thoroughly as is usual), and write the files into the subject's folder.

    `plan` says how thoroughly whatever it takes.

    Raises UserError for a LoRA that does not fit its base, too small a budget, or a tagger that is not there.
    """
    began = time.monotonic()
    if not subject.trained and not subject.unseen:
        raise UserError("there are no pictures to judge by; give --pictures FOLDER")
    eyes = _tagger(tagger, subject)
    speed = rate(subject) / SLOWER
    spent = sum(stages.seconds.values())
    left = max(1.0, budget - spent) if budget else 0.0
    counts = len(subject.loras), len(subject.unseen), len(subject.trained)
    plan, foretold = (plan, plan.cost(*counts) / speed) if plan else choose(left, speed, *counts)
    depth = f"{PLANS.index(plan) + 1} of {len(PLANS)}, 1 the most thorough"
    reporter.note(f"judging {counts[0]} checkpoints on {counts[1]} held-out pictures: about {foretold:.0f} s ({depth})")
    if budget and foretold > left:
        reporter.note(f"even the quickest look takes longer than the {budget:.0f} s asked for")
    measures = measure(subject, plan, eyes, stages)
    measures.notes[:0] = subject.notes
    verdict = judge(measures.checkpoints, min(len(subject.unseen), plan.unseen))
    done = Judged(subject, measures, verdict, plan, time.monotonic() - began, foretold)
    _write(done, reporter)
    return done


def _tagger(name: str, subject: Subject) -> Tagger | None:
    """The starter's own on the starter; for another base the one that the user names; none where neither is."""
    if name == "none" or (not name and subject.family.resolution > 256):
        return None
    return wd.load(name or "starter")


def _write(done: Judged, reporter: Reporter) -> None:
    folder, told = done.subject.folder, _told(done)
    write_text(folder / VERDICT, json.dumps(as_json(done), indent=2, sort_keys=True, allow_nan=False) + "\n")
    with atomic(folder / PAGE) as stream:
        stream.write(report.html(told))
    card = folder / CARD
    if card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        reporter.note(f"{card}: is your own, so no model card was written")
    else:
        write_text(card, f"{report.card(told)}\n{MARK}\n")
    if done.subject.recipe:
        save_row(RunFolder(folder, done.subject.name), reporter.note)


def _told(done: Judged) -> report.Told:
    trained = [shown.path.name for shown in done.measures.trained]
    gallery = list(zip(trained, done.measures.gallery.pictures, strict=False))
    return report.Told(
        done.subject.name, done.verdict, done.measures.checkpoints, done.measures.cells, gallery, _facts(done),
        done.measures.notes, done.subject.trigger,
    )  # fmt: skip


def _facts(done: Judged) -> dict[str, str]:
    """Settings and cost, a line each."""
    subject, recipe = done.subject, done.subject.recipe
    facts = {
        "base": Path(subject.base).name,
        "pictures": f"{len(subject.trained)} trained on, {len(subject.unseen)} unseen",
    }
    if recipe:
        adapter, optim = recipe.adapter, recipe.optim
        facts["adapter"] = (
            f"{adapter.kind}{' with DoRA' if adapter.dora else ''}, rank {adapter.rank}, alpha {adapter.alpha:g}"
        )
        facts["optimizer"] = f"{optim.name}, learning rate {optim.lr:g}, {optim.schedule}"
        facts["length"] = f"{subject.loras[-1][1]} steps of {recipe.train.batch * recipe.train.accumulate} pictures"
        known = subject.folder / "run.json"
        spent = json.loads(known.read_text(encoding="utf-8")).get("seconds", {}) if known.exists() else {}
        facts["training took"] = f"{sum(spent.values()):.0f} s"
    facts["judging took"] = (
        f"{done.seconds:.0f} s (foretold {done.foretold:.0f} s) on {device_name(subject.family.device)}"
    )
    return facts


def as_json(done: Judged) -> dict[str, Any]:
    """The whole verdict for programs; what is not a number is null."""
    verdict = done.verdict
    files = {name: str(path) for name, _, path in done.subject.loras}
    best = next(one for one in done.measures.checkpoints if one.name == verdict.best)
    table = {
        "verdict": verdict.word,
        "by": verdict.by,
        "best": {
            "name": best.name, "step": best.step, "file": files[best.name], "word": verdict.words[best.name],
            "strength": verdict.strength, "strengths": verdict.usable,
        },
        "heldout": verdict.heldout,
        "checkpoints": [_row(one, verdict) for one in done.measures.checkpoints],
        "copies": [
            {"lora": cell.lora, "strength": cell.strength, "prompt": cell.prompt, "seed": cell.seed,
             "picture": str(done.measures.trained[cell.nearest.index].path)}
            for cell in done.measures.cells if cell.nearest and cell.nearest.copied
        ],
        "reasons": [asdict(one) for one in verdict.reasons],
        "advice": [asdict(one) for one in verdict.advice],
        "notes": list(done.measures.notes),
        "seconds": round(done.seconds, 1),
        "foretold": round(done.foretold, 1),
        "plan": asdict(done.plan),
        "report": str(done.subject.folder / PAGE),
    }  # fmt: skip
    return _finite(table)


def _row(one: Measured, verdict: Verdict) -> dict[str, Any]:
    strength, worth = verdict.tops[one.name]
    row: dict[str, Any] = {
        "name": one.name, "step": one.step, "word": verdict.words[one.name],
        "top_strength": strength, "top_worth": worth,
        "gain": _ends(one.gain), "curve": {f"{s:g}": list(gains) for s, gains in one.curve.items()},
        "bands": {name: _ends(band) for name, band in one.bands.items()},
        "trained": _ends(one.trained) if one.trained else None, "gap": _ends(one.gap) if one.gap else None,
        "drawn": {f"{s:g}": asdict(drawn) for s, drawn in one.drawn.items()},
    }  # fmt: skip
    if one.weights:
        row["weights"] = asdict(one.weights) | {"share": one.weights.share}
    return row


def _ends(one: Interval) -> dict[str, float]:
    return {"mean": one.mean, "low": one.low, "high": one.high, "count": one.count}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
