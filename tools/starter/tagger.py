"""Trains the starter tagger: emoji to OpenMoji's tags for them, in the WD14 family's file layout.

It sees OpenMoji's drawings and Noto's of the same emoji, so that a thing is more than one style's strokes.

Run `python -m tools.starter.tagger` after the masters are rendered. Concepts held out by base code point are never
seen in training; on them the figures of the model card are measured.
"""

import argparse
import csv
import itertools
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from . import catalogue, known, onnx_file
from .compose import BACKGROUNDS
from .masters import load
from .places import BUILD

SIDE = 64  # pixels that the tagger looks at
PEAK = 3e-3  # learning rate
RARE = 5  # a tag of fewer concepts in training is left out
FOLDER = Path(__file__).parents[2] / "lorakiln" / "assets" / "tagger"
GROUNDS = [f"{name} background" for name in BACKGROUNDS]


def tags_of(emoji: catalogue.Emoji) -> set[str]:
    """OpenMoji's tags, its group, the words of its subgroup, and its name if that is one everybody knows."""
    name = emoji.name.partition(":")[0]
    words = {*emoji.tags, emoji.group, *emoji.subgroup.split("-"), *known.CORE & {name}}
    return {word for word in words if word and not word.isdigit() and word != "other"}


def vocabulary(emojis: list[catalogue.Emoji]) -> dict[str, int]:
    """Names that everybody knows and tags of at least RARE concepts, and in how many they are, commonest first."""
    by_concept: dict[str, set[str]] = {}
    for emoji in emojis:
        by_concept.setdefault(emoji.concept, set()).update(tags_of(emoji))
    counts: dict[str, int] = {}
    for tags in by_concept.values():
        for tag in tags:
            counts[tag] = counts.get(tag, 0) + 1
    commonest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {tag: count for tag, count in commonest if count >= RARE or tag in known.CORE}


class Network(nn.Module):
    """A small residual network: pixels (B, SIDE, SIDE, 3) BGR 0-255 to chances (B, tags)."""

    def __init__(self, tags: int):
        super().__init__()
        self.stem = _unit(3, 32, 2)
        widths = (32, 64, 128, 192)
        self.down = nn.ModuleList(_unit(one, two, 2) for one, two in itertools.pairwise(widths))
        self.more = nn.ModuleList(_unit(width, width, 1) for width in widths[1:])
        self.head = nn.Linear(2 * widths[-1], tags)

    def logits(self, pixels_BCHW: Tensor) -> Tensor:
        x = self.stem(pixels_BCHW / 127.5 - 1)
        for down, more in zip(self.down, self.more, strict=True):
            x = down(x)
            x = x + more(x)
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.head(F.dropout(pooled, 0.3, self.training))

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(pixels_BHWC.permute(0, 3, 1, 2)))


def _unit(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def drawings(emojis: list[catalogue.Emoji], family: str = "openmoji") -> Tensor:
    """(N, 4, SIDE, SIDE) uint8: red, green, blue times alpha, and alpha."""
    rows, index = load(family)
    found = np.empty((len(emojis), SIDE, SIDE, 4), np.uint8)
    for at, emoji in enumerate(emojis):
        small = Image.fromarray(rows[index[emoji.code]]).resize((SIDE, SIDE), Image.Resampling.BOX)
        found[at] = np.asarray(small.convert("RGBa"))
    return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous()


def compose(drawn_B4HW: Tensor, ground_B: Tensor, rng: torch.Generator, vary: bool = True) -> Tensor:
    """(B, 3, SIDE, SIDE) BGR 0-255: each drawing somewhere on its ground, turned and mirrored a little, or centred."""
    count = len(drawn_B4HW)
    colours = torch.tensor([BACKGROUNDS[name] for name in BACKGROUNDS], dtype=torch.float32)[ground_B]

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=rng) * (high - low) + low if vary else torch.full((count,), (low + high) / 2)

    share, angle = draw(0.4, 0.98), draw(-0.25, 0.25)
    free = 1 - share
    mirrored = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0) if vary else torch.ones(count)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirrored * torch.cos(angle) / share, -torch.sin(angle) / share
    theta[:, 1, 0], theta[:, 1, 1] = mirrored * torch.sin(angle) / share, torch.cos(angle) / share
    theta[:, 0, 2], theta[:, 1, 2] = draw(-1, 1) * free / share, draw(-1, 1) * free / share
    grid = F.affine_grid(theta, [count, 4, SIDE, SIDE], align_corners=False)
    placed = F.grid_sample(drawn_B4HW.float(), grid, align_corners=False)
    alpha = placed[:, 3:] / 255
    shade = colours[:, :, None, None] + (draw(-10, 10)[:, None, None, None] if vary else 0)
    picture = placed[:, :3] + (1 - alpha) * shade
    if vary:  # light, contrast, grain, and now and then a blur, as pictures come
        picture = (picture - 128) * draw(0.8, 1.2)[:, None, None, None] + 128 + draw(-15, 15)[:, None, None, None]
        picture = picture + torch.randn(picture.shape, generator=rng) * draw(0, 6)[:, None, None, None]
        soft = F.avg_pool2d(picture, 3, 1, 1)
        blurred = (torch.rand(count, generator=rng) < 0.25)[:, None, None, None]
        picture = torch.where(blurred, soft, picture)
    return picture.clamp(0, 255).flip(1)


def average_precision(scores: np.ndarray, true: np.ndarray) -> float:
    """Area under precision and recall of one ranking; ties rank as chance would on average."""
    order = np.lexsort((np.random.default_rng(0).random(len(scores)), -scores))
    hits = true[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits > 0].mean())


def figures(chances: np.ndarray, true: np.ndarray, common: np.ndarray) -> dict[str, float]:
    """Mean average precision over tags and over pictures, beside what guessing by a tag's frequency scores."""
    tags = [at for at in range(true.shape[1]) if true[:, at].any()]
    rows = [at for at in range(len(true)) if true[at].any()]
    return {
        "map_tags": float(np.mean([average_precision(chances[:, at], true[:, at]) for at in tags])),
        "map_tags_by_frequency": float(np.mean([true[:, at].mean() for at in tags])),
        "map_pictures": float(np.mean([average_precision(chances[at], true[at]) for at in rows])),
        "map_pictures_by_frequency": float(np.mean([average_precision(common, true[at]) for at in rows])),
        "tags_measured": len(tags),
        "pictures_measured": len(rows),
    }


def train(minutes: float, steps: int, batch: int, seed: int = 5) -> tuple[Network, dict[str, int], dict[str, float]]:
    """Train until the time or the steps are up; the learning rate falls to nothing by then."""
    emojis = [emoji for emoji in catalogue.everything() if emoji.group and emoji.code in load("openmoji")[1]]
    taught = [emoji for emoji in emojis if not catalogue.held_out(emoji.concept)]
    kept = [emoji for emoji in emojis if catalogue.held_out(emoji.concept) and emoji.plain]
    counts = vocabulary(taught)
    place = {tag: at for at, tag in enumerate(counts)}
    model = Network(len(counts) + len(GROUNDS))
    nn.init.constant_(model.head.bias, -4.0)  # a tag is rare
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.05)
    averaged = torch.optim.swa_utils.AveragedModel(model, avg_fn=_average, use_buffers=True)
    pictures = drawings(taught)
    if (BUILD / "masters" / "noto.json").exists():
        again = [emoji for emoji in taught if emoji.code in load("noto")[1]]
        taught, pictures = taught + again, torch.cat([pictures, drawings(again, "noto")])
    targets = truth(taught, place)
    # skin tones and genders of one thing together weigh as much as two things; a thing with a name as three
    times = Counter(emoji.concept for emoji in taught)
    shares = [
        (3 if emoji.name.partition(":")[0] in known.CORE else 1) * min(2 / times[emoji.concept], 1) for emoji in taught
    ]
    weights = torch.tensor(shares)
    rng = torch.Generator().manual_seed(seed)
    began, done, part = time.monotonic(), 0, 0.0
    model.train()
    while part < 1:
        part = max((time.monotonic() - began) / (60 * minutes), done / steps)
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(1, 20 * part + 0.05) * max(1 - part, 0.01)
        chosen = torch.multinomial(weights, batch, generator=rng)
        ground = torch.randint(len(BACKGROUNDS), (batch,), generator=rng)
        wanted = torch.cat([targets[chosen], F.one_hot(ground, len(BACKGROUNDS)).float()], dim=1)
        with torch.autocast("cpu", torch.bfloat16):  # half again as fast on CPUs that have it
            logits = model.logits(compose(pictures[chosen], ground, rng))
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(model)
        done += 1
        if done % 250 == 0:
            print(f"step {done}, {(time.monotonic() - began) / 60:.1f} min, loss {loss.item():.4f}", flush=True)
    best = averaged.module.eval()
    common = np.array(list(counts.values()))
    shown = [emoji for emoji in dict.fromkeys(taught) if emoji.plain][::10]
    found = measure(best, kept, place, common)
    found |= {"map_taught": measure(best, shown, place, common)["map_pictures"], "steps": done, "batch": batch}
    return best, counts, found | {"minutes": (time.monotonic() - began) / 60, "cores": torch.get_num_threads()}


def _average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """A running mean over about the last tenth of the steps so far, at most 500."""
    return old + (new - old) * max(10 / (int(count) + 10), 0.002)


def truth(emojis: list[catalogue.Emoji], place: dict[str, int]) -> Tensor:
    """(N, tags) 0 or 1."""
    found = torch.zeros(len(emojis), len(place))
    for at, emoji in enumerate(emojis):
        for tag in tags_of(emoji):
            if tag in place:
                found[at, place[tag]] = 1
    return found


@torch.no_grad()
def measure(model: Network, kept: list[catalogue.Emoji], place: dict[str, int], common: np.ndarray) -> dict[str, float]:
    """The figures on held-out emoji, each once on white, centred."""
    ground = torch.zeros(len(kept), dtype=torch.long)
    pixels = compose(drawings(kept), ground, torch.Generator().manual_seed(0), vary=False)
    chances = torch.sigmoid(model.logits(pixels))[:, : len(place)].numpy()
    return figures(chances, truth(kept, place).numpy(), common)


def save(model: Network, counts: dict[str, int], found: dict[str, float]) -> None:
    """Write model.onnx, selected_tags.csv and the card."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    onnx_file.write(model, torch.zeros(1, SIDE, SIDE, 3), FOLDER / "model.onnx")
    with (FOLDER / "selected_tags.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["tag_id", "name", "category", "count"])
        rows = [*counts.items(), *((name, 0) for name in GROUNDS)]
        writer.writerows([at, name.replace(" ", "_"), 0, count] for at, (name, count) in enumerate(rows))
    size = (FOLDER / "model.onnx").stat().st_size / 1e6
    (FOLDER / "README.md").write_text(CARD.format(size=size, tags=len(rows), side=SIDE, **found), encoding="utf-8")


CARD = """# The starter tagger

A small tagger of OpenMoji's world in the WD14 family's file layout (`model.onnx`, `selected_tags.csv`), so that
`kiln tag --tagger starter` works with nothing downloaded. It knows {tags} tags (OpenMoji's own words, groups
and subgroups, the names of things everybody knows, and the ground's colour), looks at {side} x {side} pixels
and is {size:.1f} MB large. It is of no use on other pictures.

Made by `python -m tools.starter.tagger` in {minutes:.0f} minutes on {cores} CPU cores ({steps} steps of {batch}).
Emoji were held out by base code point, so that no skin tone or gender of a held-out emoji was seen in training. On
the {pictures_measured} held-out emoji, each once on a white ground:

| mean average precision | this tagger | guessing by how common a tag is |
|---|---|---|
| over {tags_measured} tags | {map_tags:.3f} | {map_tags_by_frequency:.3f} |
| over pictures | {map_pictures:.3f} | {map_pictures_by_frequency:.3f} |

A held-out emoji is a thing never seen, so much of what it is called cannot be guessed; on emoji it was
taught, the mean average precision over pictures is {map_taught:.3f}.

Drawings: [OpenMoji](https://openmoji.org), CC BY-SA 4.0, and Noto Color Emoji, OFL 1.1, which are tagged with
OpenMoji's words; the weights are under CC BY-SA 4.0.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=11)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    model, counts, found = train(options.minutes, options.steps, options.batch)
    save(model, counts, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
