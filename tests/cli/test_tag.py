"""`kiln tag` and `kiln tags` as users run them."""

import json

import pytest
from PIL import Image

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
    kiln(capsys, "tag", folder, "--tagger", tagger, "--threshold", 0.9)
    assert texts(folder)["hat"] == "mine ,own"
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


@pytest.mark.parametrize(
    "words, said",
    [
        (["tag", "set"], "nothing to do"),
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
