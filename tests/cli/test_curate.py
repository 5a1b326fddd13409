"""`kiln curate` as users run it."""

import json
import re

import pytest
from PIL import Image, ImageOps

from lorakiln.curate import act
from tests.cli.verbs import kiln
from tests.curate.pictures import save, scene
from tools import demo_raw


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


def test_trim_and_crop_put_copies_in_the_place_of_pictures(folder, capsys):
    for name, picture in {
        "framed": ImageOps.expand(scene(3), (0, 60, 0, 0), "black"),
        "wide": scene(4).crop((0, 0, 256, 40)),
    }.items():
        picture.save(folder / f"{name}.png")
    options = ["--resolution", 128, "--keep", "small", "--keep", "copy", "--apply", "--trim", "--crop"]
    code, said = kiln(capsys, "curate", folder, *options)
    assert code == 0 and f"kiln curate {folder} --undo" in " ".join(said.out.split())
    with Image.open(folder / "framed.trimmed.png") as trimmed, Image.open(folder / "wide.cropped.png") as cropped:
        assert trimmed.size == (256, 256) and cropped.size[0] / cropped.size[1] == pytest.approx(4, abs=0.2)
    code, said = kiln(capsys, "curate", folder, "--undo", "--json")
    assert json.loads(said.out)["remarks"] == [] and (folder / "framed.png").exists() and (folder / "wide.png").exists()
    assert not list(folder.glob("*ed.png.*")) and not (folder / "framed.trimmed.png").exists()


def test_tags_are_counted_in_any_line_and_in_sentences_and_shift_jis_is_no_end(folder, capsys):
    for number, text in enumerate(
        [b"1girl, long_hair\nA girl.", b"A girl with a hat and Long Hair.", "猫".encode("cp932"), b"\xff\xff"]
    ):
        save(folder, **{f"p{number}": scene(20 + number)})
        (folder / f"p{number}.txt").write_bytes(text)
    code, said = kiln(capsys, "curate", folder, "--resolution", 256, "--by-tag", "long hair, hat", "--json")
    values = json.loads(said.out)
    assert code == 0 and values["concepts"] == {"(none of them)": 4, "long hair": 2}
    assert sum("read as Shift-JIS" in note or "neither UTF-8" in note for note in values["notes"]) == 2


def test_kohya_numbers_count_as_repeats(folder, capsys):
    for number in range(6):
        save(folder / ("2_cat" if number < 4 else "4_dog"), **{f"p{number}": scene(30 + number)})
    save(folder / "0_bird", bird=scene(40))
    code, said = kiln(capsys, "curate", folder, "--resolution", 256, "--json")
    values = json.loads(said.out)
    assert code == 0 and values["repeats"] == {"cat": 1, "": 2, "dog": 2, "0_bird": 4}
    assert any("repeats each picture 0 times" in note for note in values["notes"])


def test_json_has_each_pictures_scale_crop_and_reasons(folder, capsys):
    values = json.loads(kiln(capsys, "curate", folder, "--resolution", 512, "--keep", "small", "--json")[1].out)
    one = values["measures"][str(folder / "a.png")]
    assert (one["bucket"], one["scale"], one["lost"]) == ("512x512", 2.0, 0.0)
    reasons = {entry["fault"]: entry["reasons"] for entry in values["advice"]}
    assert reasons["copy"] == {str(folder / "again.jpg"): "saved again as JPEG: a.png"}
    assert values["staying"] == 2 and values["aspects"] == {"1:1": 2}


def test_a_folder_that_cannot_be_written_is_looked_at_all_the_same(folder, capsys):
    (folder / ".kiln").write_text("in the way, as a read-only folder would be")
    code, said = kiln(capsys, "curate", folder, "--resolution", 256)
    told = " ".join(said.out.split())
    assert code == 0 and "no report:" in told and "1 copies" in told and "measures everything again" in told
    code, said = kiln(
        capsys, "curate", folder, "--resolution", 256, "--report", folder / ".kiln" / "page.html", "--json"
    )
    assert code == 2 and json.loads(said.out)["report"] is None and "page.html" in said.err


def test_an_index_damaged_in_the_middle_is_named(folder, capsys):
    kiln(capsys, "curate", folder, "--resolution", 256)
    index = folder / ".kiln" / "curate.sqlite"
    data = bytearray(index.read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 12288)
    index.write_bytes(data)
    code, said = kiln(capsys, "curate", folder, "--resolution", 256)
    assert code == 2 and "curate.sqlite: " in said.err and "delete it and look again" in said.err


def test_two_cannot_move_pictures_at_once(folder, capsys):
    with act.alone(folder):
        for option in ("--apply", "--undo"):
            code, said = kiln(capsys, "curate", folder, option)
            assert code == 2 and "another kiln" in said.err
        assert kiln(capsys, "curate", folder, "--resolution", 256)[0] == 0


def test_the_raw_pictures_of_the_demo_lose_what_was_planted(tmp_path, capsys):
    planted = demo_raw.make(tmp_path / "raw")
    options = ["--for", "style", "--resolution", 128, "--apply", "--json"]
    moved = {
        entry["name"]: entry["why"]
        for entry in json.loads(kiln(capsys, "curate", tmp_path / "raw", *options)[1].out)["moved"]
    }
    for kind, names in planted.items():
        why = kind if kind in ("blurred", "unreadable") else "copy"
        assert {name: moved.get(name, "stays") for name in names} == dict.fromkeys(names, why)
    assert len(moved) == sum(map(len, planted.values()))


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
    assert all(re.search(rf"{stage}: (\d+)/\1 ", said.out) for stage in ("measure", "look up", "compare"))


@pytest.mark.parametrize(
    "words, said",
    [
        (["nowhere"], "no such folder"),
        (["set", "--for", "landscape"], "unknown purpose 'landscape'"),
        (["set", "--trim"], "--trim: writes files, so it needs --apply"),
        (["set", "--crop"], "--crop: writes files, so it needs --apply"),
        (["set", "--keep", "copies"], "did you mean 'copy'"),
        (["set", "--resolution", "1001"], "must be multiples of 8"),
        (["nowhere", "--undo"], "no such folder"),
        (["set", "--undo"], "nothing to undo"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(folder, capsys, monkeypatch, words, said):
    monkeypatch.chdir(folder.parent)
    code, told = kiln(capsys, "curate", *words)
    assert code == 2 and said in told.err and told.err.count("\n") == 1
