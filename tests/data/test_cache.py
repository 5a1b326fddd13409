"""Nothing stale, nothing half-written and nothing NaN ever comes out of a cache."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.data import cache as cache_module
from lorakiln.data.buckets import flip
from lorakiln.data.cache import Filled, LatentCache, TextCache
from lorakiln.data.dataset import DatasetSpec, Shot, scan
from lorakiln.data.store import DiskStore, MemoryStore
from tests.data.pictures import SMALL, Encoder, captions, picture


def shots_of(folder, **options):
    return scan([DatasetSpec(folder, buckets=SMALL, read_caption=captions, **options)]).shots()


def open_cache(where, encoder, **options):
    return LatentCache(where, encoder, **{"vae": "digest", **options})


@pytest.mark.parametrize("where", ["disk", "memory", "off"])
def test_a_cached_posterior_is_the_encoded_one(folder, tmp_path, encoder, where):
    cache = open_cache(tmp_path / "cache" if where == "disk" else where, encoder)
    shots = shots_of(folder, flip=True)
    cache.fill(shots)
    for shot in shots:
        pixels = torch.from_numpy(images.to_pixels(images.open_picture(shot.path), shot.crop))
        mean_1CHW, logvar_1CHW = Encoder()(pixels[None])
        mean_CHW, logvar_CHW = cache.read(shot)
        assert torch.equal(mean_CHW, mean_1CHW[0]) and torch.equal(logvar_CHW, logvar_1CHW[0])
        assert mean_CHW.shape == (4, shot.crop.target.height // 8, shot.crop.target.width // 8)
    assert encoder.seen == 18


def test_a_second_run_encodes_nothing(folder, tmp_path, encoder):
    shots = shots_of(folder)
    assert open_cache(tmp_path / "cache", encoder).fill(shots) == Filled(0, 9)
    assert open_cache(tmp_path / "cache", encoder).fill(shots) == Filled(9, 0)
    assert encoder.seen == 9


def test_a_mirrored_picture_has_a_mirrored_latent(folder, encoder):
    cache, shot = open_cache("memory", encoder), shots_of(folder)[0]
    mirrored = dataclasses.replace(shot, crop=flip(shot.crop))
    assert torch.allclose(cache.read(mirrored)[0], cache.read(shot)[0].flip(-1), atol=1e-6)


SHOT = Shot(path=None, sha256="00", crop=Crop(Size(90, 60), Size(96, 64), 16, 0, Size(64, 64)))
CROP_CHANGES = {"resized": Size(97, 64), "left": 15, "top": 1, "target": Size(64, 48), "flipped": True}
SHOT_CHANGES = {"sha256": "01", "background": (0, 0, 0)}
CACHE_CHANGES = {"vae": "other", "precision": "bfloat16", "dtype": torch.float16}
MODULE_CHANGES = [
    (cache_module, "FORMAT_VERSION", 99),
    (images, "DECODER_VERSION", 99),
    (images, "RESIZE_FILTER", "box"),
]


def test_changing_any_part_of_the_key_changes_the_entry(monkeypatch):
    keys = [open_cache("off", None).key(SHOT)]
    for name, value in CROP_CHANGES.items():
        changed = dataclasses.replace(SHOT, crop=dataclasses.replace(SHOT.crop, **{name: value}))
        keys.append(open_cache("off", None).key(changed))
    keys += [open_cache("off", None).key(dataclasses.replace(SHOT, **{name: v})) for name, v in SHOT_CHANGES.items()]
    keys += [open_cache("off", None, **{name: value}).key(SHOT) for name, value in CACHE_CHANGES.items()]
    for module, name, value in MODULE_CHANGES:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            keys.append(open_cache("off", None).key(SHOT))
    parts = len(CROP_CHANGES) + len(SHOT_CHANGES) + len(CACHE_CHANGES) + len(MODULE_CHANGES)
    assert len(set(keys)) == 1 + parts == 14


def test_the_entry_does_not_know_where_the_picture_lies(folder):
    shot = shots_of(folder)[0]
    moved = dataclasses.replace(shot, path=folder / "moved.png")
    assert open_cache("off", None).key(shot) == open_cache("off", None).key(moved)


def test_an_edited_picture_is_encoded_again(folder, tmp_path, encoder):
    open_cache(tmp_path / "cache", encoder).fill(shots_of(folder))
    picture(folder / "0.png", seed=77)
    assert open_cache(tmp_path / "cache", encoder).fill(shots_of(folder)) == Filled(8, 1)


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "nonsense": lambda data: b"\xff" * 100,
    "a longer header than the file": lambda data: (2**40).to_bytes(8, "little") + data[8:],
    "no note": lambda data: safetensors.torch.save(safetensors.torch.load(data)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(folder, tmp_path, encoder, damage):
    shots = shots_of(folder)
    cache = open_cache(tmp_path / "cache", encoder)
    cache.fill(shots)
    path = cache.store.path(cache.key(shots[3]))
    good = path.read_bytes()
    path.write_bytes(DAMAGE[damage](good))
    assert torch.isfinite(cache.read(shots[3])[0]).all()
    assert path.read_bytes() == good
    path.write_bytes(DAMAGE[damage](good))
    assert cache.fill(shots) == Filled(8, 1)
    assert path.read_bytes() == good


def test_an_entry_under_another_name_is_not_believed(folder, tmp_path, encoder):
    shots = shots_of(folder)
    cache = open_cache(tmp_path / "cache", encoder)
    cache.fill(shots)
    one, other = (cache.store.path(cache.key(shot)) for shot in shots[:2])
    one.write_bytes(other.read_bytes())
    assert cache.store.get(cache.key(shots[0])) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["mean", "logvar"])
def test_latents_that_are_not_finite_name_the_picture(folder, tmp_path, bad, which):
    def encode(pixels_BCHW):
        mean_BCHW, logvar_BCHW = Encoder()(pixels_BCHW)
        (mean_BCHW if which == "mean" else logvar_BCHW)[0, 0, 0, 0] = bad
        return mean_BCHW, logvar_BCHW

    cache = open_cache(tmp_path / "cache", encode, precision="float16")
    with pytest.raises(UserError, match=r"0\.png: the VAE made NaN or infinite latents of it at float16"):
        cache.fill(shots_of(folder))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_number_too_large_for_the_stored_dtype_is_refused(folder):
    cache = open_cache(
        "memory", lambda pixels: (torch.full((1, 4, 8, 8), 1e6), torch.zeros(1, 4, 8, 8)), dtype=torch.float16
    )
    with pytest.raises(UserError, match="infinite"):
        cache.read(shots_of(folder)[0])


def test_batches_hold_one_bucket_and_progress_ends_at_all(folder, encoder):
    told = []
    open_cache("memory", encoder).fill(
        shots_of(folder), batch=2, progress=lambda done, total: told.append((done, total))
    )
    assert sorted(encoder.batches) == sorted(
        [(2, 3, *s) for s in ((64, 64), (48, 80), (80, 48))] + [(1, 3, *s) for s in ((64, 64), (48, 80), (80, 48))]
    )
    assert told[-1] == (9, 9) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_an_interrupted_fill_is_continued_in_the_same_batches(folder, tmp_path, encoder):
    shots = shots_of(folder)
    whole = open_cache(tmp_path / "whole", encoder)
    whole.fill(shots, batch=2)
    expected = encoder.batches.copy()
    part = open_cache(tmp_path / "part", encoder)
    part.fill(shots, batch=2)
    part.store.path(part.key(shots[0])).unlink()
    encoder.batches.clear()
    assert part.fill(shots, batch=2) == Filled(8, 1)
    assert encoder.batches == expected[:1]


def test_a_cut_off_picture_is_named(folder, encoder):
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:200])
    for where in ("memory", "off"):
        with pytest.raises(UserError, match=r"5\.png: cannot be decoded"):
            open_cache(where, encoder).fill(shots_of(folder))


def test_a_picture_edited_after_it_was_measured_is_refused(folder, encoder):
    shots = shots_of(folder)
    picture(folder / "5.png", 40, 80, seed=99)
    with pytest.raises(UserError, match=r"5\.png: was changed"):
        open_cache("memory", encoder).fill(shots)


def test_a_cache_folder_that_is_a_file_is_refused(folder, encoder):
    with pytest.raises(UserError, match=r"0\.png: is a file"):
        open_cache(folder / "0.png", encoder)


KILLED = """
import sys, time
from pathlib import Path
import torch
from lorakiln.base import files
from lorakiln.data.cache import LatentCache
from lorakiln.data.dataset import DatasetSpec, scan
from tests.data.pictures import SMALL, Encoder, captions

real, written = files.os.fsync, []
def slow(number):
    written.append(1)
    if len(written) == 5:
        files.os.ftruncate(number, 100)
        print("writing", flush=True)
        time.sleep(60)
    real(number)
files.os.fsync = slow
shots = scan([DatasetSpec(Path(sys.argv[1]), buckets=SMALL, read_caption=captions)]).shots()
LatentCache(Path(sys.argv[2]), Encoder(), vae="digest").fill(shots)
"""


def test_kill_in_the_middle_of_a_write_leaves_a_readable_cache(folder, tmp_path, encoder, request):
    where = tmp_path / "cache"
    environment = os.environ | {"PYTHONPATH": str(request.config.rootpath)}
    command = [sys.executable, "-c", KILLED, str(folder), str(where)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(list(where.rglob("*.tmp"))) == 1
    shots = shots_of(folder)
    cache = open_cache(where, encoder)
    assert cache.fill(shots) == Filled(4, 5)
    fresh = open_cache("memory", Encoder())
    for shot in shots:
        assert torch.equal(cache.read(shot)[0], fresh.read(shot)[0])


def test_leftovers_are_swept_once_nobody_can_be_writing_them(tmp_path):
    old, new = tmp_path / "ab" / ".x.tmp", tmp_path / "ab" / ".y.tmp"
    old.parent.mkdir()
    old.touch(), new.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    DiskStore(tmp_path)
    assert not old.exists() and new.exists()


def test_an_entry_is_the_same_bytes_every_time(tmp_path):
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, 2, dtype=torch.bfloat16), "c": torch.tensor(4)}
    one, other = DiskStore(tmp_path / "one"), DiskStore(tmp_path / "other")
    one.put("abc", tensors)
    other.put("abc", dict(reversed(tensors.items())))
    assert one.path("abc").read_bytes() == other.path("abc").read_bytes()
    assert all(torch.equal(one.get("abc")[name], tensor) for name, tensor in tensors.items())


def test_memory_drops_what_was_longest_unused():
    store = MemoryStore(limit=3 * 400)
    for name in "abc":
        store.put(name, {"x": torch.zeros(100)})
    store.get("a")
    store.put("d", {"x": torch.zeros(100)})
    assert store.get("b") is None
    assert all(store.get(name) is not None for name in "acd")
    assert store.used == 1200


def test_what_is_needed_next_is_not_dropped_for_others():
    store = MemoryStore(limit=3 * 400)
    for name in "abc":
        assert store.put(name, {"x": torch.zeros(100)})
    store.need("bcd")
    assert store.put("d", {"x": torch.zeros(100)}) and store.get("a") is None
    assert not store.put("e", {"x": torch.zeros(100)}) and store.get("e") is None
    assert store.used == 1200 and all(store.get(name) is not None for name in "bcd")


class TextEncoder:
    def __init__(self):
        self.seen = []

    def __call__(self, captions):
        self.seen += captions
        return [
            {"states": torch.full((1, 4, 3), float(len(caption))), "pooled": torch.ones(1, 2)} for caption in captions
        ]


def test_without_a_text_cache_every_read_encodes():
    encode = TextEncoder()
    cache = TextCache("off", encode, tokens=str, encoders="digest")
    assert cache.fill(["a"]) == Filled(0, 0)
    assert cache.read("a")["states"][0, 0, 0] == cache.read("a")["states"][0, 0, 0] == 1
    assert encode.seen == ["a", "a"]


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_caption_is_encoded_once(tmp_path, where):
    encode = TextEncoder()
    place = tmp_path if where == "disk" else where
    cache = TextCache(place, encode, tokens=lambda caption: caption.lower(), encoders="digest")
    assert cache.fill(["a", "bb", "a", "BB"]) == Filled(0, 2)
    assert cache.read("bb")["states"][0, 0, 0] == 2
    assert cache.read("A")["pooled"].shape == (1, 2)
    assert len(encode.seen) == 2
    assert cache.fill(["a", "c"]) == Filled(1, 1)


def test_a_caption_is_known_by_its_tokens_and_encoders(tmp_path):
    keys = {
        TextCache("memory", None, tokens=tokens, encoders=encoders).key("a")
        for tokens in (str, str.upper)
        for encoders in ("one", "two")
    }
    assert len(keys) == 4


def test_dropped_captions_are_encoded_again():
    encode = TextEncoder()
    cache = TextCache("memory", encode, tokens=str, encoders="digest", limit=150)
    cache.fill(["a", "bb", "ccc"])
    assert [float(cache.read(caption)["states"][0, 0, 0]) for caption in ("a", "bb", "ccc")] == [1, 2, 3]
    assert len(encode.seen) > 3


def test_the_first_captions_of_an_epoch_are_kept_where_not_all_fit():
    """56 bytes each: two fit. The third is encoded when its step comes, and costs the others nothing."""
    encode = TextEncoder()
    cache = TextCache("memory", encode, tokens=str, encoders="digest", limit=150, batch=2)
    assert cache.fill(["a", "bb", "ccc", "dddd"]) == Filled(0, 2)
    encode.seen.clear()
    for caption in ("a", "bb", "ccc", "a", "bb"):
        assert cache.read(caption)["states"][0, 0, 0] == len(caption)
    assert encode.seen == ["ccc"]
    assert cache.fill(["ccc", "a"]) == Filled(1, 1), "another epoch needs others"


def test_text_states_that_are_not_finite_are_refused():
    cache = TextCache("memory", lambda captions: [{"x": torch.tensor([float("nan")])}], tokens=str, encoders="digest")
    with pytest.raises(UserError, match="caption 'a cat': the text encoders gave NaN"):
        cache.read("a cat")
