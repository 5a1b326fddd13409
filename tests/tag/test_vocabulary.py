"""Words of a whole set: counts, notices on what was mixed, kohya's files."""

import json

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.tag import caption, metadata, vocabulary
from lorakiln.tag import folder as folders

CLEAN = {f"{n}.png": caption.of(("1girl", "long hair", tag)) for n, tag in enumerate(["hat", "rain", "hat", "cat"])}


KNOWN = ["1girl", "long_hair", "hat", "rain", "cat"]


def said(captions, **more):
    return " | ".join(vocabulary.notices(captions, **more))


def test_counts_and_what_stands_together():
    words = vocabulary.of(CLEAN)
    assert words.counts == {"1girl": 4, "long hair": 4, "hat": 2, "rain": 1, "cat": 1}
    assert words.together("hat") == [("1girl", 2), ("long hair", 2)]
    assert words.sentences == 0 and words.missing == 0


def test_a_clean_set_gives_no_notice():
    assert said(CLEAN, known=KNOWN, trigger="") == ""


@pytest.mark.parametrize(
    "extra, more, notice",
    [
        (caption.of(("long_hair",)), {}, "'long hair' and 'long_hair'"),
        (caption.of(("school_uniform",)), {}, "underscores (1 tags) beside spaces (1 tags)"),
        (caption.of((), "A girl stands in the rain, smiling at us."), {}, "20% of the captions hold a sentence"),
        (caption.of([]), {}, "1 of 5 pictures have no caption"),
        (caption.of(("score_9", "newest")), {}, "quality tags of more than one base"),
        (
            caption.of(("lnog hair",)),
            {"known": ["long_hair", "hat"]},
            "'lnog hair' (1): unknown to the tagger; did you mean 'long hair'",
        ),
        (
            caption.of(("uong hair",)),
            {"known": KNOWN},
            "'uong hair' (1): unknown to the tagger; did you mean 'long hair'",
        ),
        (
            caption.of(("Lnog_hair",)),
            {"known": KNOWN},
            "'Lnog_hair' (1): unknown to the tagger; did you mean 'long hair'",
        ),
        (
            caption.of(("zebra", "xylophone", "hat")),
            {"known": KNOWN},
            "2 tags are unknown to the tagger: 'xylophone' (1)",
        ),
        (caption.of(("zebra", "xylophone")), {"known": KNOWN}, "1 captions hold mostly tags that the tagger does not"),
        (caption.of(("hat",)), {"trigger": "znk"}, "trigger 'znk': stands in 0 of 5"),
        (caption.of(("hat",)), {"trigger": "hat", "known": ["hat"]}, "is a tag that the base knows already"),
        (
            caption.of(("hat",)),
            {"trigger": "x", "split": lambda text: ["a", "bc", "def</w>"]},
            "splits it into a+bc+def",
        ),
    ],
)
def test_what_does_not_fit_together_is_noticed(extra, more, notice):
    assert notice in said(CLEAN | {"x.png": extra}, **more)


def test_a_sentence_that_names_the_trigger_holds_it():
    captions = {"a": caption.of(["znk", "hat"]), "b": caption.of([], "A girl called Znk stands there.")}
    assert "trigger" not in said(captions, trigger="znk")
    assert "stands in 2 of 3" in said(captions | {"c": caption.of([], "Some znkish thing lies there.")}, trigger="znk")


def test_a_trigger_and_quality_tags_are_no_unknown_tags():
    captions = {f"{n}.png": caption.of(["znk_style", "score_9", "1girl", "hat"]) for n in range(3)}
    assert said(captions, known=KNOWN, trigger="znk_style") == ""


def test_a_caption_of_a_hundred_thousand_characters_is_looked_at_in_no_time():
    tags = [f"tag{n}" for n in range(12_000)]
    captions = {"a.png": caption.of(tags), "b.png": caption.of(["hat", "tag7"])}
    words = vocabulary.of(captions)
    assert words.together("hat") == [("tag7", 1)] and len(words.counts) == 12_001
    assert "12000 tags are unknown" in said(captions, known=["hat"])


def test_prose_alone_beside_tags_alone_is_noticed():
    tags = {f"t{n}": caption.of(("a", "b", "c", "d")) for n in range(3)}
    assert "prose alone in 1" in said(tags | {"p": caption.of((), "A cat sits on a mat.")})


NAMES = ("a.png", "sub/b.jpg")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    (place / "sub").mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (8, 8)).save(place / name)
    (place / "a.txt").write_text("hat, rain\nA hat lies in the rain.")
    (place / "sub" / "b.txt").write_text("cat")
    return place


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_kohya_metadata_goes_out_and_comes_back(folder, tmp_path, ending):
    captions = folders.read(folder).captions
    metadata.write(tmp_path / f"m.{ending}", captions)
    assert metadata.read(tmp_path / f"m.{ending}", folder, captions) == captions


@pytest.mark.parametrize(
    "text", ["a, b", "A cat sits.", "a\nA cat sits.", "a, A cat sits down.", "a, b\nc\nz, A cat sits there.", ""]
)
def test_every_form_of_a_caption_goes_out_and_comes_back(folder, tmp_path, text):
    metadata.write(tmp_path / "m.json", {"a.png": caption.read(text)})
    assert metadata.read(tmp_path / "m.json", folder, NAMES)["a.png"].text() == text


def test_tags_stand_in_every_line_of_a_caption_as_in_kohya(folder, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"a.png": {"tags": "x, y", "caption": "A cat sits.\nA dog, it is."}}))
    read = metadata.read(tmp_path / "m.json", folder, NAMES)["a.png"]
    assert [line.tags[:2] for line in read.lines] == [("x", "y")] * 2


KEYS = ["a.png", "a", "{folder}/a.png", "{folder}/a", "/elsewhere/old/a.png", "C:\\old\\a.png", "img/a"]


@pytest.mark.parametrize("key", [*KEYS, "sub/b.jpg", "sub/b", "{folder}/sub/b", "/elsewhere/set/sub/b.jpg", "SUB\\C"])
@pytest.mark.parametrize("relative", [False, True])
def test_kohya_keys_may_be_written_in_many_ways(folder, tmp_path, monkeypatch, key, relative):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps({key.format(folder=folder): {"tags": "x, y"}}))
    place = folder.relative_to(tmp_path) if relative else folder
    (name,) = metadata.read(tmp_path / "m.json", place, [*NAMES, "SUB/C.JPG"])
    assert name == {"a": "a.png", "b": "sub/b.jpg", "C": "SUB/C.JPG"}[key.removesuffix(".png").removesuffix(".jpg")[-1]]


def test_two_keys_of_one_picture_are_refused(folder, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"cats/a.png": {"tags": "x"}, "dogs/a.png": {"tags": "y"}}))
    with pytest.raises(UserError, match=r"'cats/a\.png' and 'dogs/a\.png' are both 'a\.png'"):
        metadata.read(tmp_path / "m.json", folder, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"a.png": 3}',
        '{"_rejected/c.png": {"tags": "x"}}',
        '{"nowhere.png": {"tags": "x"}}',
        '{"a.png": {"tags": [1]}}',
    ],
)
def test_what_is_no_metadata_is_refused(folder, tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match=r"m\.json"):
        metadata.read(tmp_path / "m.json", folder, NAMES)


def test_kohya_folders_are_written_and_read(folder, tmp_path):
    folders.kohya_folders(folders.read(folder), NAMES, tmp_path / "out", 5, "znk")
    assert (tmp_path / "out" / "5_znk" / "a.txt").read_bytes() == (folder / "a.txt").read_bytes()
    assert (tmp_path / "out" / "5_sub" / "b.jpg").exists()
    with pytest.raises(UserError, match="exists already"):
        folders.kohya_folders(folders.read(folder), NAMES, tmp_path / "out", 5, "znk")
    (tmp_path / "out" / "5_sub" / "b.txt").unlink()
    assert folders.read(tmp_path / "out").captions["5_sub/b.jpg"] == caption.of(("sub",))


def test_pictures_that_would_meet_in_one_kohya_folder_are_refused(folder, tmp_path):
    for name in ("big cats/a.png", "big/cats/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    whole = folders.read(folder)
    with pytest.raises(UserError, match=r"'big/cats/a\.jpg' and 'big cats/a\.png' would both be"):
        folders.kohya_folders(whole, whole.pictures, tmp_path / "out", 5, "znk")
    assert not (tmp_path / "out").exists()
