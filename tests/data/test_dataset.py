"""Folders become examples in one order, and what cannot be trained on is said in one line."""

import dataclasses
import shutil

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets, flip
from lorakiln.data.dataset import DatasetSpec, scan
from tests.data.pictures import SMALL, captions, picture


def kohya(name):
    number, mark, words = name.partition("_")
    return (int(number), words) if mark and number.isdigit() else None


def spec_of(folder, **options):
    return DatasetSpec(folder, buckets=SMALL, read_caption=captions, **options)


def test_examples_come_sorted_by_name_with_their_captions(tmp_path):
    for name in ("b/2.png", "a.jpg", "b/10.png", "c.webp"):
        picture(tmp_path / name, caption=f"words of {name}")
    examples = scan([spec_of(tmp_path)]).examples
    assert [example.name for example in examples] == ["a.jpg", "b/10.png", "b/2.png", "c.webp"]
    assert all(example.caption == f"words of {example.name}" for example in examples)
    assert all(example.crop == SMALL.fit(example.size) for example in examples)


def test_several_tables_follow_each_other(folder, tmp_path):
    picture(tmp_path / "more" / "0.png", caption="x")
    data = scan([spec_of(tmp_path / "more", repeats=5), spec_of(folder, repeats=2)])
    assert len(data.examples) == 10
    assert data.visits == 5 + 9 * 2
    assert [row.count for row in data.bucket_rows()] == [3, 4, 3]


def test_other_files_are_left_out_and_told(folder):
    for name in ("readme.md", "7.npz", "orphan.txt", ".hidden.png", ".cache/8.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    data = scan([spec_of(folder)])
    assert len(data.examples) == 9
    assert [path.name for path in data.ignored] == ["orphan.txt", "readme.md"]


def test_linked_folders_are_entered_once(folder, tmp_path):
    picture(tmp_path / "far" / "z.png")
    (folder / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(folder)
    examples = scan([spec_of(folder)]).examples
    assert [example.name for example in examples] == [*(f"{number}.png" for number in range(9)), "linked/z.png"]


def test_a_link_to_nothing_is_named(folder):
    (folder / "x.png").symlink_to(folder / "gone.png")
    (folder / "x.txt").write_text("x")
    with pytest.raises(UserError, match=r"x\.png: cannot be read"):
        scan([spec_of(folder)])


def test_a_picture_without_caption_is_refused(folder):
    (folder / "4.txt").unlink()
    with pytest.raises(UserError, match=r"4\.png: has no caption file; .*missing = 'empty'"):
        scan([spec_of(folder)])
    (folder / "7.txt").unlink()
    with pytest.raises(UserError, match=r"4\.png: has no caption file \(nor have 1 others in "):
        scan([spec_of(folder)])
    assert scan([spec_of(folder, missing="empty")]).examples[4].caption == ""
    assert scan([spec_of(folder, trigger="mika")]).examples[4].caption == "mika"


def test_without_folder_names_the_number_counts_for_nothing(tmp_path):
    picture(tmp_path / "10_mika" / "a.png", caption="written")
    for folder in (tmp_path, tmp_path / "10_mika"):
        data = scan([spec_of(folder, repeats=3, folder_names=False)], kohya)
        assert [(example.spec.repeats, example.caption) for example in data.examples] == [(3, "written")]


def test_kohya_folders_give_repeats_and_the_caption_of_bare_pictures(tmp_path):
    picture(tmp_path / "10_mika girl" / "a.png", caption=None)
    picture(tmp_path / "10_mika girl" / "b.png", caption="written")
    picture(tmp_path / "2_hat" / "c.png", caption=None)
    data = scan([spec_of(tmp_path, repeats=3)], kohya)
    found = [(example.name, example.spec.repeats, example.caption) for example in data.examples]
    assert found == [("a.png", 30, "mika girl"), ("b.png", 30, "written"), ("c.png", 6, "hat")]
    alone = scan([spec_of(tmp_path / "2_hat")], kohya).examples
    assert [(example.spec.repeats, example.caption) for example in alone] == [(2, "hat")]


def test_pictures_beside_kohya_folders_are_not_lost_silently(tmp_path):
    picture(tmp_path / "10_mika" / "a.png")
    picture(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png: lies beside folders"):
        scan([spec_of(tmp_path)], kohya)


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        scan([spec_of(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(UserError, match="empty: holds no picture"):
        scan([spec_of(tmp_path / "empty")])


def test_a_bad_picture_is_named(folder):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "5.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"5\.png: is animated"):
        scan([spec_of(folder)])


def test_a_picture_too_small_for_a_bucket_is_named(folder):
    picture(folder / "0.png", 8, 300)
    rules = Buckets(Size(64, 64), step=16, no_upscale=True)
    with pytest.raises(UserError, match=r"0\.png: 8x300"):
        scan([dataclasses.replace(spec_of(folder), buckets=rules)])


def test_the_digest_knows_contents_and_captions_only(folder, tmp_path):
    digest = scan([spec_of(folder)]).digest
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    for suffix in (".png", ".txt"):
        (moved / f"0{suffix}").rename(moved / f"z{suffix}")
    assert scan([spec_of(moved, repeats=7)]).digest == digest
    (moved / "z.txt").write_text("other words")
    changed = scan([spec_of(moved)]).digest
    picture(moved / "z.png", seed=99, caption="cat 0, red, blue, green")
    assert len({digest, changed, scan([spec_of(moved)]).digest}) == 3


def test_flips_are_two_shots(folder):
    data = scan([spec_of(folder, flip=True)])
    shots = data.shots()
    assert len(shots) == 18
    assert shots[1].crop == flip(shots[0].crop)
    assert len(scan([spec_of(folder)]).shots()) == 9


def test_masks_are_found_by_name_and_are_no_pictures(folder):
    for number in range(9):
        picture(folder / "masks" / f"{number}.jpg", caption=None)
    data = scan([spec_of(folder, masks=folder / "masks")])
    assert [example.mask.name for example in data.examples] == [f"{number}.jpg" for number in range(9)]
    (folder / "masks" / "3.jpg").unlink()
    with pytest.raises(UserError, match=r"3\.png: has no mask .*3\.png"):
        scan([spec_of(folder, masks=folder / "masks")])
