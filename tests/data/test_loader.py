"""Every picture exactly as often as asked, and the same draws whoever loads them."""

import collections
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets, flip
from lorakiln.data.cache import LatentCache
from lorakiln.data.dataset import Dataset, DatasetSpec, Example, scan
from lorakiln.data.loader import Batching, Loader, plan, steps_per_epoch
from tests.data.pictures import SMALL, Encoder, captions, picture

TARGETS = [Size(64, 64), Size(80, 48), Size(48, 80)]


def example(index, repeats, target):
    spec = DatasetSpec(Path("x"), repeats=repeats, buckets=SMALL)
    return Example(Path(f"{index}.png"), f"{index}.png", str(index), target, "", Buckets(target, 8).fit(target), spec)


MIXES = some.lists(some.tuples(some.integers(1, 5), some.sampled_from(TARGETS)), min_size=1, max_size=25)
BATCHINGS = some.builds(
    Batching,
    seed=some.integers(0, 9),
    batch=some.integers(1, 5),
    accumulate=some.integers(1, 4),
    world=some.integers(1, 3),
)


def shuffled(caption, key):
    tags = caption.split(", ")
    random.Random(key).shuffle(tags)
    return ", ".join(tags)


def spec_of(folder, **options):
    return DatasetSpec(folder, **{"buckets": SMALL, "read_caption": captions, "draw": shuffled, **options})


def loader_of(folder, where="memory", encoder=None, *, batching=None, **options):
    data = scan([spec_of(folder, **options)])
    return Loader(data, LatentCache(where, encoder or Encoder(), vae="digest"), batching or Batching(seed=7, batch=2))


def epoch_of(loader, epoch=0):
    return [batch for step in range(loader.steps_per_epoch) for batch in loader.batches(epoch, step)]


@given(MIXES, BATCHINGS, some.integers(0, 3))
def test_every_picture_is_visited_exactly_repeats_times(mix, batching, epoch):
    examples = [example(index, *each) for index, each in enumerate(mix)]
    steps = plan(examples, epoch, batching)
    visits = collections.Counter((v.index, v.number) for step in steps for batch in step for v in batch)
    assert visits == {(index, number): 1 for index, one in enumerate(examples) for number in range(one.spec.repeats)}
    assert len(steps) == steps_per_epoch(examples, batching)
    for step in steps:
        assert 1 <= len(step) <= batching.accumulate
        slots = [visit.slot for batch in step for visit in batch]
        assert len(slots) == len(set(slots)) and max(slots) < batching.accumulate * batching.whole
        for batch in step:
            assert 1 <= len(batch) <= batching.whole
            assert len({examples[visit.index].crop.target for visit in batch}) == 1
    assert all(len(step) == batching.accumulate for step in steps[:-1])


@given(MIXES, BATCHINGS)
def test_only_the_last_batch_of_a_bucket_is_smaller(mix, batching):
    examples = [example(index, *each) for index, each in enumerate(mix)]
    short = [
        examples[batch[0].index].crop.target
        for step in plan(examples, 0, batching)
        for batch in step
        if len(batch) < batching.whole
    ]
    assert len(short) == len(set(short))


def test_the_order_is_a_function_of_seed_and_epoch():
    examples = [example(index, 2, TARGETS[index % 3]) for index in range(30)]
    orders = [plan(examples, epoch, Batching(seed, batch=4)) for seed in (1, 2) for epoch in (0, 1)]
    assert plan(examples, 1, Batching(2, batch=4)) == orders[3]
    flat = [[v.index for step in order for batch in step for v in batch] for order in orders]
    assert len({tuple(order) for order in flat}) == 4


def test_pictures_meet_different_neighbours():
    examples = [example(index, 1, TARGETS[0]) for index in range(12)]
    met = {
        frozenset(v.index for v in batch)
        for epoch in range(20)
        for step in plan(examples, epoch, Batching(3, 4))
        for batch in step
    }
    assert len(met) > 50


def test_two_processes_see_what_one_with_twice_the_batch_sees(folder):
    options = {"repeats": 3, "flip": True}
    one = loader_of(folder, batching=Batching(7, batch=4), **options)
    ranks = [loader_of(folder, batching=Batching(7, batch=2, world=2, rank=rank), **options) for rank in (0, 1)]
    assert one.steps_per_epoch == ranks[0].steps_per_epoch
    counted = collections.Counter()
    for epoch in range(2):
        for step in range(one.steps_per_epoch):
            assert one.count(epoch, step) == ranks[1].count(epoch, step)
            seen = [rows_of(loader.batches(epoch, step)) for loader in (one, *ranks)]
            assert seen[0] == seen[1] | seen[2] and not seen[1].keys() & seen[2].keys()
            counted.update(name for name, *_ in seen[0].values())
    assert set(counted.values()) == {6} and len(counted) == 9


def rows_of(batches):
    rows = {}
    for batch in batches:
        for at, slot in enumerate(batch.slots):
            rows[slot] = (
                batch.names[at],
                batch.captions[at],
                batch.crops[at],
                tuple(batch.latents_BCHW[at].flatten().tolist()),
            )
    return rows


def test_a_step_too_small_for_every_process_leaves_some_without_a_batch(tmp_path):
    picture(tmp_path / "only" / "a.png")
    ranks = [loader_of(tmp_path / "only", batching=Batching(7, world=2, rank=rank)) for rank in (0, 1)]
    assert [len(loader.batches(0, 0)) for loader in ranks] == [1, 0]


def test_accumulated_batches_have_slots_of_their_own(folder):
    loader = loader_of(folder, batching=Batching(7, batch=2, accumulate=3))
    batches = loader.batches(0, 0)
    assert [batch.slots for batch in batches] == [
        [0, 1][: len(batches[0].slots)],
        [2, 3][: len(batches[1].slots)],
        [4, 5][: len(batches[2].slots)],
    ]
    assert loader.count(0, 0) == sum(len(batch.slots) for batch in batches)


def test_latents_are_drawn_from_the_posterior_anew_at_each_visit(folder):
    loader = loader_of(folder, repeats=200, batching=Batching(7, batch=50))
    drawn = torch.stack(
        [
            row
            for batch in epoch_of(loader)
            for row, name in zip(batch.latents_BCHW, batch.names, strict=True)
            if name == "0.png"
        ]
    )
    mean_CHW, logvar_CHW = loader.cache.read(loader.examples[0].shot(loader.examples[0].crop))
    assert len(drawn) == 200
    assert torch.allclose(drawn.mean(0), mean_CHW, atol=0.06)
    assert drawn.std(0).mean() == pytest.approx(float(torch.exp(0.5 * logvar_CHW).mean()), rel=0.02)


@pytest.mark.parametrize("where", ["disk", "memory", "off"])
def test_a_resumed_run_draws_what_the_whole_run_drew(folder, tmp_path, where):
    place = tmp_path / "cache" if where == "disk" else where
    whole = loader_of(folder, place, repeats=2, flip=True)
    seen = [[rows_of(whole.batches(epoch, step)) for step in range(whole.steps_per_epoch)] for epoch in (0, 1, 2)]
    resumed = loader_of(folder, place, repeats=2, flip=True)
    assert [rows_of(resumed.batches(1, step)) for step in range(2, resumed.steps_per_epoch)] == seen[1][2:]
    assert rows_of(resumed.batches(2, 0)) == seen[2][0]
    assert rows_of(resumed.batches(0, 1)) == seen[0][1]
    whole.close(), resumed.close()


def test_captions_differ_between_epochs_and_not_between_runs(folder):
    loader = loader_of(folder, repeats=2)
    told = [loader.captions(epoch) for epoch in (0, 1, 0)]
    assert told[0] == told[2] == loader_of(folder, repeats=2).captions(0)
    assert set(told[0]) != set(told[1])
    assert set(told[0]) == {caption for batch in epoch_of(loader) for caption in batch.captions}


def test_a_flipped_picture_is_mirrored_at_every_other_visit(folder):
    loader = loader_of(folder, repeats=2, flip=True)
    for epoch in range(2):
        turns = collections.defaultdict(list)
        for batch in epoch_of(loader, epoch):
            for name, crop in zip(batch.names, batch.crops, strict=True):
                turns[name].append(crop)
        for crops in turns.values():
            assert [crop.flipped for crop in crops].count(True) == 1
            assert crops[0] == flip(crops[1])
    once = loader_of(folder, flip=True)
    firsts = [
        once.crop(visit).flipped for step in plan(once.examples, 0, once.batching) for batch in step for visit in batch
    ]
    assert 0 < sum(firsts) < 9


def test_flips_need_nothing_encoded_during_training(folder):
    encoder = Encoder()
    loader = loader_of(folder, encoder=encoder, repeats=2, flip=True)
    loader.cache.fill(Dataset(loader.examples).shots())
    assert encoder.seen == 18
    epoch_of(loader), epoch_of(loader, 1)
    assert encoder.seen == 18


def test_random_crops_need_the_cache_off(folder):
    with pytest.raises(UserError, match=r"random_crop = true: .*cache\.latents = 'off'"):
        loader_of(folder, random_crop=True)
    for number in range(9):
        picture(folder / f"{number}.png", 64, 80, seed=number)
    wide = Buckets(Size(64, 64), step=64)
    loader = loader_of(folder, "off", random_crop=True, buckets=wide)
    tops = {crop.top for epoch in range(8) for batch in epoch_of(loader, epoch) for crop in batch.crops}
    assert len(tops) > 8 and min(tops) >= 0 and max(tops) <= 16
    again = loader_of(folder, "off", random_crop=True, buckets=wide)
    assert rows_of(again.batches(3, 1)) == rows_of(loader.batches(3, 1))


def test_what_breaks_in_the_thread_is_told_in_the_loop(folder):
    class Late(Encoder):
        def __call__(self, pixels_BCHW):
            if self.seen >= 4:
                return torch.full((1, 4, 8, 8), float("nan")), torch.zeros(1, 4, 8, 8)
            return super().__call__(pixels_BCHW)

    loader = loader_of(folder, encoder=Late())
    with pytest.raises(UserError, match="NaN"):
        epoch_of(loader)


def test_no_masks_no_tensor(folder):
    assert loader_of(folder).batches(0, 0)[0].masks_B1HW is None


def test_masks_from_a_folder_follow_the_crop(folder, tmp_path):
    for number in range(9):
        with Image.open(folder / f"{number}.png") as shown:
            width, height = shown.size
        mask = Image.new("L", (width, height), 0)
        mask.paste(255, (0, 0, width // 2, height))
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{number}.png")
    for batch in epoch_of(loader_of(folder, masks=tmp_path / "masks", flip=True, repeats=2)):
        assert batch.masks_B1HW.shape == (len(batch.slots), 1, *batch.latents_BCHW.shape[2:])
        for mask_1HW, crop in zip(batch.masks_B1HW, batch.crops, strict=True):
            left, right = mask_1HW[0, :, 0].mean(), mask_1HW[0, :, -1].mean()
            assert (left, right) == ((0, 1) if crop.flipped else (1, 0))


def test_masks_from_transparency_and_datasets_without(folder, tmp_path):
    cutout = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    cutout.paste((0, 0, 0, 0), (0, 0, 64, 32))
    (tmp_path / "cut").mkdir()
    cutout.save(tmp_path / "cut" / "a.png")
    data = scan([spec_of(tmp_path / "cut", masks="alpha", trigger="x"), spec_of(folder)])
    loader = Loader(data, LatentCache("memory", Encoder(), vae="digest"), Batching(1, batch=10))
    masks = {name: mask for batch in epoch_of(loader) for name, mask in zip(batch.names, batch.masks_B1HW, strict=True)}
    assert masks["a.png"][0, 0].sum() == 0 and masks["a.png"][0, -1].min() == 1
    assert all(mask.min() == 1 for name, mask in masks.items() if name != "a.png")


def test_a_mask_of_another_aspect_is_refused(folder, tmp_path):
    for number in range(9):
        picture(tmp_path / "masks" / f"{number}.png", 100, 30, caption=None)
    with pytest.raises(UserError, match=r"masks/\d\.png: 100x30 pixels; the picture is"):
        epoch_of(loader_of(folder, masks=tmp_path / "masks"))


@settings(max_examples=20)
@given(MIXES, some.integers(1, 3), some.integers(1, 3))
def test_accumulation_only_groups_batches(mix, batch, accumulate):
    examples = [example(index, *each) for index, each in enumerate(mix)]
    plain = [b for step in plan(examples, 0, Batching(5, batch)) for b in step]
    grouped = [b for step in plan(examples, 0, Batching(5, batch, accumulate)) for b in step]
    assert [[v.index for v in b] for b in plain] == [[v.index for v in b] for b in grouped]
