"""Moving rejects away and back: nothing is lost, whatever happens in between."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lorakiln.base.errors import UserError
from lorakiln.curate import act
from tests.curate.pictures import save, scene


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".kiln" not in path.parts and path.name != act.MANIFEST
    }


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "set" / "deep", a=scene(1, 64), b=scene(2, 64))
    (tmp_path / "set" / "deep" / "a.txt").write_text("a tag")
    (tmp_path / "set" / "deep" / "b.txt").write_text("b tag")
    return tmp_path / "set"


def test_a_reject_moves_with_its_caption_and_undo_restores_every_byte(folder):
    before = contents(folder)
    act.apply(folder, {"deep/a.png": "copy"})
    assert set(contents(folder)) == {"deep/b.png", "deep/b.txt", "_rejected/deep/a.png", "_rejected/deep/a.txt"}
    back, remarks = act.undo(folder)
    assert sorted(back) == ["deep/a.png", "deep/a.txt"] and not remarks
    assert contents(folder) == before


def test_a_caption_that_another_picture_needs_stays(folder):
    scene(3, 64).save(folder / "deep" / "a.jpg")
    act.apply(folder, {"deep/a.png": "copy"})
    assert (folder / "deep" / "a.txt").exists()


def test_batches_are_undone_last_first(folder):
    before = contents(folder)
    act.apply(folder, {"deep/a.png": "copy"})
    act.apply(folder, {"deep/b.png": "blurred"})
    assert act.undo(folder)[0] == ["deep/b.txt", "deep/b.png"]
    act.undo(folder)
    assert contents(folder) == before
    with pytest.raises(UserError, match="nothing to undo"):
        act.undo(folder)


def test_a_second_reject_of_the_same_name_gets_a_number(folder):
    act.apply(folder, {"deep/a.png": "copy"})
    save(folder / "deep", a=scene(9, 64))
    act.apply(folder, {"deep/a.png": "copy"})
    assert (folder / "_rejected" / "deep" / "a.2.png").exists()


def test_undo_never_replaces_a_file_that_came_in_between_and_does_not_forget_the_old_one(folder):
    before = contents(folder)
    act.apply(folder, {"deep/a.png": "copy", "deep/b.png": "blurred"})
    save(folder / "deep", a=scene(9, 64))
    new = (folder / "deep" / "a.png").read_bytes()
    back, remarks = act.undo(folder)
    assert sorted(back) == ["deep/a.txt", "deep/b.png", "deep/b.txt"]
    assert (folder / "deep" / "a.png").read_bytes() == new
    assert len(remarks) == 1 and "exists again" in remarks[0]
    (folder / "deep" / "a.png").unlink()
    assert act.undo(folder) == (["deep/a.png"], [])
    assert contents(folder) == before


def test_a_caption_that_two_rejects_share_is_undone_without_a_remark(folder):
    scene(3, 64).save(folder / "deep" / "a.jpg")
    before = contents(folder)
    act.apply(folder, {"deep/a.png": "copy", "deep/a.jpg": "copy"})
    back, remarks = act.undo(folder)
    assert sorted(back) == ["deep/a.jpg", "deep/a.png", "deep/a.txt"] and not remarks
    assert contents(folder) == before


def test_a_link_moves_as_a_link(folder, tmp_path):
    save(tmp_path / "pool", c=scene(4, 64))
    (folder / "c.png").symlink_to("../pool/c.png")
    act.apply(folder, {"c.png": "copy"})
    assert not (folder / "c.png").exists()
    assert act.undo(folder) == (["c.png"], [])
    assert (folder / "c.png").is_symlink() and (folder / "c.png").exists()


def test_what_is_gone_already_is_passed_over(folder):
    assert act.apply(folder, {"deep/z.png": "copy"}) == []
    with pytest.raises(UserError, match="nothing to undo"):
        act.undo(folder)


def test_a_linked_folder_on_another_disk_is_moved_by_copying(folder, tmp_path, monkeypatch):
    save(tmp_path / "disk", c=scene(4, 64))
    (folder / "linked").symlink_to(tmp_path / "disk")
    before, real = contents(tmp_path), Path.rename

    def rename(source, target):
        if "linked" in str(source):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    act.apply(folder, {"linked/c.png": "copy"})
    assert (folder / "_rejected" / "linked" / "c.png").exists() and not (tmp_path / "disk" / "c.png").exists()
    assert act.undo(folder) == (["linked/c.png"], [])
    assert contents(tmp_path) == before


def test_a_copy_to_another_disk_cut_short_before_the_original_went_is_undone(folder):
    before = contents(folder)
    act.apply(folder, {"deep/a.png": "copy"})
    shutil.copyfile(folder / "_rejected" / "deep" / "a.png", folder / "deep" / "a.png")
    assert sorted(act.undo(folder)[0]) == ["deep/a.png", "deep/a.txt"]
    assert contents(folder) == before


def test_one_moves_pictures_at_a_time(folder):
    with act.alone(folder), pytest.raises(UserError, match="another kiln is moving its pictures"), act.alone(folder):
        pass


def test_a_move_cut_short_can_be_undone(folder, monkeypatch):
    before, moves = contents(folder), []
    real = act._move

    def failing(source, target):
        moves.append(source)
        if len(moves) == 2:
            raise OSError("the power went")
        real(source, target)

    monkeypatch.setattr(act, "_move", failing)
    with pytest.raises(OSError, match="power"):
        act.apply(folder, {"deep/a.png": "copy", "deep/b.png": "copy"})
    monkeypatch.setattr(act, "_move", real)
    act.undo(folder)
    assert contents(folder) == before


@pytest.fixture
def framed(folder):
    """The folder with a half see-through picture between two bars, and what --trim would make of it."""
    picture = scene(5, 64).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    save(folder, framed=ImageOps.expand(picture, (0, 10, 0, 12), "black"))
    (folder / "framed.txt").write_text("framed tag")
    return {"framed.png": act.Cut((0, 10, 64, 74), "trimmed")}


def without_rejected(folder):
    return {name: data for name, data in contents(folder).items() if not name.startswith("_rejected/")}


def test_a_cut_copy_takes_the_place_and_the_caption_and_undo_takes_it_back(folder, framed):
    before = contents(folder)
    act.apply(folder, {}, framed)
    assert not (folder / "framed.png").exists() and not (folder / "framed.txt").exists()
    with Image.open(folder / "framed.trimmed.png") as cut:
        assert cut.size == (64, 64) and np.asarray(cut)[..., 3].std() > 50
    assert (folder / "framed.trimmed.txt").read_text() == "framed tag"
    assert act.undo(folder)[1] == []
    assert without_rejected(folder) == before


def test_a_cut_copy_that_was_changed_stays(folder, framed):
    act.apply(folder, {}, framed)
    scene(7, 64).save(folder / "framed.trimmed.png")
    (remark,) = act.undo(folder)[1]
    assert "was changed since" in remark and (folder / "framed.png").exists()


def test_two_pictures_of_one_name_get_two_cut_copies(folder, framed):
    scene(6, 64).save(folder / "framed.bmp")
    act.apply(folder, {}, framed | {"framed.bmp": act.Cut((0, 0, 32, 64), "cropped")})
    scene(6, 64).save(folder / "framed.bmp")
    act.apply(folder, {}, {"framed.bmp": act.Cut((0, 0, 64, 32), "cropped")})
    assert {"framed.trimmed.png", "framed.cropped.png", "framed.cropped.2.png"} <= set(contents(folder))


@pytest.mark.parametrize("fails", ["_write_cut", "_move"])
def test_cutting_that_was_itself_cut_short_can_be_undone(folder, framed, monkeypatch, fails):
    before, real = contents(folder), getattr(act, fails)

    def failing(*given):
        if fails == "_write_cut":
            real(*given)
        raise OSError("the power went")

    monkeypatch.setattr(act, fails, failing)
    with pytest.raises(OSError, match="power"):
        act.apply(folder, {}, framed)
    monkeypatch.setattr(act, fails, real)
    assert (folder / "framed.trimmed.png").exists() and (folder / "framed.png").exists()
    assert act.undo(folder)[1] == []
    assert without_rejected(folder) == before


def test_a_broken_manifest_is_named(folder):
    act.apply(folder, {"deep/a.png": "copy"})
    (folder / "_rejected" / act.MANIFEST).write_text(json.dumps([1, 2]))
    with pytest.raises(UserError, match=r"manifest\.json: is not a manifest"):
        act.undo(folder)
