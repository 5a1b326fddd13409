"""What was found in a set, as a page to look at and as plain values for other programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lorakiln.base.errors import shown
from lorakiln.base.html import bars, escape, figure, page
from lorakiln.base.records import Crop
from lorakiln.curate.advice import Advice, Findings
from lorakiln.curate.picture import Picture
from lorakiln.curate.scan import Scan

_MOST_SHOWN = 400  # thumbnails a page: each is some 7 KB
_MOST_A_FAULT = 24

Thumbnail = Callable[[str], bytes]


def page_of(scan: Scan, findings: Findings, advice: Sequence[Advice], notes: Sequence[str], purpose: str) -> bytes:
    """The whole report as one HTML file."""
    found, balance = findings.duplicates, findings.balance
    cards = {
        "pictures": len(scan.pictures),
        "stay": len(findings.staying),
        "copies": sum(len(group.copies) for group in found.groups),
        "near poses": sum(len(poses.pictures) - 1 for poses in found.near),
        "unreadable": len(scan.refused),
        "variety": f"{balance.variety:.2f}",
        "sources": f"{balance.sources:g}",
    }
    parts = [
        f"<h1>{escape(shown(str(scan.folder)))}</h1><p class='soft'>judged for a {escape(purpose)}</p>",
        _cards(cards),
        "<h2>Advice</h2>" + _advice(advice),
        *_groups(scan, findings),
        *_flagged(scan, advice),
        *_redundant(scan, findings),
        *_balance(findings),
        *_remarks(scan, notes),
    ]
    return page(f"{shown(scan.folder.name)}: curated", "".join(parts))


def values_of(scan: Scan, findings: Findings, advice: Sequence[Advice], notes: Sequence[str]) -> dict[str, Any]:
    """Everything for `--json`: paths as given, groups with the best copy first."""

    def path(name: str) -> str:
        return str(scan.folder / name)

    def told(one: Advice) -> dict[str, Any]:
        reasons = {path(name): reason for name, reason in one.pictures.items()}
        said = {"level": one.level, "fault": one.fault, "text": one.text, "rule": one.rule}
        return said | {"paths": list(reasons), "reasons": reasons}

    found, balance = findings.duplicates, findings.balance
    return {
        "folder": str(scan.folder),
        "pictures": len(scan.pictures),
        "read": scan.read,
        "unreadable": [{"path": path(entry.name), "reason": entry.reason} for entry in scan.refused],
        "duplicates": [[path(name) for name in group.names] for group in found.groups],
        "near_poses": [[path(picture.name) for picture in poses.pictures] for poses in found.near],
        "advice": [told(one) for one in advice],
        "staying": len(findings.staying),
        "concepts": balance.concepts,
        "repeats": balance.repeats,
        "buckets": {str(size): count for size, count in balance.buckets.items()},
        "aspects": balance.aspects,
        "variety": balance.variety,
        "sources": balance.sources,
        "redundant": [{"path": path(name), "likeness": likeness} for name, likeness in balance.redundant],
        "measures": {path(one.name): _measures(one, findings.crops[one.name]) for one in scan.pictures},
        "notes": list(notes),
    }


def _measures(picture: Picture, crop: Crop) -> dict[str, Any]:
    """`scale` is by how much it is enlarged for its bucket (1: not at all), `lost` the share that its crop cuts off."""
    measures = picture.measures
    trained = {"bucket": str(crop.target), "scale": round(scale_of(crop), 3), "lost": round(crop.lost, 4)}
    return {"size": str(picture.size)} | {name: getattr(measures, name) for name in type(measures).__slots__} | trained


def _cards(cards: Mapping[str, object]) -> str:
    inner = "".join(f'<div class="card"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in cards.items())
    return f'<div class="cards">{inner}</div>'


def _advice(advice: Sequence[Advice]) -> str:
    rows = "".join(
        f'<tr><td><span class="tag {entry.level}">{entry.level}</span></td><td>{escape(entry.fault)}</td>'
        f"<td>{escape(shown(entry.text))}</td><td class='soft'>{escape(entry.rule)}</td></tr>"
        for entry in advice
    )
    return f"<table>{rows}</table>"


def _groups(scan: Scan, findings: Findings) -> list[str]:
    """Copies side by side, the largest groups first and the best of each in front; then near poses."""
    rows, left = [], _MOST_SHOWN // 2
    groups = sorted(findings.duplicates.groups, key=lambda group: -len(group.copies))
    for group in groups:
        figures = [_figure(scan, group.best, "kept", True)]
        figures += [_figure(scan, copy.picture, copy.what) for copy in group.copies[:12]]
        left -= len(figures)
        if left < 0:
            break
        rows.append(figures)
    parts = _rows("Copies of one picture", "The best copy is outlined.", rows)
    if len(rows) < len(groups):
        parts.append(f"<p class='soft'>{len(groups) - len(rows)} more groups are in the --json output.</p>")
    near = [[_figure(scan, one, "") for one in poses.pictures[:8]] for poses in findings.duplicates.near[:20]]
    return parts + _rows("Near poses", "Alike, not the same: a few of each are enough.", near)


def _rows(title: str, intro: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """Sets of figures, as many beside each other as fit."""
    if not rows:
        return []
    sets = "".join(f'<div class="row" style="margin:0">{"".join(figures)}</div>' for figures in rows)
    return [
        f"<h2>{title}</h2><p class='soft'>{intro}</p>",
        f'<div style="display:flex;flex-wrap:wrap;gap:.6rem">{sets}</div>',
    ]


def _flagged(scan: Scan, advice: Sequence[Advice]) -> list[str]:
    """The pictures of each fault but copies, each with its own reason."""
    pictures = {picture.name: picture for picture in scan.pictures}
    parts = []
    for entry in advice:
        there = [pictures[name] for name in entry.names if name in pictures]
        if there and entry.fault not in ("copy", "near", "alike"):
            figures = [_figure(scan, picture, entry.pictures[picture.name]) for picture in there[:_MOST_A_FAULT]]
            parts.append(f"<h2>{escape(entry.fault)}: {len(there)} of {len(scan.pictures)} pictures</h2>")
            parts.append(f'<div class="row">{"".join(figures)}</div>')
    return parts


def _redundant(scan: Scan, findings: Findings) -> list[str]:
    """The pictures that the set would miss least."""
    pictures = {picture.name: picture for picture in findings.staying}
    if len(pictures) <= _MOST_A_FAULT // 4:
        return []
    figures = [
        _figure(scan, pictures[name], f"{likeness:.0%} like five others")
        for name, likeness in findings.balance.redundant
    ]
    intro = "Of what stays, the pictures most like five others: the set would miss them least."
    return _rows("Most redundant", intro, [figures])


def _figure(scan: Scan, picture: Picture, what: str, best: bool = False) -> str:
    caption = f"{escape(shown(picture.name))}<br><span class='soft'>{picture.size} {picture.format}</span>"
    caption += f"<br>{escape(shown(what))}" if what else ""
    return figure(scan.index.thumbnail(picture.sha256), caption, best)


def _balance(findings: Findings) -> list[str]:
    """How what stays is distributed."""
    balance, total = findings.balance, max(len(findings.staying), 1)
    concepts = [
        (shown(name) or "(the folder itself)", count, f"{count}, repeat {balance.repeats[name]}x")
        for name, count in balance.concepts.items()
    ]
    buckets = {str(size): count for size, count in balance.buckets.items()}
    crops = [findings.crops[picture.name] for picture in findings.staying]
    return [
        "<h2>Sub-concepts</h2>" + bars(concepts[:40]),
        "<h2>Aspect</h2>" + bars(_shares(balance.aspects, total)),
        "<h2>Buckets</h2>" + bars(_shares(buckets, total)),
        "<h2>Enlarged or reduced for its bucket</h2>" + bars(_histogram([scale_of(crop) for crop in crops])),
        "<h2>Cut off by its bucket</h2>" + bars(_histogram([crop.lost for crop in crops])),
        "<h2>Sharpness</h2>" + bars(_histogram([picture.measures.sharpness for picture in findings.staying])),
    ]


def _shares(counts: Mapping[str, int], total: int) -> list[tuple[str, float, str]]:
    return [(name, count, f"{count} ({count / total:.0%})") for name, count in counts.items()]


def scale_of(crop: Crop) -> float:
    """By how much a picture is enlarged for its bucket; 1: not at all."""
    return crop.resized.width / crop.original.width


def _histogram(values: Sequence[float]) -> list[tuple[str, float, str]]:
    counts, edges = np.histogram(values, bins=10)
    return [
        (f"{low:.2f} to {high:.2f}", float(count), str(count))
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _remarks(scan: Scan, notes: Sequence[str]) -> list[str]:
    lines = [entry.reason for entry in scan.refused] + list(notes)
    lines += [f"{picture.name}: {picture.note}" for picture in scan.pictures if picture.note]
    if not lines:
        return []
    return ["<h2>Read with a remark, or not at all</h2>" + "".join(f"<p>{escape(shown(line))}</p>" for line in lines)]
