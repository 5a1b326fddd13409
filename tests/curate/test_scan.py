"""Folders as they are: what is read once, what is refused with its reason, what never breaks the scan."""

import io
import os
import sqlite3
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from lorakiln.base import images
from lorakiln.base.errors import UserError, shown
from lorakiln.curate import duplicates
from lorakiln.curate.compare import Relation
from lorakiln.curate.index import FILE, FOLDER, Index
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


def test_every_file_that_is_no_picture_to_kiln_is_told(tmp_path):
    save(tmp_path, a=scene(1, 64))
    scene(2, 64).save(tmp_path / "really_png.dat", "PNG")
    for name in ("a.txt", "a.npz", "phone.HEIC", "new.jxl", "notes.md"):
        (tmp_path / name).write_text("x")
    found = scan(tmp_path)
    assert [(entry.name, entry.tried) for entry in found.refused] == [("new.jxl", False), ("phone.HEIC", False)]
    assert "HEIC is not read" in found.refused[1].reason
    assert found.notes == ("left out: 2 other files, whose names are no picture's (notes.md, really_png.dat)",)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"holds no picture.*new\.jxl: JXL is not read"):
        scan(tmp_path)


@pytest.mark.parametrize("ending", ["avif", "tif", "webp", "jpe", "apng"])
def test_every_format_is_measured(tmp_path, ending):
    if ending == "avif" and "AVIF" not in images.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    kinds = {"tif": "TIFF", "jpe": "JPEG", "apng": "PNG"}
    kind = kinds.get(ending, ending.upper())
    scene(1, 96).save(tmp_path / f"a.{ending}", kind)
    (picture,) = scan(tmp_path).pictures
    assert (picture.format, picture.size) == (kind, (96, 96))
    assert (picture.measures.jpeg_quality is not None) == (kind == "JPEG")


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


def test_what_cannot_be_read_is_remembered_too(tmp_path):
    save(tmp_path / "in", a=scene(1, 64), cut=scene(2, 64))
    cut = tmp_path / "in" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:900])
    first = scan(tmp_path / "in")
    first.index.close()
    (tmp_path / "in").rename(tmp_path / "moved")
    again = scan(tmp_path / "moved")
    again.index.close()
    assert (first.read, again.read) == (2, 0)
    assert [entry.reason for entry in again.refused] == [
        first.refused[0].reason.replace(str(tmp_path / "in"), str(tmp_path / "moved"))
    ]
    save(tmp_path / "moved", cut=scene(2, 64))
    assert len(scan(tmp_path / "moved").pictures) == 2


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), MemoryError()])
def test_a_file_that_vanishes_or_is_too_large_is_named_and_tried_again(tmp_path, monkeypatch, error):
    save(tmp_path, a=scene(1, 64), b=scene(2, 64))
    real = Path.read_bytes

    def read_bytes(path):
        if path.name == "b.png":
            raise error
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    found = scan(tmp_path)
    found.index.close()
    assert [entry.name for entry in found.refused] == ["b.png"]
    monkeypatch.undo()
    assert len(scan(tmp_path).pictures) == 2


def test_each_file_is_opened_once(tmp_path, monkeypatch):
    scene(1, 64).convert("RGBA").save(tmp_path / "a.png")
    opened, read, decode = [], Path.read_bytes, Image.open

    def from_memory(source, **options):
        assert isinstance(source, io.BytesIO), "opened once more"
        return decode(source, **options)

    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read(path))
    monkeypatch.setattr(Image, "open", from_memory)
    assert scan(tmp_path).pictures[0].has_alpha and opened == ["a.png"]


@pytest.mark.parametrize("when", ["before", "while"])
def test_on_a_full_disk_the_index_is_given_up_and_the_scan_goes_on(tmp_path, monkeypatch, when):
    save(tmp_path, a=scene(1, 64))
    scan(tmp_path).index.close()
    real = Index._open

    def small(index, path):
        real(index, path)
        if path:
            index._db.execute("pragma max_page_count = 20")

    monkeypatch.setattr(Index, "_open", small)
    save(tmp_path, **{f"p{number}": scene(number, 96) for number in range(6)})
    if when == "before":
        monkeypatch.setattr(Index, "_version", _refuse)
    found = scan(tmp_path)
    assert len(found.pictures) == 7 and all(found.index.thumbnail(one.sha256) for one in found.pictures)
    assert "so the next look measures everything again" in found.notes[-1] and ".kiln" in found.notes[-1]


def _refuse(index):
    if not index.lost:
        raise sqlite3.OperationalError("database or disk is full")
    return 0


def test_two_scans_at_once_find_the_same(tmp_path):
    save(tmp_path, **{f"p{number}": scene(number % 2, 64 + number // 2) for number in range(4)})

    def look(_):
        found = scan(tmp_path)
        groups = duplicates.find(found.pictures, found.index).groups
        found.index.close()
        return found.pictures, found.notes, groups

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(look, range(2))
    assert one == other and not one[1]


def test_comparisons_are_kept_now_and_then_and_no_lock_is_held_between(tmp_path):
    save(tmp_path, a=scene(1, 64))
    index, other = Index(tmp_path), Index(tmp_path)
    guess = ((0.0, 0.0, 1.0, 1.0), False)
    for number in range(300):
        index.relate("a", str(number), guess, Relation("near"))
    other.relate("b", "c", guess, Relation("copy"))
    other.flush()
    assert other.relation("a", "0", guess) == Relation("near")
    assert other.relation("a", "0", (guess[0], True)) is None


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
    assert all("\n" not in note for note in found.notes)
    shown(found.pictures[0].name).encode()


def test_a_moving_picture_gives_its_first_frame_with_a_warning(tmp_path):
    frames = [scene(1, 64), scene(2, 64)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    found = scan(tmp_path)
    assert [picture.size for picture in found.pictures] == [(64, 64), (64, 64)]
    assert all("first frame" in picture.note for picture in found.pictures)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (30_000, 2), (30_000, 60)])
def test_odd_sizes_are_measured(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert scan(tmp_path).pictures[0].size == size


def test_thirty_thousand_pixels_a_side_are_refused_by_their_header(tmp_path):
    save(tmp_path, small=scene(1, 16))
    picture = io.BytesIO()
    Image.new("1", (1, 1)).save(picture, "PNG")
    data = bytearray(picture.getvalue())
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "huge.png").write_bytes(data)
    (huge,) = scan(tmp_path).refused
    assert huge.name == "huge.png" and "too many pixels" in huge.reason


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
