"""What a sweep found: means with their intervals over seeds, and which differences are more than chance."""

import math
from collections.abc import Iterator, Sequence
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
    """What a value does against another of the same setting, everything else and the seed being the same.

    `beside` are the other settings' values that it was seen at; none: at all of them.
    """

    setting: str
    value: str
    against: str
    difference: Interval
    beside: tuple[tuple[str, str], ...] = ()

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
    return [
        Effect(setting, value, first, interval(number for group in pairs.values() for number in group))
        for setting, value, first, pairs in _pairs(outcomes, measure)
    ]


def effects_apart(outcomes: Sequence[Outcome], measure: str) -> list[Effect]:
    """The same at each combination of the other settings alone: a value may be better at one rate, worse at another."""
    return [
        Effect(setting, value, first, interval(group), beside)
        for setting, value, first, pairs in _pairs(outcomes, measure)
        for beside, group in pairs.items()
        if beside
    ]


def _pairs(
    outcomes: Sequence[Outcome], measure: str
) -> Iterator[tuple[str, str, str, dict[tuple[tuple[str, str], ...], list[float]]]]:
    """(setting, value, the setting's first value, the other settings' values -> a difference for each seed)."""
    values = {(one.changes, one.seed): getattr(one, measure) for one in outcomes if one.status == "finished"}
    for place, (setting, _) in enumerate(outcomes[0].changes if outcomes else ()):
        first, *others = dict.fromkeys(one.changes[place][1] for one in outcomes)
        for value in others:
            pairs: dict[tuple[tuple[str, str], ...], list[float]] = {}
            for (changes, seed), number in values.items():
                before, after = changes[:place], changes[place + 1 :]
                other = values.get(((*before, (setting, first), *after), seed))
                if changes[place][1] == value and number is not None and other is not None:
                    pairs.setdefault((*before, *after), []).append(number - other)
            yield setting, value, first, pairs


def page(title: str, outcomes: Sequence[Outcome], remarks: Sequence[str]) -> str:
    """The report as Markdown."""
    measure = measure_of(outcomes)
    told = [*remarks, ""] if remarks else []
    lines = [f"# Sweep {title}", "", *told, f"Measure: {MEASURES[measure]}, "
             f"{'more' if BETTER[measure] > 0 else 'less'} is better; 95 % intervals over seeds.", ""]  # fmt: skip
    lines += ["| settings | mean | interval | seeds | failed | seconds |", "|---|---|---|---|---|---|"]
    for row in rows(outcomes, measure):
        known = [f"{row.mean.mean:.5g}", span(row.mean), str(row.mean.count)] if row.mean.known else ["-", "-", "0"]
        lines.append(f"| {label(row.changes)} | {' | '.join(known)} | {row.failed} | {row.seconds:.0f} |")
    lines += ["", "| difference | mean | interval | pairs | more than chance |", "|---|---|---|---|---|"]
    lines += [_told(one) for one in effects(outcomes, measure)]
    apart = effects_apart(outcomes, measure)
    if apart:
        lines += ["", "The same at each combination of the other settings:", ""]
        lines += ["| difference | at | mean | interval | pairs | more than chance |", "|---|---|---|---|---|---|"]
        lines += [_told(one) for one in apart]
    failed = [one for one in outcomes if one.status == "failed"]
    if failed:
        lines += ["", "Failed:", "", *(f"- {label(one.changes)}, seed {one.seed}: {one.error}" for one in failed)]
    seconds, costs = sum(one.seconds for one in outcomes), [one.cost for one in outcomes if one.cost is not None]
    cost = f", {sum(costs):.2f} in money" if costs else ""
    return "\n".join([*lines, "", f"In all {len(outcomes)} trials, {seconds / 60:.1f} minutes{cost}."]) + "\n"


def _told(one: Effect) -> str:
    at = f" | {label(one.beside)}" if one.beside else ""
    mean = f"{one.difference.mean:+.5g}" if one.difference.known else "-"
    told = f"| {one.setting}: {one.value} against {one.against}{at} | {mean} | {span(one.difference)} "
    return f"{told}| {one.difference.count} | {'yes' if one.real else 'no'} |"


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
        "differences": [_entry(one) for one in effects(outcomes, measure)],
        "apart": [_entry(one) | {"beside": dict(one.beside)} for one in effects_apart(outcomes, measure)],
    }


def _entry(one: Effect) -> dict[str, object]:
    values: dict[str, object] = {"setting": one.setting, "value": one.value, "against": one.against, "real": one.real}
    return {**values, **numbers(one.difference)}


def numbers(one: Interval) -> dict[str, float | int | None]:
    """An interval in JSON, which has no infinity."""
    ends = {"mean": one.mean, "low": one.low, "high": one.high}
    return {name: value if math.isfinite(value) else None for name, value in ends.items()} | {"count": one.count}


def label(changes: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changes)


def span(one: Interval) -> str:
    """The interval as text; '-' where one seed gives none."""
    return f"{one.low:.5g} to {one.high:.5g}" if one.known and one.count > 1 else "-"
