"""Which pictures are held out: as many as asked, the same again, copies never parted."""

from dataclasses import replace

import pytest

from lorakiln.base.errors import UserError
from lorakiln.data.dataset import DatasetSpec, scan
from lorakiln.data.split import choose, wanted
from tests.data.pictures import SMALL, captions


@pytest.fixture
def examples(folder):
    return scan([DatasetSpec(folder, buckets=SMALL, read_caption=captions)]).examples


ALONE = [[index] for index in range(9)]


@pytest.mark.parametrize(
    ("heldout", "pictures", "count"), [(0.0, 9, 0), (0.1, 40, 4), (0.1, 3, 1), (0.34, 9, 3), (5.0, 9, 5)]
)
def test_a_share_or_a_count(heldout, pictures, count):
    assert wanted(heldout, pictures, "p") == count


def test_something_is_left_to_train_on():
    for heldout in (9.0, 0.99):
        with pytest.raises(UserError, match="p has 9 pictures; none would be trained on"):
            wanted(heldout, 9, "p")
    with pytest.raises(UserError, match=r"heldout = 2.5: give a share below 1 or a whole number"):
        wanted(2.5, 9, "p")


def test_the_same_pictures_are_chosen_whatever_their_names_and_neighbours(examples):
    chosen = choose(examples, ALONE, 3, seed=42)
    assert len(chosen) == 3
    renamed = [replace(one, name=f"x{one.name}") for one in reversed(examples)]
    contents = {examples[index].sha256 for index in chosen}
    assert {renamed[index].sha256 for index in choose(renamed, ALONE, 3, seed=42)} == contents
    fewer = [one for one in examples if one.sha256 != examples[min(set(range(9)) - chosen)].sha256]
    assert {fewer[index].sha256 for index in choose(fewer, ALONE[:8], 3, seed=42)} == contents
    assert any(choose(examples, ALONE, 3, seed) != chosen for seed in range(5))


def test_copies_are_held_out_together_or_not_at_all(examples):
    groups = [[0, 1, 2], [3, 4], [5], [6], [7], [8]]
    for seed in range(20):
        held = choose(examples, groups, 3, seed)
        assert len(held) == 3
        assert all(set(group) <= held or not set(group) & held for group in groups)
    assert choose(examples, [list(range(9))], 3, 0) == set()
