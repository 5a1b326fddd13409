"""A folder of pictures and their captions: read all at once, tagged, told, ruled and changed, and what to write."""

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorakiln.base import walk
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic
from lorakiln.tag import batches, caption, rules, sentences, sidecar
from lorakiln.tag.caption import Caption, Line
from lorakiln.tag.captions import parse_folder
from lorakiln.tag.edits import Change, Edit, add
from lorakiln.tag.rules import Count, Rules, Statistics
from lorakiln.tag.selection import Test
from lorakiln.tag.sidecar import Sidecar
from lorakiln.tag.tagger import Captioner, Tagger, Thresholds, words

Existing = Literal["keep", "replace", "add"]
Keep = Callable[[Mapping[str, Caption]], None]  # takes each batch of new captions as it comes


@dataclass(frozen=True, slots=True)
class Captioned:
    """One picture, its caption file as it is, and its caption. `name` is the path below the folder; `borrowed` says
    that the caption is the folder's name, since there is no caption file."""

    name: str
    path: Path
    file: Sidecar
    caption: Caption
    borrowed: bool = False

    @property
    def own(self) -> Caption:
        """What its caption file holds."""
        return Caption() if self.borrowed else self.caption


@dataclass(frozen=True, slots=True)
class Set:
    """All pictures of a folder by name, and what was odd about their captions."""

    folder: Path
    pictures: Mapping[str, Captioned]
    warnings: tuple[str, ...]

    @property
    def captions(self) -> dict[str, Caption]:
        return {name: one.caption for name, one in self.pictures.items()}


@dataclass(frozen=True, slots=True)
class Ruled:
    """Captions after the rules; of the tags that fell past `max_tokens`, in how many captions each did, and how many
    captions lost any."""

    captions: dict[str, Caption]
    fallen: Counter[str]
    cut: int


def read(folder: Path, extension: str = ".txt") -> Set:
    """Every picture with its caption; without a caption file, kohya's `10_name` folder gives it.

    Raises UserError for a missing folder, one without pictures, and two pictures that share a caption file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    warnings: list[str] = []
    found: dict[str, Captioned] = {}
    owners: dict[Path, str] = {}
    for path in walk.pictures(folder, lambda place, why: warnings.append(why)):
        name = path.relative_to(folder).as_posix()
        file = sidecar.of(path, extension)
        if file.path in owners:
            raise UserError(f"{name!r} and {owners[file.path]!r} would share {file.path.name!r}; rename one of them")
        owners[file.path] = name
        if file.warning:
            warnings.append(file.warning)
        named = parse_folder(path.parent.resolve().name)
        if file.raw is None and named and named[1]:
            found[name] = Captioned(name, path, file, caption.of([named[1]]), borrowed=True)
        else:
            found[name] = Captioned(name, path, file, caption.read(file.text))
    if not found:
        raise UserError(f"{folder}: holds no picture")
    return Set(folder, found, tuple(warnings))


def tagged(
    whole: Set,
    tagger: Tagger,
    wanted: Thresholds,
    existing: Existing = "keep",
    report: batches.Report = lambda done, total: None,
    keep: Keep = lambda new: None,
) -> tuple[dict[str, Caption], list[str]]:
    """New captions by name, and what could not be read. Tags in caption files are kept, replaced, or added to."""
    todo = {one.path: one for one in whole.pictures.values() if existing != "keep" or not one.own.tags}
    found: dict[str, Caption] = {}
    failed: list[str] = []
    done = 0
    for paths, pictures in batches.ahead(list(todo), lambda p: p, tagger.batch, lambda _, why: failed.append(why)):
        new = {}
        for path, answer in zip(paths, tagger.tags(pictures), strict=True):
            one, tags = todo[path], words(answer, wanted)
            new[one.name] = add(tags)(one.own) if existing == "add" else one.own.retagged(tags)
        keep(new)
        found |= new
        done += len(paths)
        report(done, len(todo))
    return found, failed


def told(
    whole: Set,
    captions: Mapping[str, Caption],
    captioner: Captioner,
    share: float,
    report: batches.Report = lambda done, total: None,
    keep: Keep = lambda new: None,
) -> tuple[dict[str, Caption], list[str]]:
    """`captions` with sentences added, evenly among those without, until a share of all pictures has one; only what is
    new, and what could not be read."""
    bare = [name for name in whole.pictures if not captions[name].sentence]
    wanted = int(share * len(whole.pictures) + 1e-9) - (len(whole.pictures) - len(bare))
    chosen = [name for at, name in enumerate(bare) if (at + 1) * wanted // len(bare) > at * wanted // len(bare)]
    todo = {whole.pictures[name].path: name for name in chosen}
    found: dict[str, Caption] = {}
    failed: list[str] = []
    done = 0
    for paths, pictures in batches.ahead(list(todo), lambda p: p, captioner.batch, lambda _, why: failed.append(why)):
        texts = captioner.sentences(pictures)
        new = {todo[path]: captions[todo[path]].told(text) for path, text in zip(paths, texts, strict=True)}
        keep(new)
        found |= new
        done += len(paths)
        report(done, len(todo))
    return found, failed


def ruled(captions: Mapping[str, Caption], wanted: Rules, count: Count | None = None) -> Ruled:
    """Every caption after the rules, line by line; the trigger also opens a sentence that does not name it."""
    known = rules.statistics([one.tags for one in captions.values()], wanted)
    found, fallen, cut = {}, Counter(), 0
    for name, one in captions.items():
        lines, lost = [], set()
        for line in one.lines or (Line(),):
            new, over = _ruled(line, wanted, known, count)
            lines.append(new)
            lost.update(over)
        found[name] = Caption(tuple(line for line in lines if line.text))
        fallen.update(lost)
        cut += bool(lost)
    return Ruled(found, fallen, cut)


def _ruled(line: Line, wanted: Rules, known: Statistics, count: Count | None) -> tuple[Line, list[str]]:
    """One line after the rules, and the tags that fell. A sentence alone, or behind the trigger, stays prose."""
    trigger, sentence = wanted.trigger, line.sentence
    if sentence and all(rules.matches(tag, [trigger]) for tag in line.tags):
        opens = trigger and (line.tags or not sentences.names(sentence, trigger))
        return Line((trigger,) if opens else (), sentence), []
    tags = rules.arranged(line.tags, wanted, known)

    def tokens(text: str) -> int:
        assert count is not None
        return count(f"{text}, {sentence}" if sentence else text)

    kept, over = rules.within(tags, wanted, tokens if count else None)
    return Line(tuple(kept), sentence), over


def changed(whole: Set, change: Change, where: Test) -> dict[str, Caption]:
    """The captions that a change alters, among those that the test selects."""
    found = {}
    for name, one in whole.pictures.items():
        if where(name, one.caption) and (new := change(one.caption)) != one.caption:
            found[name] = new
    return found


def edits(whole: Set, captions: Mapping[str, Caption]) -> list[Edit]:
    """What the files must hold for these captions; where a caption stays as it is, so does its text."""
    files = ((whole.pictures[name], new) for name, new in captions.items())
    return [Edit(one.file, one.file.text if new == one.caption else new.text()) for one, new in files]


def kohya_folders(whole: Set, names: Collection[str], out: Path, repeats: int, trigger: str) -> list[Path]:
    """Copies of these pictures and their captions in kohya's layout, `OUT/10_name`, one folder a subfolder; the files
    written.

    Raises UserError when a file is there already (nothing is replaced), or two pictures would meet in one place.
    """
    plan: dict[Path, str] = {}
    for name in names:
        place = out / _kohya_folder(whole, name, repeats, trigger) / whole.pictures[name].path.stem
        if place in plan:
            raise UserError(f"{plan[place]!r} and {name!r} would both be {str(place)!r}; rename one of them")
        plan[place] = name
    copies = []
    for place, name in plan.items():
        one = whole.pictures[name]
        sources = [one.path] if one.file.raw is None else [one.path, one.file.path]
        copies += [(source, place.with_name(place.name + source.suffix)) for source in sources]
    for _, target in copies:
        if target.exists():
            raise UserError(f"{target}: exists already; choose an empty folder")
    for source, target in copies:
        with source.open("rb") as data, atomic(target) as stream:
            shutil.copyfileobj(data, stream)
    return [target for _, target in copies]


def _kohya_folder(whole: Set, name: str, repeats: int, trigger: str) -> str:
    """`10_name`: a folder that is called so already keeps its name, another gives its own as the words."""
    below = name.rpartition("/")[0]
    named = parse_folder(below.partition("/")[0]) if below else None
    times, said = named or (repeats, below.replace("/", " ") or trigger or whole.folder.resolve().name)
    return f"{times}_{said}"


def previews(planned: Sequence[Edit]) -> list[tuple[str, str, str]]:
    """(file name, text before, text after) of what would be written."""
    return [(str(edit.sidecar.path), edit.sidecar.text, edit.text) for edit in planned if edit.changes]
