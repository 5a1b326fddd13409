"""The tagger that ships with Kiln: small, in the WD layout, and better than guessing on emoji it never saw."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorakiln.tag import wd
from tools.starter.tagger import average_precision

HELD_OUT = Path(__file__).parent / "held_out"  # OpenMoji drawings (CC BY-SA 4.0) and their tags


@pytest.fixture(scope="module")
def tagger():
    return wd.load("starter", "cpu", 1)


def test_it_is_at_most_six_megabytes_and_says_how_good_it_is():
    assert sum(path.stat().st_size for path in wd.STARTER.iterdir()) <= 6e6
    assert "mean average precision" in (wd.STARTER / "README.md").read_text()


def test_it_ranks_the_tags_of_emoji_it_never_saw_better_than_their_frequency_does(tagger):
    truth = json.loads((HELD_OUT / "tags.json").read_text())
    with (wd.STARTER / "selected_tags.csv").open() as stream:
        rows = [line.rstrip("\n").split(",") for line in stream][1:]
    names = [row[1].replace("_", " ") for row in rows]
    common = np.array([float(row[3]) for row in rows])
    ours, theirs = [], []
    for file, tags in truth.items():
        with Image.open(HELD_OUT / file) as image:
            (answer,) = tagger.tags([image.convert("RGB")])
        chance = {guess.name: guess.chance for guess in answer.general}
        true = np.array([float(name in tags) for name in names])
        ours.append(average_precision(np.array([chance[name] for name in names]), true))
        theirs.append(average_precision(common, true))
    assert np.mean(ours) > 1.4 * np.mean(theirs)


@pytest.mark.parametrize(
    "ground, colour", [("white", (250, 250, 250)), ("green", (92, 170, 88)), ("blue", (62, 104, 196))]
)
def test_it_names_the_ground(tagger, ground, colour):
    file = next(iter(json.loads((HELD_OUT / "tags.json").read_text())))
    with Image.open(HELD_OUT / file) as image:
        picture = np.asarray(image.convert("RGB")).copy()
    picture[(picture == 250).all(axis=2)] = colour
    (answer,) = tagger.tags([Image.fromarray(picture)])
    grounds = [guess for guess in answer.general if guess.name.endswith(" background")]
    assert grounds[0].name == f"{ground} background" and grounds[0].chance > 0.5
