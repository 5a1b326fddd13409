"""What can be known of a dataset in a second: sizes, captions, buckets, copies; no pixel is decoded.

Sizes and contents come from the index that `kiln curate` keeps, and from the files' headers where it does not know
them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image

from lorakiln.advise import scanned
from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.files import sha256
from lorakiln.base.records import Crop, Size
from lorakiln.base.settings import Dataset, Recipe
from lorakiln.data import split
from lorakiln.data.buckets import Buckets
from lorakiln.data.dataset import DatasetSpec, picture_files, subfolders
from lorakiln.tag import captions

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
HOLDABLE, HELD_SHARE = 30, 0.1  # pictures from which some can be spared for the judge, and the share of them
SEED = Recipe.model_fields["seed"].default  # of a recipe that names none
READ = 256 * 2**20  # bytes of pictures that are read to tell their contents, where no index does
COMMON = 0.8  # share of captions that a tag must be in to be the trigger
Kind = Literal["tags", "prose", "mixed", "none"]


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture as it will be trained: its crop into a bucket, its caption (None: no file), visits an epoch.

    `sha256` is its file's, "" where nobody has read it: then no other file is as long."""

    path: str
    size: Size
    crop: Crop
    caption: str | None
    visits: int
    sha256: str
    table: int = 0
    trigger: str = ""

    @property
    def enlarged(self) -> float:
        """How much the picture's side is stretched; 1 or less: not at all."""
        return self.crop.resized.width / self.size.width


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures of a recipe.

    `copies` are pairs of contents that `kiln curate` found to be one picture; `unscanned` counts the pictures that its
    index does not know as they are now.
    """

    shown: tuple[Shown, ...]
    copies: frozenset[scanned.Pair] = frozenset()
    unscanned: int = 0
    unreadable: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.shown)

    @property
    def exact(self) -> bool:
        """Whether those held out, and so the steps, are the very ones that training will choose."""
        return all(one.sha256 for one in self.shown) or all(one.visits for one in self.shown)

    @property
    def near(self) -> int:
        """How many pictures are copies of others among them, though not the same file."""
        here = {one.sha256 for one in self.shown}
        return len({two for one, two in self.copies if one in here and two in here})

    def buckets(self) -> dict[Size, int]:
        """Visits an epoch by bucket."""
        found: Counter[Size] = Counter()
        for one in self.shown:
            if one.visits:
                found[one.crop.target] += one.visits
        return dict(found)

    def repeated(self, times: int) -> "Pictures":
        """The same, each visited so many times as often."""
        if times == 1:
            return self
        return replace(self, shown=tuple(replace(one, visits=one.visits * times) for one in self.shown))

    def cut_to(self, buckets: Buckets) -> "Pictures":
        """The same, cut to other buckets. Raises UserError for one that fits none of them."""
        crops = {size: buckets.fit(size) for size in {one.size for one in self.shown}}
        return replace(self, shown=tuple(replace(one, crop=crops[one.size]) for one in self.shown))

    def holding_out(self, heldout: float, table: int = 0, seed: int = SEED) -> "Pictures":
        """The same with `dataset.heldout` of a table's pictures not visited: those that training will choose.

        Where not all contents are known they lie evenly among the rest, so that buckets of more than one shape may come
        out a picture apart.
        """
        own = [place for place, one in enumerate(self.shown) if one.table == table]
        count = split.wanted(heldout, len(own), str(table)) if own else 0
        if not count:
            return self
        if all(one.sha256 for one in self.shown):
            groups = [group for group in self._groups() if all(self.shown[at].table == table for at in group)]
            held = split.choose(self.shown, groups, count, seed)
        else:
            held = {own[(2 * n + 1) * len(own) // (2 * count)] for n in range(count)}
        shown = (replace(one, visits=0) if place in held else one for place, one in enumerate(self.shown))
        return replace(self, shown=tuple(shown))

    def _groups(self) -> list[list[int]]:
        """Their places in sets of copies."""
        from lorakiln.curate.duplicates import join

        first: dict[str, int] = {}
        pairs = [(first.setdefault(one.sha256, at), at) for at, one in enumerate(self.shown)]
        pairs += [(first[one], first[two]) for one, two in sorted(self.copies) if one in first and two in first]
        return join(self.count, pairs)

    def steps_per_epoch(self, batch: int, accumulate: int = 1) -> int:
        """What a run makes of them: batches by bucket, the last of each possibly smaller."""
        batches = sum(-(-visits // batch) for visits in self.buckets().values())
        return -(-batches // accumulate)

    def written(self, table: int | None = None) -> list[str]:
        """Captions that are there, of one dataset or all."""
        return [one.caption for one in self.shown if one.caption and table in (None, one.table)]


def look(tables: Sequence[Dataset], resolution: int, seed: int = SEED) -> Pictures:
    """Every picture of the recipe's datasets. Raises UserError for a missing or empty folder."""
    shown: list[Shown] = []
    bad: list[str] = []
    parts = [(number, part) for number, table in enumerate(tables) for part in _parts(table, resolution)]
    known = scanned.read({Path(table.folder) for table in tables} | {part.folder for _, part in parts})
    files = [(path, number, part) for number, part in parts for path in picture_files(part)]
    readers = [captions.reader(table.extensions) for table in tables]
    unscanned = 0
    for path, number, part in files:
        try:
            measured = known.of(path, path.stat())
            size = measured.size if measured else picture_size(path)
            crop = part.buckets.fit(size)
            caption = readers[number](path)
        except (OSError, UserError, Image.DecompressionBombError) as error:
            bad.append(f"{path}: {error}")
            continue
        content = measured.sha256 if measured else ""
        unscanned += not measured
        shown.append(Shown(str(path), size, crop, caption, part.repeats, content, number, part.trigger))
    if not shown:
        raise UserError(f"{tables[0].folder}: holds no picture ({' '.join(sorted(images.EXTENSIONS))})")
    pictures = Pictures(_with_contents(shown), known.copies, unscanned, tuple(bad))
    for number, table in enumerate(tables):
        pictures = pictures.holding_out(table.heldout, number, seed)
    return pictures


def _parts(table: Dataset, resolution: int) -> list[DatasetSpec]:
    """A table's folder, or its folders where they name their repeats."""
    side = table.resolution or resolution
    buckets = Buckets(
        Size(side, side), table.bucket_step, table.bucket_min, table.bucket_max, table.no_upscale, table.bucket
    )
    spec = DatasetSpec(
        Path(table.folder), table.repeats, buckets, masks=_masks(table.masks), folder_names=table.folder_names
    )
    return subfolders(spec, captions.parse_folder)


def _with_contents(shown: Sequence[Shown]) -> tuple[Shown, ...]:
    """The same with the contents of all, or, where that is too much to read, of those that could be copies."""
    lengths = [Path(one.path).stat().st_size for one in shown]
    times = Counter(lengths)
    few = sum(length for one, length in zip(shown, lengths, strict=True) if not one.sha256) <= READ
    return tuple(
        replace(one, sha256=sha256(Path(one.path))) if not one.sha256 and (few or times[length] > 1) else one
        for one, length in zip(shown, lengths, strict=True)
    )


def _masks(text: str) -> Path | Literal["", "alpha"]:
    return "alpha" if text == "alpha" else Path(text) if text else ""


def look_at_recipe(recipe: Recipe, resolution: int) -> Pictures:
    return look(recipe.dataset, resolution, recipe.seed)


def picture_size(path: Path) -> Size:
    """Width and height as a viewer shows them, from the file's header alone."""
    with Image.open(path) as image:
        width, height = image.size
        if image.format in ("JPEG", "WEBP", "MPO") and image.getexif().get(0x0112) in SIDEWAYS:
            width, height = height, width
        return Size(width, height)


def kind_of(texts: Sequence[str]) -> Kind:
    """How captions are written: comma-separated tags, sentences, some of each, or not at all.

    A caption is tags when its pieces between commas are short (at most four words on average)."""
    if not texts:
        return "none"
    tagged = sum(_is_tags(text) for text in texts) / len(texts)
    return "tags" if tagged >= 0.9 else "prose" if tagged <= 0.1 else "mixed"


def _is_tags(text: str) -> bool:
    tags = captions.parse(text.splitlines()[0])
    words = [len(tag.split()) for tag in tags]
    return bool(tags) and sum(words) / len(words) <= 4 and not re.search(r"[.!?]\s+[A-Z]|[.!?]$", text.strip())


def trigger_place(texts: Sequence[str]) -> tuple[str, int] | None:
    """(the tag that nearly all captions share and that stands foremost, its usual place from 0), or None.

    The place is the last one that at least a tenth of the captions have it at, so that keeping so many keeps it."""
    return _trigger_place(tuple(texts))


@lru_cache(64)
def _trigger_place(texts: tuple[str, ...]) -> tuple[str, int] | None:
    parsed = [captions.parse(text.splitlines()[0]) for text in texts if text.strip()]
    if len(parsed) < 3:
        return None
    counts = Counter(tag for tags in parsed for tag in set(tags) if not QUALITY.fullmatch(tag))
    shared = [tag for tag, count in counts.items() if count >= COMMON * len(parsed)]
    if not shared:
        return None
    places = {tag: [tags.index(tag) for tags in parsed if tag in tags] for tag in shared}
    trigger = min(shared, key=lambda tag: (sum(places[tag]) / len(places[tag]), tag))
    common = [place for place, count in Counter(places[trigger]).items() if count >= 0.1 * len(parsed)]
    return trigger, max(common or places[trigger])


# words about the picture's quality or origin, which stand in front of a trigger without being it
QUALITY = re.compile(
    r"(score|source|rating)_.*|(best|amazing|worst|high|great|low) (quality|score)|masterpiece|absurdres|newest"
)


def spellings(texts: Sequence[str]) -> tuple[float, float]:
    """(share of captions with tags joined by underscores, share with the same kind of tags joined by spaces).

    Booru taggers write 'long_hair' or 'long hair'; both in one set are two words to the text encoder. Scores
    ('score_9', 'source_anime') and words that always have an underscore are not counted."""
    under = spaced = 0
    for text in texts:
        tags = [tag for tag in captions.parse(text.splitlines()[0]) if not re.match(r"(score|source|rating)_", tag)]
        under += any(re.fullmatch(r"[a-z]+(_[a-z]+)+", tag) and tag.split("_")[-1] in LAST_WORDS for tag in tags)
        spaced += any(" " in tag and tag.split()[-1] in LAST_WORDS for tag in tags)
    total = max(1, len(texts))
    return under / total, spaced / total


# what booru tags of two words mostly end with
_LAST = """hair eyes background shirt dress skirt smile mouth body hand hands breasts viewer girls boys hat bow gloves
    boots jacket ears tail wings legs clothes sleeves ribbon focus shot pose night sky standing sitting"""
LAST_WORDS = frozenset(_LAST.split())
