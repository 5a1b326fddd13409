"""`kiln tag` and `kiln tags` as users run them."""

import json
import os

import pytest
from PIL import Image

from lorakiln.cli import tag as cli
from lorakiln.tag import wd
from tests.cli.verbs import kiln
from tests.tag import models


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return models.write(tmp_path_factory.mktemp("tagger"), models.Colours())


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    for name, colour in {"sky": (0, 80, 255), "hat": (255, 0, 0), "both": (255, 0, 255)}.items():
        Image.new("RGB", (20, 10), colour).save(place / f"{name}.png")
    return place


def texts(folder):
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.txt"))}


def test_tagging_writes_captions_and_undo_takes_them_back(folder, tagger, capsys):
    code, said = kiln(capsys, "tag", folder, "--tagger", tagger, "--trigger", "znk", "--threshold", 0.6)
    assert code == 0 and "CPUExecutionProvider" in said.out and "keep_tokens = 1" in said.out
    # padding to a square is white: half of each mean
    assert texts(folder) == {
        "both": "znk, blue sky, red hat\n", "hat": "znk, red hat\n", "sky": "znk, blue sky, ^_^\n",
    }  # fmt: skip
    code, said = kiln(capsys, "tags", folder, "--undo")
    assert code == 0 and texts(folder) == {}


def test_preview_writes_nothing_and_shows_the_difference(folder, tagger, capsys):
    code, said = kiln(capsys, "tag", folder, "--tagger", tagger, "--preview")
    assert code == 0 and "+ blue sky" in said.out and "nothing was written" in said.out
    assert texts(folder) == {} and not (folder / ".kiln").exists()


def test_existing_tags_are_kept_replaced_or_added_to(folder, tagger, capsys):
    (folder / "hat.txt").write_text("mine ,own")
    _, said = kiln(capsys, "tag", folder, "--tagger", tagger, "--threshold", 0.9)
    assert texts(folder)["hat"] == "mine ,own" and "1 pictures have tags already and kept them" in said.out
    (folder / "hat.txt").write_text("mine")
    kiln(capsys, "tag", folder, "--tagger", tagger, "--threshold", 0.9, "--existing", "add")
    assert texts(folder)["hat"].strip() == "mine, red hat"
    kiln(capsys, "tag", folder, "--tagger", tagger, "--threshold", 0.9, "--existing", "replace")
    assert texts(folder)["hat"].strip() == "red hat"


def test_rules_alone_rewrite_captions(folder, tmp_path, capsys):
    (folder / "hat.txt").write_text("red_hat, 1girl")
    (tmp_path / "rules.toml").write_text('trigger = "znk"\nquality = "pony"\nexclude = ["1girl"]\n')
    _, said = kiln(capsys, "tag", folder, "--rules", tmp_path / "rules.toml", "--json")
    assert texts(folder)["hat"] == "znk, score_9, source_anime, red hat"
    assert json.loads(said.out)["keep_tokens"] == 3


def test_the_token_limit_counts_as_sdxl_does(folder, tmp_path, capsys):
    (folder / "hat.txt").write_text("red hat, blue sky, green tree")
    (tmp_path / "rules.toml").write_text("max_tokens = 5\n")
    kiln(capsys, "tag", folder, "--rules", tmp_path / "rules.toml")
    assert texts(folder)["hat"] == "red hat, blue sky"


def test_tags_past_the_limit_are_told(folder, tmp_path, capsys):
    for name in ("hat", "sky"):
        (folder / f"{name}.txt").write_text(f"red hat, blue sky, green tree, {name}")
    (tmp_path / "rules.toml").write_text("max_tokens = 5\n")
    _, said = kiln(capsys, "tag", folder, "--rules", tmp_path / "rules.toml", "--preview")
    assert "max_tokens = 5: 2 captions lost their last tags: 'green tree' (2), " in said.out


def test_rules_show_the_first_changes_and_preview_all(folder, capsys):
    for number in range(5):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    _, said = kiln(capsys, "tag", folder, "--trigger", "znk", "--preview")
    assert said.out.count("+ znk") == 8 and "8 captions would change" in said.out
    _, said = kiln(capsys, "tag", folder, "--trigger", "znk")
    assert said.out.count("+ znk") == 3 and "and 5 more; --preview shows all" in said.out
    assert "8 captions written" in said.out
    _, said = kiln(capsys, "tag", folder, "--trigger", "znk")
    assert "0 captions written\n" in said.out


def test_a_folder_name_is_no_caption_that_the_tagger_keeps(folder, tagger, capsys):
    (folder / "10_znk").mkdir()
    (folder / "sky.png").rename(folder / "10_znk" / "sky.png")
    kiln(capsys, "tag", folder, "--tagger", tagger, "--threshold", 0.6)
    assert (folder / "10_znk" / "sky.txt").read_text() == "blue sky, ^_^\n"


def test_what_is_wrong_is_found_before_the_first_picture_is_tagged(folder, tagger, tmp_path, capsys):
    code, said = kiln(capsys, "tag", folder, "--tagger", tagger, "--captioner", tmp_path)
    assert code == 2 and "holds no config.json" in said.err and "tag:" not in said.out
    assert not (folder / ".kiln").exists()


def test_a_run_cut_short_says_what_it_wrote(folder, tagger, capsys, monkeypatch):
    model = wd.load(str(tagger), "cpu", 1)
    model.batch, tags = 2, model.tags

    def stopped(pictures):
        if len(pictures) < 2:  # the second batch of three pictures
            raise KeyboardInterrupt
        return tags(pictures)

    monkeypatch.setattr(model, "tags", stopped)
    monkeypatch.setattr(cli, "_tagger", lambda *_: model)
    code, said = kiln(capsys, "tag", folder, "--tagger", "x")
    assert code == 130 and "stopped; 2 captions were written" in said.err and set(texts(folder)) == {"both", "hat"}
    kiln(capsys, "tags", folder, "--undo")
    assert texts(folder) == {}


def test_names_of_any_kind_are_shown_on_one_line(folder, tagger, capsys):
    (folder / "hat.png").rename(folder / "two\nlines \x1b[31m.png")
    (folder / "sky.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    (folder / "both.png").rename(folder / "猫.png")
    code, said = kiln(capsys, "tag", folder, "--tagger", tagger)
    assert (
        code == 0 and r"two\nlines \x1b[31m.txt" in said.out and r"caf\udce9.txt" in said.out and "猫.txt" in said.out
    )
    (folder / "猫.png").write_text("nothing")
    (folder / "two\nlines \x1b[31m.txt").write_text("red\x1b[31m, hat")
    for words in (
        ["tag", folder, "--tagger", tagger, "--existing", "add"],
        ["tags", folder],
        ["tags", folder, "--undo"],
    ):
        code, said = kiln(capsys, *words)
        assert code == 0 and "\x1b" not in said.out
    assert kiln(capsys, "tags", folder, "--export", folder / "m.json")[0] == 0
    assert kiln(capsys, "tags", folder, "--import", folder / "m.json")[0] == 0


def test_an_unreadable_picture_is_named_and_the_others_are_tagged(folder, tagger, capsys):
    (folder / "bad.png").write_text("nothing")
    code, said = kiln(capsys, "tag", folder, "--tagger", tagger)
    assert code == 0 and "bad.png: is not a picture" in said.out
    assert set(texts(folder)) >= {"both", "hat", "sky"}


def test_the_vocabulary_is_shown_and_changed(folder, capsys):
    for name in ("hat", "sky"):
        (folder / f"{name}.txt").write_text(f"1girl, {name}")
    __, said = kiln(capsys, "tags", folder, "--json")
    values = json.loads(said.out)
    assert values["tags"] == {"1girl": 2, "hat": 1, "sky": 1} and values["missing"] == 1
    kiln(capsys, "tags", folder, "--where", "has:hat and not has:sky", "--rename", "hat=cap", "--add", "red")
    assert texts(folder) == {"hat": "1girl, cap, red", "sky": "1girl, sky"}
    _, said = kiln(capsys, "tags", folder, "--beside", "1girl", "--json")
    assert json.loads(said.out)["tags"] == {"cap": 1, "red": 1, "sky": 1}


def test_metadata_goes_out_and_in(folder, tmp_path, capsys):
    (folder / "hat.txt").write_text("1girl, hat")
    kiln(capsys, "tags", folder, "--export", tmp_path / "m.jsonl")
    (folder / "hat.txt").write_text("lost")
    kiln(capsys, "tags", folder, "--import", tmp_path / "m.jsonl")
    assert texts(folder)["hat"] == "1girl, hat"


def test_an_import_may_be_for_some_pictures_and_an_edit_too(folder, tmp_path, capsys):
    (folder / "hat.txt").write_text("old")
    (tmp_path / "m.json").write_text('{"hat": {"tags": "a"}, "sky": {"tags": "b"}}')
    kiln(capsys, "tags", folder, "--import", tmp_path / "m.json", "--where", "missing")
    assert texts(folder) == {"hat": "old", "sky": "b\n"}
    kiln(capsys, "tags", folder, "--replace", "b=c", "--add", "d, e", "--where", "not missing")
    assert texts(folder) == {"hat": "old, d, e", "sky": "c, d, e\n"}


def test_kohya_folders_are_made_of_some_pictures(folder, tmp_path, capsys):
    (folder / "hat.txt").write_text("hat")
    words = ["--to-kohya", tmp_path / "out", "--repeats", 5, "--trigger", "znk"]
    _, said = kiln(capsys, "tags", folder, "--where", "not name:sky*", *words)
    assert "3 files in" in said.out
    assert sorted(path.name for path in (tmp_path / "out" / "5_znk").iterdir()) == ["both.png", "hat.png", "hat.txt"]


def test_a_taggers_vocabulary_and_a_trigger_are_compared_with(folder, tagger, capsys):
    for name, text in {"hat": "zzqx, red_hat", "sky": "zzqx, blu sky", "both": "sunset"}.items():
        (folder / f"{name}.txt").write_text(text)
    _, said = kiln(capsys, "tags", folder, "--tagger", tagger, "--trigger", "zzqx")
    assert "'blu sky' (1): unknown to the tagger; did you mean 'blue sky'?" in said.out
    assert "1 tags are unknown to the tagger: 'sunset' (1)" in said.out
    assert "trigger 'zzqx': stands in 2 of 3 captions" in said.out


@pytest.mark.parametrize(
    "words, said",
    [
        (["tag", "set"], "nothing to do"),
        (["tag", "set", "--trigger", "a, b"], "trigger: 'a, b' must be one tag"),
        (["tag", "set", "--trigger", "a", "--threshold", "0.35"], "--threshold: has no effect without --tagger"),
        (["tag", "set", "--trigger", "a", "--mcut"], "--mcut: has no effect without --tagger"),
        (["tag", "set", "--trigger", "a", "--rating"], "--rating: has no effect without --tagger"),
        (["tag", "set", "--trigger", "a", "--existing", "add"], "--existing: has no effect without --tagger"),
        (["tag", "set", "--trigger", "a", "--device", "cpu"], "--device: has no effect without --tagger"),
        (["tag", "set", "--tagger", "starter", "--sentences", "1"], "--sentences: has no effect without --captioner"),
        (["tag", "set", "--tagger", "starter", "--mcut", "--threshold", "0.5"], "--mcut: finds the thresholds itself"),
        (["tags", "set", "--export", "m.json", "--preview"], "--preview: has no effect with --export"),
        (["tags", "set", "--to-kohya", "out", "--preview"], "--preview: has no effect with --to-kohya"),
        (["tags", "set", "--preview"], "--preview: has no effect with showing the words"),
        (["tags", "set", "--repeats", "3"], "--repeats: has no effect with showing the words"),
        (["tags", "set", "--import", "m.json", "--add", "a"], "--import with an edit: do one after the other"),
        (["tags", "set", "--export", "m.json", "--add", "a"], "an edit with --export: do one after the other"),
        (["tags", "set", "--undo", "--add", "a"], "--undo with an edit: do one after the other"),
        (["tags", "set", "--undo", "--where", "missing"], "--where: has no effect with --undo"),
        (["tags", "set", "--add", "a", "--beside", "b"], "--beside: has no effect with an edit"),
        (["tags", "set", "--rename", "hat="], "rename hat=: there is no new name"),
        (["tags", "set", "--replace", ""], "write it as OLD=NEW"),
        (["tags", "set", "--import", "nowhere.json"], "nowhere.json: no such file"),
        (["tag", "set", "--tagger", "none/here/at/all"], "none/here/at/all: holds no"),
        (["tag", "set", "--tagger", "starter", "--existing", "drop"], "choose from keep, replace, add"),
        (["tag", "set", "--captioner", "nowhere"], "nowhere: holds no config.json"),
        (["tags", "set", "--rename", "hat"], "write it as OLD=NEW"),
        (["tags", "set", "--where", "size:3"], "--where size:3"),
        (["tags", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(folder, capsys, monkeypatch, words, said):
    monkeypatch.chdir(folder.parent)
    code, told = kiln(capsys, *words)
    assert code == 2 and said in told.err and told.err.count("\n") == 1
