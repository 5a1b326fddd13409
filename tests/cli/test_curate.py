"""`kiln curate` as users run it."""

import json

import pytest
from PIL import Image

from tests.cli.verbs import kiln
from tests.curate.pictures import save, scene


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "set", a=scene(1), b=scene(2))
    scene(1).save(tmp_path / "set" / "again.jpg", quality=70)
    Image.new("RGB", (256, 256)).save(tmp_path / "set" / "empty.png")
    (tmp_path / "set" / "bad.png").write_text("nothing")
    return tmp_path / "set"


def test_json_lists_groups_as_paths(folder, capsys):
    code, said = kiln(capsys, "curate", folder, "--resolution", 256, "--json")
    values = json.loads(said.out)
    assert code == 0
    assert values["duplicates"] == [[str(folder / "a.png"), str(folder / "again.jpg")]]
    assert [entry["path"] for entry in values["unreadable"]] == [str(folder / "bad.png")]
    assert values["moved"] == [] and (folder / "again.jpg").exists()


def test_apply_moves_rejects_and_undo_brings_them_back(folder, capsys):
    before = sorted(path.name for path in folder.iterdir() if path.is_file())
    code, said = kiln(capsys, "curate", folder, "--resolution", 256, "--apply", "--json")
    moved = {entry["name"]: entry["why"] for entry in json.loads(said.out)["moved"]}
    assert moved == {"again.jpg": "copy", "empty.png": "empty", "bad.png": "unreadable"}
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["a.png", "b.png"]
    code, said = kiln(capsys, "curate", folder, "--undo")
    assert code == 0 and "3 files brought back" in said.out
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == before


def test_keep_spares_a_fault(folder, capsys):
    kiln(capsys, "curate", folder, "--resolution", 256, "--apply", "--keep", "copy", "--keep", "empty")
    assert (folder / "again.jpg").exists() and (folder / "empty.png").exists() and not (folder / "bad.png").exists()
    code, said = kiln(capsys, "curate", folder, "--apply", "--keep", "copies")
    assert code == 2 and "did you mean 'copy'" in said.err


def test_the_report_is_one_file_that_needs_no_other(folder, capsys, tmp_path):
    code, said = kiln(capsys, "curate", folder, "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert code == 0 and str(tmp_path / "page.html") in said.out
    assert page.count("data:image/jpeg;base64,") >= 2 and "again.jpg" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


def test_a_hostile_name_is_escaped_in_the_report(folder, capsys):
    scene(1).save(folder / "<img src=x onerror=alert(1)>.png")
    kiln(capsys, "curate", folder)
    page = (folder / ".kiln" / "curate.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_the_table_names_the_purpose_and_the_rule(folder, capsys):
    code, said = kiln(capsys, "curate", folder, "--for", "style", "--resolution", 256)
    assert code == 0 and "a style wants 50-100 [S1]" in " ".join(said.out.split()).replace("  ", " ")


@pytest.mark.parametrize(
    "words, said",
    [
        (["nowhere"], "no such folder"),
        (["set", "--for", "landscape"], "unknown purpose 'landscape'"),
        (["set", "--trim"], "needs --apply"),
        (["set", "--undo"], "nothing to undo"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(folder, capsys, monkeypatch, words, said):
    monkeypatch.chdir(folder.parent)
    code, told = kiln(capsys, "curate", *words)
    assert code == 2 and said in told.err and told.err.count("\n") == 1
