"""How far a set is from what its purpose wants, picture by picture; each rule names where it comes from.

Rules S1 to S8 are the rows of the evidence page: what the guides say about datasets, and what checking them showed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Literal

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.records import Crop
from lorakiln.curate.balance import Balance
from lorakiln.curate.duplicates import Duplicates
from lorakiln.curate.picture import Picture, Refused

Level = Literal["reject", "warn", "note", "good"]
# Faults that `--apply` moves away unless told to keep them; the others are for the user to judge.
REJECTS = ("unreadable", "copy", "blurred", "empty", "small")

_EMPTY = 0.985
_SMALL = 0.5  # of the resolution's side
MUCH_LOST = 0.15  # of a picture, cut off by its bucket
_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a kind of LoRA wants: how many pictures, and how varied (Vendi score as a share of all pictures)."""

    fewest: int
    most: int
    least_varied: float
    most_varied: float
    wants: str


PURPOSES: Mapping[str, Purpose] = {
    "character": Purpose(20, 40, 0.04, 0.60, "one identity throughout; pose, angle, light and background varied"),
    "style": Purpose(50, 100, 0.08, 1.0, "many subjects drawn in one manner"),
    "concept": Purpose(20, 60, 0.05, 0.80, "the one thing in every picture, everything else varied"),
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding: how serious, what and why, the rule it comes from, and the pictures it is about, each with its own
    reason."""

    level: Level
    fault: str
    text: str
    rule: str
    pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.pictures)


def blurred_below(picture: Picture) -> float:
    """The sharpness that is too little: edges spread by 2 pixels in a picture of 512, by 3 in one of 1024 or more."""
    side = min(max(*picture.size, 512), 1024)
    return 0.3 - 0.1 * (side - 512) / 512


def faults(picture: Picture, resolution: int, lost: float) -> Iterator[tuple[Level, str, str]]:
    """(level, fault, reason) of one picture to be trained at `resolution`, its crop cutting off `lost` of it."""
    measures, short = picture.measures, min(picture.size)
    if measures.flat > _EMPTY or measures.contrast < 3:
        yield "reject", "empty", f"{measures.flat:.1%} of it is one colour"
    blurred = measures.sharpness < blurred_below(picture)
    if blurred:
        yield "reject", "blurred", f"edges are spread over about {1 / max(measures.sharpness, 0.02):.0f} pixels"
    if short < _SMALL * resolution:
        yield "reject", "small", f"{picture.size}: would be enlarged {resolution / short:.1f} times"
    elif picture.pixels < 0.8 * resolution**2:
        yield "warn", "enlarge", f"{picture.size}: less than {resolution}x{resolution}, so it is enlarged"
    if measures.detail < 0.65 and not blurred:
        yield "warn", "soft", f"was enlarged or blurred: {measures.detail:.0%} of its size would hold the same detail"
    if any(measures.border):
        bars = [f"{side} {width}" for side, width in zip(_SIDES, measures.border, strict=True) if width]
        yield "warn", "border", f"bars, in pixels: {', '.join(bars)}; --trim writes a copy without"
    if measures.text_band > 0.7:
        yield "warn", "text", "what looks like a line of text near an edge; a watermark is learned like all else"
    if measures.jpeg_quality is not None and measures.jpeg_quality < 60:
        yield "warn", "compressed", f"JPEG quality {measures.jpeg_quality}: its blocks are learned too"
    if lost > MUCH_LOST:
        yield "warn", "cropped", f"its bucket cuts off {lost:.0%}; --crop writes a copy of that shape to look at"
    if picture.note:
        yield "warn", "moving", picture.note
    if measures.transparent > 0.02:
        yield (
            "note",
            "transparent",
            f"{measures.transparent:.0%} of it is see-through; it trains on a plain ground",
        )


def unfit(picture: Picture, resolution: int, keep: Collection[str] = ()) -> bool:
    """Whether a picture would be rejected for what it is, whatever the others are."""
    return any(level == "reject" and fault not in keep for level, fault, _ in faults(picture, resolution, 0.0))


def staying(
    pictures: Sequence[Picture], found: Duplicates, resolution: int, keep: Collection[str] = ()
) -> list[Picture]:
    """The pictures that nothing rejects: no copies of a better one, and fit themselves."""
    copies = set() if "copy" in keep else {copy.picture.name for group in found.groups for copy in group.copies}
    return [one for one in pictures if one.name not in copies and not unfit(one, resolution, keep)]


@dataclass(frozen=True, slots=True)
class Findings:
    """What scanning and comparing a set gave, how each picture would be cropped, and the numbers of what stays."""

    pictures: Sequence[Picture]
    refused: Sequence[Refused]
    duplicates: Duplicates
    crops: Mapping[str, Crop]
    staying: Sequence[Picture]
    balance: Balance


def advise(purpose: str, resolution: int, findings: Findings, keep: Collection[str] = ()) -> list[Advice]:
    """Everything to be said about a set, the most serious first; faults to `keep` are no reason to reject.

    Raises UserError for an unknown purpose or fault.
    """
    check(purpose, keep)
    advice = [*_files(findings.refused, findings.duplicates), *_pictures(findings, resolution)]
    advice = [replace(one, level="warn") if one.fault in keep else one for one in advice]
    advice += [*_whole(PURPOSES[purpose], purpose, findings), *_even(findings.balance)]
    order = ["reject", "warn", "note", "good"]
    return sorted(advice, key=lambda entry: order.index(entry.level))


def check(purpose: str, keep: Collection[str]) -> None:
    """Raises UserError for an unknown purpose or a fault that rejects nothing."""
    if purpose not in PURPOSES:
        raise UserError(f"unknown purpose '{purpose}'{nearest(purpose, PURPOSES)}")
    for fault in keep:
        if fault not in REJECTS:
            raise UserError(f"--keep {fault}: is not a reason to reject{nearest(fault, REJECTS)}")


def _count(things: Sized, one: str, many: str = "") -> str:
    return f"{len(things)} {one if len(things) == 1 else many or one + 's'}"


def _files(refused: Sequence[Refused], found: Duplicates) -> Iterator[Advice]:
    for tried, level, fault, text in (
        (True, "reject", "unreadable", "{} cannot be read"),
        (False, "warn", "format", "{} of a format that is not read; save as PNG, JPEG or WebP"),
    ):
        reasons = {entry.name: entry.reason for entry in refused if entry.tried == tried}
        if reasons:
            yield Advice(level, fault, text.format(_count(reasons, "file")), "", reasons)
    copies = {copy.picture.name: f"{copy.what}: {group.best.name}" for group in found.groups for copy in group.copies}
    if copies:
        of = _count(found.groups, "picture")
        text = f"{_count(copies, 'copy', 'copies')} of {of}; a copy is a repeat that nobody chose"
        yield Advice("reject", "copy", text, "S3", copies)


def _pictures(findings: Findings, resolution: int) -> Iterator[Advice]:
    """One finding a kind of fault, with its pictures and their reasons."""
    by_fault: dict[tuple[Level, str], dict[str, str]] = {}
    for picture in findings.pictures:
        for level, fault, reason in faults(picture, resolution, findings.crops[picture.name].lost):
            by_fault.setdefault((level, fault), {})[picture.name] = reason
    rules = {"small": "S2", "enlarge": "S2", "cropped": "S8", "blurred": "S3", "empty": "S3"}
    for (level, fault), reasons in by_fault.items():
        text = next(iter(reasons.values())) + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "")
        yield Advice(level, fault, text, rules.get(fault, ""), reasons)


def _whole(wanted: Purpose, purpose: str, findings: Findings) -> Iterator[Advice]:
    left, balance = findings.staying, findings.balance
    count = len(left)
    if count < wanted.fewest:
        text = f"{count} good pictures; a {purpose} wants {wanted.fewest}-{wanted.most}"
        yield Advice("warn", "few", text, "S1")
    elif count > wanted.most:
        text = f"{count} good pictures; {wanted.fewest}-{wanted.most} of the best teach a {purpose} as well, faster"
        yield Advice("note", "many", text, "S1")
    else:
        text = f"{count} good pictures, as a {purpose} wants ({wanted.fewest}-{wanted.most})"
        yield Advice("good", "count", text, "S1")
    stays, near = {one.name for one in left}, {}
    for poses in findings.duplicates.near:
        first, *others = [one.name for one in poses.pictures if one.name in stays] or [""]
        near |= dict.fromkeys(others, f"like {first}")
    if near:
        text = f"near poses of others: {_count(near, 'picture')}; steps are spent on what is known already"
        yield Advice("warn", "near", text, "S3", near)
    if count > 4 and balance.variety < wanted.least_varied:
        text = f"variety {balance.variety:.2f}, below {wanted.least_varied}: a {purpose} wants {wanted.wants}"
        alike = {name: f"{likeness:.0%} like the five next to it" for name, likeness in balance.redundant}
        yield Advice("warn", "alike", text, "S3", alike)
    if count > 4 and balance.variety > wanted.most_varied:
        text = f"variety {balance.variety:.2f}, above {wanted.most_varied}: a {purpose} wants {wanted.wants}"
        yield Advice("warn", "unlike", text, "S1")
    if count > 8 and balance.sources < 2:
        yield Advice("note", "source", "all pictures seem to come from one source, whose habits are learned too", "S3")
    if left and max(p.pixels for p in left) > 6 * min(p.pixels for p in left):
        sizes = f"{min(left, key=lambda p: p.pixels).size} to {max(left, key=lambda p: p.pixels).size}"
        yield Advice("note", "sizes", f"sizes differ widely ({sizes}), so sharpness will too", "S3")


def _even(balance: Balance) -> Iterator[Advice]:
    repeats = {name: count for name, count in balance.repeats.items() if count != balance.given[name]}
    if repeats:
        text = "uneven groups; repeat " + ", ".join(f"'{name or '.'}' {count}x" for name, count in repeats.items())
        yield Advice("note", "uneven", text, "")
