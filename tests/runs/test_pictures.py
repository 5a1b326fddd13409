"""Held-out pictures are never trained on, and no copy of them is; the others are seen as often as before."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.runs.build import build
from lorakiln.runs.reporter import Silent, Stages

EMOJI = Path(__file__).parent.parent.parent / "examples" / "twemoji"


@pytest.fixture
def folder(tmp_path):
    """Six pictures; the first has a copy, resized and saved as JPEG."""
    place = tmp_path / "six"
    place.mkdir()
    for name in ("banana", "bus", "butterfly", "crown", "house", "owl"):
        Image.open(EMOJI / f"{name}.png").resize((128, 128)).save(place / f"{name}.png")
    Image.open(EMOJI / "bus.png").resize((200, 200)).save(place / "copy.jpg", quality=92)
    for path in sorted(place.iterdir()):
        path.with_suffix(".txt").write_text(f"trigger, {path.stem}")
    return place


def parts_of(make, folder, heldout, **changes):
    table = {"folder": str(folder), "bucket_step": 16, "repeats": 2, "heldout": heldout}
    return build(recipes.parse(make(dataset=[table], **changes), "test.toml"), Stages(Silent()))


def test_what_is_held_out_is_never_seen_and_the_rest_as_often_as_ever(make, folder):
    for seed in range(4):
        parts = parts_of(make, folder, 2.0, seed=seed)
        names = Counter(visit.index for step in range(parts.loader.steps_per_epoch)
                        for batch in parts.loader.visits(0, step) for visit in batch)  # fmt: skip
        seen = {parts.dataset.examples[index].name for index in names}
        held = {example.name for example in parts.heldout}
        assert len(held) == 2 and not held & seen and len(seen) == 5
        assert set(names.values()) == {2}
        assert ("bus.png" in held) == ("copy.jpg" in held), "copies are parted"
        parts.loader.close()


def test_no_held_out_pictures_unless_asked_for(make, folder):
    parts = parts_of(make, folder, 0.0)
    assert not parts.heldout and len(parts.dataset.examples) == 7
    parts.loader.close()


def test_nothing_left_is_an_error(make, folder):
    with pytest.raises(UserError, match=r"dataset.heldout = 7: .*six has 7 pictures; none would be trained on"):
        parts_of(make, folder, 7.0)


def test_nothing_is_written_beside_the_pictures(make, folder):
    before = sorted(folder.rglob("*"))
    parts_of(make, folder, 2.0).loader.close()
    assert sorted(folder.rglob("*")) == before
