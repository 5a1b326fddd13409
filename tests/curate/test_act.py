"""Moving rejects away and back: nothing is lost, whatever happens in between."""

import json

import pytest
from PIL import ImageOps

from lorakiln.base.errors import UserError
from lorakiln.curate import act
from lorakiln.curate.scan import scan
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


def test_undo_never_replaces_a_file_that_came_in_between(folder):
    act.apply(folder, {"deep/a.png": "copy"})
    save(folder / "deep", a=scene(9, 64))
    new = (folder / "deep" / "a.png").read_bytes()
    _, remarks = act.undo(folder)
    assert (folder / "deep" / "a.png").read_bytes() == new
    assert len(remarks) == 1 and "exists again" in remarks[0]
    assert (folder / "_rejected" / "deep" / "a.png").exists()


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


def test_trimming_writes_a_copy_and_undo_takes_it_back(folder):
    framed = ImageOps.expand(scene(5, 64), (0, 10, 0, 12), "black")
    save(folder, framed=framed)
    (folder / "framed.txt").write_text("framed tag")
    before = contents(folder)
    (picture,) = [p for p in scan(folder).pictures if p.name == "framed.png"]
    act.apply(folder, {}, [picture])
    assert not (folder / "framed.png").exists()
    (trimmed,) = [p for p in scan(folder).pictures if p.name == "framed.trimmed.png"]
    assert trimmed.size == (64, 64)
    assert (folder / "framed.trimmed.txt").read_text() == "framed tag"
    act.undo(folder)
    after = {name: data for name, data in contents(folder).items() if not name.startswith("_rejected/")}
    assert after == before


def test_a_broken_manifest_is_named(folder):
    act.apply(folder, {"deep/a.png": "copy"})
    (folder / "_rejected" / act.MANIFEST).write_text(json.dumps([1, 2]))
    with pytest.raises(UserError, match=r"manifest\.json: is not a manifest"):
        act.undo(folder)
