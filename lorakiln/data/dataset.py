"""Which pictures are trained on, with which captions: folders in, an ordered list of examples out."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.base.walk import REJECTED
from lorakiln.data.buckets import BucketRow, Buckets, bucket_report, flip

# (a caption as written, a 63-bit key) -> the caption of one visit
Draw = Callable[[str, int], str]
# picture file -> its caption, or None where no caption file lies beside it
ReadCaption = Callable[[Path], str | None]
# folder name -> (repeats, caption of pictures without a caption file), or None for an ordinary name
ParseFolder = Callable[[str], tuple[int, str] | None]


def as_written(caption: str, key: int) -> str:
    """The simplest `Draw`."""
    return caption


def no_captions(picture: Path) -> str | None:
    """The simplest `ReadCaption`."""
    return None


def ordinary_folder(name: str) -> tuple[int, str] | None:
    """The simplest `ParseFolder`."""
    return None


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One folder (with its subfolders) and how its pictures are used.

    `trigger` is the caption of pictures that have no caption file; `masks` is a folder that mirrors this one, or
    "alpha" for the pictures' own transparency; what is outside the mask is not learned. `plain` draws a caption with
    nothing shuffled or left out, to judge by. `weight` multiplies the loss of
    these pictures: below 1 for regularisation pictures, which only remind the model of what it knew.
    Without `folder_names` a folder called `10_name` is like any other.
    """

    folder: Path
    repeats: int = 1
    buckets: Buckets = field(default_factory=Buckets)
    read_caption: ReadCaption = no_captions
    draw: Draw = as_written
    plain: Draw = as_written
    trigger: str = ""
    missing: Literal["error", "empty"] = "error"
    flip: bool = False
    random_crop: bool = False
    background: images.Colour = images.WHITE
    masks: Path | Literal["", "alpha"] = ""
    weight: float = 1.0
    folder_names: bool = True


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture cut one way: what is encoded."""

    path: Path
    sha256: str
    crop: Crop
    background: images.Colour = images.WHITE


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of a dataset. `name` is its path below the dataset's folder; `crop` its centre crop, unflipped.

    `mask` is the file that its mask is read from (the picture itself for "alpha"), None where all of it is learned.
    """

    path: Path
    name: str
    sha256: str
    size: Size
    caption: str
    crop: Crop
    spec: DatasetSpec
    mask: Path | None = None

    def shot(self, crop: Crop) -> Shot:
        return Shot(self.path, self.sha256, crop, self.spec.background)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Every example of every `[[dataset]]` table, by table and then by name; `ignored` are files that are not used."""

    examples: tuple[Example, ...]
    ignored: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of what is learned from, contents and captions, whatever the files are called or in which order."""
        pairs = sorted((example.sha256, example.caption) for example in self.examples)
        return hashlib.sha256(repr(pairs).encode()).hexdigest()

    @property
    def folders(self) -> dict[Path, str]:
        """Each folder with pictures (kohya's `10_name` ones by themselves) and what it is called: its own name, and
        a number where another has the same."""
        names: dict[Path, str] = {}
        met: Counter[str] = Counter()
        for folder in dict.fromkeys(Path(example.spec.folder) for example in self.examples):
            name = folder.resolve().name
            met[name] += 1
            names[folder] = name if met[name] == 1 else f"{name} ({met[name]})"
        return names

    @property
    def visits(self) -> int:
        """Pictures an epoch, repeats counted."""
        return sum(example.spec.repeats for example in self.examples)

    def bucket_rows(self) -> list[BucketRow]:
        return bucket_report(example.crop for example in self.examples)

    def shots(self) -> list[Shot]:
        """Everything a latent cache must hold: each picture's crop, and its mirror image where flips are on."""
        return [shot for example in self.examples for shot in _shots(example)]


def scan(specs: Sequence[DatasetSpec], parse_folder: ParseFolder = ordinary_folder) -> Dataset:
    """Find, measure and hash the pictures of all tables. Folders that `parse_folder` knows multiply their repeats.

    Raises UserError for a missing or empty folder, a picture that cannot be used, and pictures without a caption.
    """
    examples: list[Example] = []
    ignored: list[Path] = []
    for spec in specs:
        for part in subfolders(spec, parse_folder):
            found, rest = scan_folder(part)
            examples += found
            ignored += rest
    return Dataset(tuple(examples), tuple(ignored))


def subfolders(spec: DatasetSpec, parse_folder: ParseFolder) -> list[DatasetSpec]:
    """One spec for each folder that names its own repeats and trigger (kohya's `10_name`); else the spec itself.

    Raises UserError for pictures that lie beside such folders, which kohya's tools leave out without a word.
    """
    folder = Path(spec.folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not spec.folder_names:
        return [spec]
    own = parse_folder(folder.resolve().name)
    if own:
        return [replace(spec, repeats=spec.repeats * own[0], trigger=spec.trigger or own[1])]
    named = [(child, parse_folder(child.name)) for child in sorted(folder.iterdir()) if child.is_dir()]
    parts = [
        replace(spec, folder=child, repeats=spec.repeats * parsed[0], trigger=spec.trigger or parsed[1])
        for child, parsed in named
        if parsed and not _within(child, spec.masks)
    ]
    if not parts:
        return [spec]
    for path in _pictures(_files(spec)):
        if not any(path.is_relative_to(part.folder) for part in parts):
            raise UserError(f"{path}: lies beside folders that name their repeats; move it into one of them")
    return parts


def picture_files(spec: DatasetSpec) -> list[Path]:
    """The pictures of one folder by name, as they are found for training."""
    return _pictures(_files(spec))


def scan_folder(spec: DatasetSpec) -> tuple[list[Example], list[Path]]:
    """The examples of one folder, sorted by name, and the files in it that are neither pictures nor their captions."""
    found = _files(spec)
    pictures = _pictures(found)
    if not pictures:
        known = " ".join(sorted(images.EXTENSIONS))
        raise UserError(f"{spec.folder}: holds no picture ({known})")
    captions = _captions(spec, pictures)
    with ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(images.measure, pictures))
    examples = [_example(spec, *each) for each in zip(pictures, infos, captions, strict=True)]
    companions = {path.with_suffix("") for path in pictures}
    known = set(pictures)
    return examples, [path for path in found if path not in known and path.with_suffix("") not in companions]


def _example(spec: DatasetSpec, path: Path, info: images.PictureInfo, caption: str) -> Example:
    name = path.relative_to(spec.folder).as_posix()
    try:
        crop = spec.buckets.fit(info.size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Example(path, name, info.sha256, info.size, caption, crop, spec, _mask(spec, path, info))


def _captions(spec: DatasetSpec, pictures: Sequence[Path]) -> list[str]:
    read = [spec.read_caption(path) for path in pictures]
    bare = [path for path, caption in zip(pictures, read, strict=True) if caption is None]
    if bare and not spec.trigger and spec.missing == "error":
        others = f" (nor have {len(bare) - 1} others in {spec.folder})" if len(bare) > 1 else ""
        raise UserError(
            f"{bare[0]}: has no caption file{others}; write one, name the folder like '10_trigger', "
            "or set missing = 'empty'"
        )
    return [spec.trigger if caption is None else caption for caption in read]


def _mask(spec: DatasetSpec, path: Path, info: images.PictureInfo) -> Path | None:
    if not spec.masks:
        return None
    if spec.masks == "alpha":
        return path if info.has_alpha else None
    stem = Path(spec.masks) / path.relative_to(spec.folder).with_suffix("")
    for candidate in sorted(stem.parent.glob(f"{stem.name}.*")) if stem.parent.is_dir() else ():
        if candidate.stem == stem.name and candidate.suffix.lower() in images.EXTENSIONS:
            return candidate
    raise UserError(f"{path}: has no mask {stem}.png")


def _files(spec: DatasetSpec) -> list[Path]:
    """Every file below the folder by name, linked folders too; nothing hidden or rejected, and not the masks."""
    folder, entered, found = Path(spec.folder), set(), []
    for place, folders, names in os.walk(folder, followlinks=True):
        inside = Path(place)
        real = inside.resolve()
        if real in entered or _within(real, spec.masks):  # a link back up would be walked for ever
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name != REJECTED]
        found += [inside / name for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _pictures(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if path.suffix.lower() in images.EXTENSIONS]


def _within(path: Path, folder: Path | str) -> bool:
    return bool(folder) and folder != "alpha" and path.resolve().is_relative_to(Path(folder).resolve())


def _shots(example: Example) -> list[Shot]:
    mirrored = [example.shot(flip(example.crop))] if example.spec.flip else []
    return [example.shot(example.crop), *mirrored]
