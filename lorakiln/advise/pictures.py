"""What can be known of a dataset in a second: sizes from file headers, captions, buckets; no pixel is decoded."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.base.settings import Dataset, Recipe
from lorakiln.data import split
from lorakiln.data.buckets import Buckets
from lorakiln.data.dataset import DatasetSpec, subfolders
from lorakiln.tag import captions

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
HOLDABLE, HELD_SHARE = 30, 0.1  # pictures from which some can be spared for the judge, and the share of them
COMMON = 0.8  # share of captions that a tag must be in to be the trigger
Kind = Literal["tags", "prose", "mixed", "none"]


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture as it will be trained: its crop into a bucket, its caption (None: no file), visits an epoch.

    `content` tells equal files apart from different ones (size and both ends of the file)."""

    path: str
    size: Size
    crop: Crop
    caption: str | None
    visits: int
    content: str
    table: int = 0
    trigger: str = ""

    @property
    def enlarged(self) -> float:
        """How much the picture's side is stretched; 1 or less: not at all."""
        return self.crop.resized.width / self.size.width


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures of a recipe. `near` counts near-duplicates that `kiln curate` found, None where it was never run."""

    shown: tuple[Shown, ...]
    near: int | None = None
    unreadable: tuple[str, ...] = ()
    tags_of: tuple[tuple[str, ...], ...] = field(default=())

    @property
    def count(self) -> int:
        return len(self.shown)

    def buckets(self) -> dict[Size, int]:
        """Visits an epoch by bucket."""
        found: Counter[Size] = Counter()
        for one in self.shown:
            if one.visits:
                found[one.crop.target] += one.visits
        return dict(found)

    def holding_out(self, heldout: float, table: int = 0) -> "Pictures":
        """The same with `dataset.heldout` of a table's pictures not visited.

        Which they will be is decided by content and copies; here they lie evenly among the rest, so that buckets of
        more than one shape may come out a picture apart.
        """
        own = [place for place, one in enumerate(self.shown) if one.table == table]
        count = split.wanted(heldout, len(own), str(table)) if own else 0
        held = {own[(2 * n + 1) * len(own) // (2 * count)] for n in range(count)}
        shown = (replace(one, visits=0) if place in held else one for place, one in enumerate(self.shown))
        return replace(self, shown=tuple(shown))

    def steps_per_epoch(self, batch: int, accumulate: int = 1) -> int:
        """What a run makes of them: batches by bucket, the last of each possibly smaller."""
        batches = sum(-(-visits // batch) for visits in self.buckets().values())
        return -(-batches // accumulate)

    def written(self, table: int | None = None) -> list[str]:
        """Captions that are there, of one dataset or all."""
        return [one.caption for one in self.shown if one.caption and table in (None, one.table)]


def look(tables: Sequence[Dataset], resolution: int) -> Pictures:
    """Every picture of the recipe's datasets. Raises UserError for a missing or empty folder."""
    shown: list[Shown] = []
    bad: list[str] = []
    near: list[int] = []
    for number, table in enumerate(tables):
        side = table.resolution or resolution
        buckets = Buckets(
            Size(side, side), table.bucket_step, table.bucket_min, table.bucket_max, table.no_upscale, table.bucket
        )
        spec = DatasetSpec(
            Path(table.folder), table.repeats, buckets, masks=_masks(table.masks), folder_names=table.folder_names
        )
        read = captions.reader(table.extensions)
        for part in subfolders(spec, captions.parse_folder):
            found = [path for path in sorted(part.folder.rglob("*")) if _is_picture(path, part.folder)]
            for path in found:
                try:
                    one = _shown(path, part, read(path), number)
                except (OSError, UserError, Image.DecompressionBombError) as error:
                    bad.append(f"{path}: {error}")
                else:
                    shown.append(one)
        near += _near(Path(table.folder))
    if not shown:
        raise UserError(f"{tables[0].folder}: holds no picture ({' '.join(sorted(images.EXTENSIONS))})")
    pictures = Pictures(tuple(shown), sum(near) if near else None, tuple(bad))
    for number, table in enumerate(tables):
        pictures = pictures.holding_out(table.heldout, number)
    return pictures


def _masks(text: str) -> Path | Literal["", "alpha"]:
    return "alpha" if text == "alpha" else Path(text) if text else ""


def look_at_recipe(recipe: Recipe, resolution: int) -> Pictures:
    return look(recipe.dataset, resolution)


def _is_picture(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.suffix.lower() in images.EXTENSIONS and not any(part.startswith((".", "_rejected")) for part in parts)


def _shown(path: Path, part: DatasetSpec, caption: str | None, table: int) -> Shown:
    size = picture_size(path)
    return Shown(str(path), size, part.buckets.fit(size), caption, part.repeats, _content(path), table, part.trigger)


def picture_size(path: Path) -> Size:
    """Width and height as a viewer shows them, from the file's header alone."""
    with Image.open(path) as image:
        width, height = image.size
        if image.format in ("JPEG", "WEBP", "MPO") and image.getexif().get(0x0112) in SIDEWAYS:
            width, height = height, width
        return Size(width, height)


def _content(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8192)
        stream.seek(max(0, size - 8192))
        return hashlib.sha256(f"{size} ".encode() + head + stream.read()).hexdigest()


def _near(folder: Path) -> list[int]:
    """How many pictures still there `kiln curate` called copies of others still there; empty without its index."""
    index = folder / ".kiln" / "curate.sqlite"
    if not index.is_file():
        return []
    import json
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=0.5)) as known:
            pictures = known.execute("select name, sha256 from pictures").fetchall()
            pairs = known.execute("select first, second, relation from pairs").fetchall()
    except sqlite3.Error:
        return []
    here = {content for name, content in pictures if (folder / os.fsdecode(name)).is_file()}
    copies = [(one, two) for one, two, relation in pairs if json.loads(relation).get("kind") == "copy"]
    return [len({two for one, two in copies if one in here and two in here})]


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
