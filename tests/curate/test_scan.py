"""Folders as they are: what is read once, what is refused with its reason, what never breaks the scan."""

import os
import sqlite3

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.curate.index import FILE, FOLDER
from lorakiln.curate.picture import shown
from lorakiln.curate.scan import scan
from tests.curate.pictures import save, scene


def test_every_picture_is_measured_and_every_other_file_named(tmp_path):
    save(tmp_path / "in" / "deep", a=scene(1))
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / "deep" / "a.png").read_bytes()[:900])
    (tmp_path / "in" / "text.jpg").write_text("no picture")
    (tmp_path / "in" / "notes.md").write_text("not looked at")
    found = scan(tmp_path / "in")
    assert [picture.name for picture in found.pictures] == ["deep/a.png"]
    assert {entry.name for entry in found.refused} == {"cut.png", "text.jpg"}
    assert all(entry.reason for entry in found.refused)


def test_a_second_scan_reads_only_what_changed(tmp_path):
    save(tmp_path, a=scene(1), b=scene(2), c=scene(3))
    first = scan(tmp_path)
    first.index.close()
    assert first.read == 3
    save(tmp_path, b=scene(4))
    (tmp_path / "c.png").unlink()
    second = scan(tmp_path)
    assert second.read == 1
    assert [picture.name for picture in second.pictures] == ["a.png", "b.png"]
    assert second.pictures[0] == first.pictures[0]
    assert second.pictures[1].sha256 != first.pictures[1].sha256


def test_a_file_of_the_same_size_with_other_pixels_is_read_again(tmp_path):
    for seed in (1, 2):
        scene(seed, 64).save(tmp_path / "a.bmp")
        os.utime(tmp_path / "a.bmp", ns=(seed, seed))
        found = scan(tmp_path)
        found.index.close()
        assert found.read == 1


def test_the_index_forgets_what_is_gone(tmp_path):
    save(tmp_path, a=scene(1, 64), b=scene(2, 64))
    scan(tmp_path).index.close()
    (tmp_path / "a.png").unlink()
    assert [picture.name for picture, _ in scan(tmp_path).index.pictures()] == ["b.png"]


@pytest.mark.parametrize("harm", ["delete", "garbage", "another version"])
def test_the_index_may_be_lost_at_any_time(tmp_path, harm):
    save(tmp_path, a=scene(1))
    scan(tmp_path).index.close()
    file = tmp_path / FOLDER / FILE
    if harm == "delete":
        file.unlink()
    elif harm == "garbage":
        file.write_bytes(b"this is no database at all" * 200)
    else:
        with sqlite3.connect(file) as database:
            database.execute("pragma user_version = 99")
        database.close()
    assert scan(tmp_path).read == 1


def test_a_wrong_extension_is_read_by_content(tmp_path):
    scene(1).save(tmp_path / "really_png.jpg", "PNG")
    assert scan(tmp_path).pictures[0].format == "PNG"


def test_links_in_a_circle_end(tmp_path):
    save(tmp_path / "in", a=scene(1))
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = scan(tmp_path / "in")
    assert [picture.name for picture in found.pictures] == ["a.png"]
    assert [entry.name for entry in found.refused] == ["gone.png"]


@pytest.mark.parametrize("name", ["two\nlines", "日本語 絵", "أ", "per%cent'quote\"", os.fsdecode(b"\xff\xfe")])
def test_any_name_works(tmp_path, name):
    scene(1).save(tmp_path / f"{name}.png")
    scan(tmp_path).index.close()
    found = scan(tmp_path)
    assert found.read == 0 and found.pictures[0].name == f"{name}.png"
    assert "\n" not in shown(found.pictures[0].name)
    shown(found.pictures[0].name).encode()


def test_a_moving_picture_gives_its_first_frame_with_a_warning(tmp_path):
    frames = [scene(1, 64), scene(2, 64)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    found = scan(tmp_path)
    assert [picture.size for picture in found.pictures] == [(64, 64), (64, 64)]
    assert all("first frame" in picture.note for picture in found.pictures)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (6000, 2)])
def test_odd_sizes_are_measured(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert scan(tmp_path).pictures[0].size == size


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    save(tmp_path, small=scene(1, 16), big=scene(1, 64))
    found = scan(tmp_path)
    assert [entry.name for entry in found.refused] == ["big.png"]
    assert "too many pixels" in found.refused[0].reason


def test_pictures_that_would_share_a_caption_are_named(tmp_path):
    save(tmp_path, a=scene(1))
    scene(2).save(tmp_path / "a.jpg")
    assert scan(tmp_path).notes == ("a.jpg and a.png would share one caption file; rename one",)


def test_hidden_and_rejected_folders_are_left_out(tmp_path):
    save(tmp_path, a=scene(1))
    save(tmp_path / "_rejected", b=scene(2))
    save(tmp_path / ".kiln", c=scene(3))
    assert [picture.name for picture in scan(tmp_path).pictures] == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_locked_folder_is_named(tmp_path):
    save(tmp_path, a=scene(1))
    save(tmp_path / "locked", b=scene(2)).chmod(0)
    try:
        assert [entry.name for entry in scan(tmp_path).refused] == ["locked"]
    finally:
        (tmp_path / "locked").chmod(0o755)


def test_nothing_to_scan_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no picture"):
        scan(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 1 pictures can be read"):
        scan(tmp_path)


def test_more_readers_find_the_same(tmp_path):
    for seed in range(8):
        scene(seed, 64).save(tmp_path / f"{seed}.png")
    one = scan(tmp_path, workers=1)
    one.index.close()
    (tmp_path / FOLDER / FILE).unlink()
    assert scan(tmp_path, workers=4).pictures == one.pictures
