"""What a sweep found: means with their intervals over seeds, and which differences are more than chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorakiln.judge.interval import Interval, interval
from lorakiln.lab.trial import Outcome, table_of

MEASURES = {"gain": "best held-out gain", "loss": "settled loss"}
BETTER = {"gain": 1, "loss": -1}  # whether more is better


@dataclass(frozen=True, slots=True)
class Row:
    """One combination over its seeds. `mean` has no value where no trial of it finished."""

    changes: tuple[tuple[str, str], ...]
    mean: Interval
    seconds: float  # of one finished trial, on average
    failed: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What a value does against another of the same setting, everything else and the seed being the same."""

    setting: str
    value: str
    against: str
    difference: Interval

    @property
    def real(self) -> bool:
        return self.difference.above() or self.difference.below()


def measure_of(outcomes: Sequence[Outcome]) -> str:
    """The held-out gain where every finished trial has one, else the loss."""
    finished = [one for one in outcomes if one.status == "finished"]
    return "gain" if finished and all(one.gain is not None for one in finished) else "loss"


def rows(outcomes: Sequence[Outcome], measure: str) -> list[Row]:
    """One row a combination, best first."""
    found = []
    for changes in dict.fromkeys(one.changes for one in outcomes):
        group = [one for one in outcomes if one.changes == changes]
        done = [one for one in group if one.status == "finished" and getattr(one, measure) is not None]
        seconds = sum(one.seconds for one in done) / len(done) if done else 0.0
        mean = interval(getattr(one, measure) for one in done)
        found.append(Row(changes, mean, seconds, sum(one.status == "failed" for one in group)))
    return sorted(
        found, key=lambda row: (not row.mean.known, -BETTER[measure] * row.mean.mean if row.mean.known else 0)
    )


def effects(outcomes: Sequence[Outcome], measure: str) -> list[Effect]:
    """Each value against its setting's first one, in pairs that differ in nothing else.

    The interval is Student's, of the pairs. Those that share a seed and all other settings share their noise, so a
    difference is seen with few seeds.
    """
    values = {(one.changes, one.seed): getattr(one, measure) for one in outcomes if one.status == "finished"}
    found = []
    for place, (setting, _) in enumerate(outcomes[0].changes if outcomes else ()):
        first, *others = dict.fromkeys(one.changes[place][1] for one in outcomes)
        for value in others:
            pairs = []
            for (changes, seed), number in values.items():
                twin = (*changes[:place], (setting, first), *changes[place + 1 :]), seed
                other = values.get(twin)
                if changes[place][1] == value and number is not None and other is not None:
                    pairs.append(number - other)
            found.append(Effect(setting, value, first, interval(pairs)))
    return found


def page(title: str, outcomes: Sequence[Outcome], remarks: Sequence[str]) -> str:
    """The report as Markdown."""
    measure = measure_of(outcomes)
    lines = [f"# Sweep {title}", "", *remarks, "", f"Measure: {MEASURES[measure]}, "
             f"{'more' if BETTER[measure] > 0 else 'less'} is better; 95 % intervals over seeds.", ""]  # fmt: skip
    lines += ["| settings | mean | interval | seeds | failed | seconds |", "|---|---|---|---|---|---|"]
    for row in rows(outcomes, measure):
        known = [f"{row.mean.mean:.5g}", span(row.mean), str(row.mean.count)] if row.mean.known else ["-", "-", "0"]
        lines.append(f"| {label(row.changes)} | {' | '.join(known)} | {row.failed} | {row.seconds:.0f} |")
    lines += ["", "| difference | mean | interval | pairs | more than chance |", "|---|---|---|---|---|"]
    for one in effects(outcomes, measure):
        mean = f"{one.difference.mean:+.5g}" if one.difference.known else "-"
        told = f"| {one.setting}: {one.value} against {one.against} | {mean} | {span(one.difference)} "
        lines.append(f"{told}| {one.difference.count} | {'yes' if one.real else 'no'} |")
    failed = [one for one in outcomes if one.status == "failed"]
    if failed:
        lines += ["", "Failed:", "", *(f"- {label(one.changes)}, seed {one.seed}: {one.error}" for one in failed)]
    seconds, costs = sum(one.seconds for one in outcomes), [one.cost for one in outcomes if one.cost is not None]
    cost = f", {sum(costs):.2f} in money" if costs else ""
    return "\n".join([*lines, "", f"In all {len(outcomes)} trials, {seconds / 60:.1f} minutes{cost}."]) + "\n"


def table(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The findings for programs."""
    measure = measure_of(outcomes)
    return {
        "measure": measure,
        "trials": [table_of(one) for one in outcomes],
        "means": [
            {"changes": dict(row.changes), **numbers(row.mean), "failed": row.failed, "seconds": row.seconds}
            for row in rows(outcomes, measure)
        ],
        "differences": [
            {"setting": one.setting, "value": one.value, "against": one.against, "real": one.real}
            | numbers(one.difference)
            for one in effects(outcomes, measure)
        ],
    }


def numbers(one: Interval) -> dict[str, float | int | None]:
    """An interval in JSON, which has no infinity."""
    ends = {"mean": one.mean, "low": one.low, "high": one.high}
    return {name: value if math.isfinite(value) else None for name, value in ends.items()} | {"count": one.count}


def label(changes: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changes)


def span(one: Interval) -> str:
    """The interval as text; '-' where one seed gives none."""
    return f"{one.low:.5g} to {one.high:.5g}" if one.known and one.count > 1 else "-"
