"""How well and how fast `kiln curate` finds copies, beside imagehash; how fast `kiln tag` is, beside a plain loop.

Run `python -m benchmarks.dataset --json`. It needs the drawings that `make starter` fetches, imagehash, and about 6 GB
of disk below --work. `--part` runs one part; `--pictures` and `--scale` make it smaller for a first look.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import planted

KILN = [sys.executable, "-m", "lorakiln"]
Pairs = set[tuple[str, str]]


def curate(folder: Path) -> tuple[dict[str, Any], float]:
    """`kiln curate --json` as a user runs it: what it prints, and the seconds it takes, start and report included."""
    began = time.perf_counter()
    done = subprocess.run([*KILN, "curate", str(folder), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout), time.perf_counter() - began


def pairs(groups: Iterable[Iterable[str]]) -> Pairs:
    """Every pair within a group."""
    return {(min(pair), max(pair)) for group in groups for pair in combinations(group, 2)}


def f1(found: Pairs, true: Pairs) -> float:
    """Harmonic mean of precision and recall over pairs."""
    return 2 * len(found & true) / max(len(found) + len(true), 1)


def duplicates(work: Path, count: int) -> dict[str, float]:
    """Recall by kind, false groups and F1 on planted copies and look-alikes."""
    folder = work / "planted"
    shutil.rmtree(folder, ignore_errors=True)
    rows = list(planted.write(folder, count, 512))
    number = {name: at for name, at, _ in rows}
    true = pairs(_by(number).values())
    groups = [[Path(path).name for path in group] for group in curate(folder)[0]["duplicates"]]
    home = {name: at for at, group in enumerate(groups) for name in group}
    figures = {}
    for kind in planted.KINDS:
        copies = [(name, at) for name, at, what in rows if what == kind]
        hits = [home.get(name, -1) == home.get(f"{at:03}_original.png", -2) for name, at in copies]
        figures[f"recall_{kind}"] = round(sum(hits) / len(hits), 4)
    false = [group for group in groups if len({number[name] for name in group}) > 1]
    figures["false_group_share"] = round(len(false) / max(len(groups), 1), 4)
    figures["look_alikes"] = sum(what == "alike" for _, _, what in rows)
    figures["f1"] = round(f1(pairs(groups), true), 4)
    return figures | peers(folder, true)


def _by(number: dict[str, int]) -> dict[int, list[str]]:
    found = defaultdict(list)
    for name, at in number.items():
        found[at].append(name)
    return found


def peers(folder: Path, true: Pairs) -> dict[str, float]:
    """F1 of imagehash's hashes on the same files, each at its best distance, mirror images compared too."""
    import imagehash

    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    figures = {}
    for name, function in {"phash": imagehash.phash, "dhash": imagehash.dhash, "whash": imagehash.whash}.items():
        began = time.perf_counter()
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            both = list(pool.map(_hashes, [function] * len(names), [folder / each for each in names], chunksize=16))
        plain, mirrored = (np.array([row[at] for row in both], np.uint64) for at in (0, 1))
        best = (0.0, 0)
        away = np.minimum(
            np.bitwise_count(plain[:, None] ^ plain[None]), np.bitwise_count(plain[:, None] ^ mirrored[None])
        )
        for distance in range(0, 25, 2):
            one, other = np.nonzero(np.triu(away <= distance, 1))
            found = {(names[a], names[b]) for a, b in zip(one.tolist(), other.tolist(), strict=True)}
            best = max(best, (f1(found, true), distance))
        figures[f"f1_{name}"] = round(best[0], 4)
        figures[f"distance_{name}"] = best[1]
        figures[f"seconds_{name}"] = round(time.perf_counter() - began, 1)
    return figures


def _hashes(function: Callable, path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    flat = [function(each).hash.ravel() for each in (picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    return tuple(int.from_bytes(np.packbits(bits).tobytes(), "big") for bits in flat)


def scanning(work: Path, count: int) -> dict[str, float]:
    """Seconds for `count` pictures of 1024 px, PNG and JPEG, one in ten a copy: the first look and the second."""
    folder = work / "thousand"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_large, [folder] * count, range(count), chunksize=8))
    values, first = curate(folder)
    assert values["read"] == count, "the first look reads everything"
    again, second = curate(folder)
    assert again["read"] == 0 and again["duplicates"] == values["duplicates"], "the second reads nothing anew"
    return {
        "scan_1000_s": round(first, 2), "rescan_1000_s": round(second, 2), "scan_pictures": count,
        "scan_groups": len(values["duplicates"]),
    }  # fmt: skip


def _large(folder: Path, number: int) -> None:
    """One picture; every tenth is the one before, saved again."""
    source = number - 1 if number % 10 == 9 else number
    (plan,) = [planted.Plan(planted.plans(500, 1024)[source % 500].emoji, 1024, True, 7_000_000 + source)]
    image = planted.draw(plan)
    if number % 2:
        image.save(folder / f"{number:05}.jpg", quality=92)
    else:
        image.save(folder / f"{number:05}.png", compress_level=1)


def grouping(count: int) -> dict[str, float]:
    """Seconds and GB (peak of a process of its own, its data included) to group many pictures by their fields."""
    command = [sys.executable, "-m", "benchmarks.dataset", "--part", "grouping-alone", "--scale", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def grouping_alone(count: int) -> dict[str, float]:
    """Made-up soft pictures, one in twenty a noisy copy of another: found and joined."""
    from lorakiln.curate import candidates
    from lorakiln.curate.duplicates import join

    rng = np.random.default_rng(0)
    fields = np.empty((count, 2, 32, 32), np.uint8)
    for at in range(count):
        coarse = rng.integers(0, 256, (2, 6, 6), dtype=np.uint8)
        fields[at] = [np.asarray(Image.fromarray(layer).resize((32, 32), Image.Resampling.BICUBIC)) for layer in coarse]
    copies = count // 20
    for at in range(copies):
        noisy = fields[at].astype(np.int16) + rng.integers(-6, 7, fields[at].shape)
        fields[count - copies + at] = noisy.clip(0, 255)
    began = time.perf_counter()
    found = candidates.find(fields)
    join(count, zip(found.part_of.tolist(), found.whole.tolist(), strict=True))
    seconds = time.perf_counter() - began
    pairs_found = set(zip(found.part_of.tolist(), found.whole.tolist(), strict=True))
    wanted = [(at, count - copies + at) for at in range(copies)]
    right = sum(pair in pairs_found or pair[::-1] in pairs_found for pair in wanted)
    return {
        "group_100k_s": round(seconds, 2),
        "group_100k_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        "group_count": count,
        "group_recall": round(right / max(copies, 1), 4),
    }


def tagging(work: Path, rounds: int = 5) -> dict[str, float]:
    """Pictures a second of `kiln tag`'s own path, over those of a plain loop on the same files; rounds alternate."""
    from lorakiln.tag import folder as folders
    from lorakiln.tag.tagger import Thresholds
    from lorakiln.tag.wd import load

    folder = work / "tagging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for plan in planted.plans(60, 512, seed=9):
        planted.draw(plan).save(folder / f"{plan.seed}.png")
    whole, model = folders.read(folder), load("starter", "cpu")
    files = [one.path for one in whole.pictures.values()]
    ours, plain = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        tagged, _ = folders.tagged(whole, model, Thresholds(), "replace")
        ours.append(len(tagged) / (time.perf_counter() - began))
        began = time.perf_counter()
        _plain_loop(files)
        plain.append(len(files) / (time.perf_counter() - began))
    mine, theirs = statistics.median(ours), statistics.median(plain)
    return {
        "tagger_over_plain_loop": round(mine / theirs, 3), "tagger_per_s": round(mine, 1),
        "plain_loop_per_s": round(theirs, 1),
    }  # fmt: skip


_SESSIONS: dict[str, Any] = {}


def _plain_loop(files: list[Path]) -> list[np.ndarray]:
    """Decode, pad, resize, session.run, one file after another, as the usual scripts do."""
    import onnxruntime

    from lorakiln.tag.wd import STARTER

    if not _SESSIONS:
        _SESSIONS["it"] = onnxruntime.InferenceSession(str(STARTER / "model.onnx"), providers=["CPUExecutionProvider"])
    session = _SESSIONS["it"]
    side, found = session.get_inputs()[0].shape[1], []
    for path in files:
        with Image.open(path) as image:
            picture = image.convert("RGB")
        longest = max(picture.size)
        square = Image.new("RGB", (longest, longest), (255, 255, 255))
        square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
        pixels = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), np.float32)[:, :, ::-1]
        found.append(session.run(None, {session.get_inputs()[0].name: pixels[None]})[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part", default="all", choices=["all", "duplicates", "scan", "group", "tag", "grouping-alone"]
    )
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--pictures", type=int, default=200, help="planted originals")
    parser.add_argument("--large", type=int, default=1000, help="pictures of 1024 px that are scanned")
    parser.add_argument("--scale", type=int, default=100_000, help="pictures that are grouped by their fields")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.part == "grouping-alone":
        print(json.dumps(grouping_alone(options.scale)))
        return
    parts = {
        "duplicates": lambda: duplicates(options.work, options.pictures),
        "scan": lambda: scanning(options.work, options.large),
        "group": lambda: grouping(options.scale),
        "tag": lambda: tagging(options.work),
    }
    figures: dict[str, float] = {}
    for name, run in parts.items():
        if options.part in ("all", name):
            figures |= run()
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<24} {value}")


if __name__ == "__main__":
    main()
