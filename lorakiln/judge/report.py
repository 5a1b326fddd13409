"""The verdict as people read it: one page with its pictures inside, and a model card to share with the LoRA."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from lorakiln.base.html import escape, figure, page
from lorakiln.judge.cell import Cell
from lorakiln.judge.curves import Line, plot
from lorakiln.judge.interval import Interval, interval
from lorakiln.judge.verdict import Measured, Reason, Verdict

SIDE = 192  # pixels of a picture in the page
MARKS = {"baked": "good", "slightly overbaked": "warn", "underbaked": "warn", "overbaked": "reject", "unsure": "note"}


@dataclass(frozen=True, slots=True)
class Told:
    """Everything a report tells. `trained` are the training pictures' names and pictures, as nearest ones index them;
    `facts` are lines of settings and cost."""

    name: str
    verdict: Verdict
    checkpoints: Sequence[Measured]
    cells: Sequence[Cell]
    trained: Sequence[tuple[str, Image.Image]]
    facts: Mapping[str, str]
    notes: Sequence[str]
    trigger: str


def html(told: Told) -> bytes:
    """The page: verdict, grid, curves, nearest training pictures, cost."""
    verdict = told.verdict
    body = [f"<h1>{escape(told.name)}: {_mark(verdict.word)}</h1>", f"<p>{escape(sentence(verdict))}</p>"]
    body += [_list("Why", verdict.reasons), _list("Next time", verdict.advice), _table(told)]
    body += [_grids(told), _curves(told), _nearest(told)]
    facts = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in told.facts.items())
    body.append(f"<h2>Settings and cost</h2><table>{facts}</table>")
    body += [f'<p class="soft">{escape(note)}</p>' for note in told.notes]
    return page(f"{told.name}: {verdict.word}", "".join(body))


def sentence(verdict: Verdict) -> str:
    """Which checkpoint to use, and at what strength."""
    if verdict.strength is None:
        what = "draws nearer to the set" if verdict.by == "style" else "explains the pictures better"
        return f"No checkpoint {what} than the base does; the least bad is {verdict.best}."
    strength = f" at strength {verdict.usable[0]:g} to {verdict.usable[1]:g}" if verdict.usable else ""
    best = f", best at {verdict.strength:g}" if verdict.usable else ""
    return f"Use {verdict.best} ({verdict.words[verdict.best]}){strength}{best}."


def card(told: Told) -> str:
    """README.md: what it is, how to use it, how it was made, and what is not known of it."""
    verdict = told.verdict
    lines = [f"# {told.name}", "", f"**{verdict.word}**. {sentence(verdict)}", ""]
    if told.trigger:
        lines += [f"Trigger: `{told.trigger}`", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in told.facts.items()), ""]
    lines += ["## What was measured", "", *(f"- {reason.text}" for reason in verdict.reasons), ""]
    lines += ["## Limits", "", *(f"- {limit}" for limit in limits(told)), ""]
    return "\n".join(lines)


def limits(told: Told) -> list[str]:
    """What this verdict cannot know, and what was found wanting."""
    found = [f"Judged on {told.verdict.heldout} pictures that were not trained on."] if told.verdict.heldout else [
        "No pictures were held out: what it learned cannot be told from what it memorised."
    ]  # fmt: skip
    if 0 < told.verdict.heldout < 8:
        found.append("So few pictures give wide intervals: look at the drawings before you rely on it.")
    copied = [cell for cell in told.cells if cell.nearest and cell.nearest.copied]
    if copied:
        found.append(f"{len(copied)} of its drawings are copies of training pictures.")
    found.append("Measured on one base only; on others it may need another strength.")
    return [*found, *told.notes]


def _mark(word: str) -> str:
    return f'<span class="tag {MARKS[word]}" style="font-size:1.1rem">{escape(word)}</span>'


def _list(title: str, reasons: Sequence[Reason]) -> str:
    if not reasons:
        return ""
    rows = "".join(
        f'<li>{escape(one.text)} <span class="soft">[{escape(", ".join(one.evidence))}]</span></li>' for one in reasons
    )
    return f"<h2>{title}</h2><ul>{rows}</ul>"


def _table(told: Told) -> str:
    head = "".join(f"<th>{name}</th>" for name in (
        "checkpoint", "word", "best strength", f"worth there by {told.verdict.by}", "gain at 1", "on trained pictures",
        "copies at 1", "style", "fidelity", "prompt followed", "leak", "diversity", "change of weights", "rank used",
    ))  # fmt: skip
    rows = "".join(_row(one, told.verdict) for one in told.checkpoints)
    return f'<h2>Checkpoints</h2><div style="overflow-x:auto"><table><tr>{head}</tr>{rows}</table></div>'


def _row(one: Measured, verdict: Verdict) -> str:
    strength, worth = verdict.tops[one.name]
    drawn = one.drawn.get(1.0)
    shown = (
        [drawn.copied, drawn.style, drawn.fidelity, drawn.following, drawn.leak, drawn.diversity]
        if drawn
        else [None] * 6
    )
    cells = [
        f"<b>{escape(one.name)}</b>" if one.name == verdict.best else escape(one.name), _mark(verdict.words[one.name]),
        *((f"{strength:.2f}", f"{worth:+.3f}") if strength else ("", "")),
        *(escape(each) if each and each.known else "" for each in (one.gain, one.trained)),
        *("" if value is None else f"{value:.2f}" for value in shown),
        f"{one.weights.share:.3f}" if one.weights else "", f"{one.weights.directions:.0%}" if one.weights else "",
    ]  # fmt: skip
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _grids(told: Told) -> str:
    """A grid for each finalist: a row a prompt, the base first, then its strengths; the same seeds everywhere."""
    base = {(cell.prompt, cell.seed): cell for cell in told.cells if not cell.lora}
    text = []
    for lora in dict.fromkeys(cell.lora for cell in told.cells if cell.lora):
        text.append(f"<h2>{escape(lora)} at its strengths</h2>")
        own = [cell for cell in told.cells if cell.lora == lora]
        for prompt, seed in dict.fromkeys((cell.prompt, cell.seed) for cell in own):
            row = [cell for cell in own if (cell.prompt, cell.seed) == (prompt, seed)]
            figures = [_figure(base[prompt, seed], "base")] if (prompt, seed) in base else []
            figures += [_figure(cell, f"strength {cell.strength:g}") for cell in row]
            text.append(f'<p class="soft">{escape(prompt)} (seed {seed})</p><div class="row">{"".join(figures)}</div>')
    return "".join(text)


def _figure(cell: Cell, caption: str) -> str:
    copied = cell.nearest is not None and cell.nearest.copied
    mark = ' <span class="tag reject">copy</span>' if copied else ""
    return figure(jpeg(cell.picture), escape(caption) + mark)


def _curves(told: Told) -> str:
    steps = [float(one.step) for one in told.checkpoints]
    what = "held-out pictures" if told.verdict.heldout else "trained pictures"
    lines = [Line(what, steps, [one.gain for one in told.checkpoints])]
    if told.verdict.heldout and all(one.trained for one in told.checkpoints):
        lines.append(Line("trained pictures", steps, [one.trained for one in told.checkpoints if one.trained]))
    text = "<h2>Gain over the base, with 95 % intervals over the pictures</h2>"
    if len(steps) > 1:
        text += plot(lines, "step", "gain at strength 1")
    curves = [
        Line(one.name, sorted(one.curve), [interval(one.curve[s]) for s in sorted(one.curve)])
        for one in told.checkpoints[-4:]
    ]
    return _styles(told) + text + plot(curves, "strength", f"gain on {what}")


def _styles(told: Told) -> str:
    """How far drawings come over strengths, for the checkpoints that drew enough."""
    lines = [
        Line(one.name, sorted(styles), [Interval(styles[s], styles[s], styles[s], 1) for s in sorted(styles)])
        for one in told.checkpoints if (styles := one.styles)
    ]  # fmt: skip
    title = "<h2>How far drawings come from the base's (0) to the set's (1), less copies</h2>"
    return title + plot(lines, "strength", "style") if lines else ""


def _nearest(told: Told) -> str:
    """Each drawing at strength 1 beside the training picture that it is most like, the likest first."""
    held = [cell for cell in told.cells if cell.nearest and cell.nearest.index >= 0 and cell.strength == 1.0]
    pairs = []
    for cell in sorted(held, key=lambda cell: cell.nearest.share if cell.nearest else 1)[:12]:
        assert cell.nearest is not None
        name, picture = told.trained[cell.nearest.index]
        share = f"distance {cell.nearest.distance:.2f}, {cell.nearest.share:.2f} of what is usual in this set"
        pairs.append(f'<div class="row">{_figure(cell, cell.lora)}{figure(jpeg(picture), escape(name))}'
                     f'<p class="soft">{escape(share)}</p></div>')  # fmt: skip
    return "<h2>Nearest training pictures</h2>" + "".join(pairs) if pairs else ""


def jpeg(picture: Image.Image) -> bytes:
    """A small picture for the page."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=85)
    return stored.getvalue()
