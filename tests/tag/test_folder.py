"""A whole folder: what counts as an existing caption, sentences for a share, rules line by line, a run cut short."""

import pytest
from PIL import Image

from lorakiln.tag import edits
from lorakiln.tag import folder as folders
from lorakiln.tag.rules import Rules
from lorakiln.tag.run import Plan, run
from lorakiln.tag.tagger import Guess, Tagged, Thresholds

PROSE = "A girl stands in the rain."


class Wide:
    """Tags a picture by its width; `stop` raises at so many pictures."""

    batch = 2
    vocabulary = ("hat",)

    def __init__(self, stop=99):
        self.left = stop

    def tags(self, pictures):
        self.left -= len(pictures)
        if self.left < 0:
            raise KeyboardInterrupt
        return [Tagged((Guess(f"w{picture.width}", 1.0), Guess("hat", 0.9))) for picture in pictures]

    def sentences(self, pictures):
        return [f"A picture of {picture.width} pixels." for picture in pictures]


@pytest.fixture
def make(tmp_path):
    """Pictures 0.png, 1.png, ... of 10, 11, ... pixels with these texts beside them; None for no file."""

    def made(*texts, below="set"):
        place = tmp_path / below
        place.mkdir(parents=True)
        for number, text in enumerate(texts):
            Image.new("RGB", (10 + number, 8)).save(place / f"{number}.png")
            if text is not None:
                (place / f"{number}.txt").write_text(text, newline="")
        return tmp_path / below.partition("/")[0]

    return made


def wide(whole, existing):
    return {name: one.text() for name, one in folders.tagged(whole, Wide(), Thresholds(), existing)[0].items()}


def ruled(whole, wanted):
    return [one.text() for one in folders.ruled(whole.captions, wanted).captions.values()]


def test_only_a_caption_file_is_an_existing_caption(make):
    whole = folders.read(make(None, "mine", "", below="set/10_znk"))
    assert [one.text() for one in whole.captions.values()] == ["znk", "mine", ""]
    assert wide(whole, "keep") == {"10_znk/0.png": "w10, hat", "10_znk/2.png": "w12, hat"}
    assert wide(whole, "add") == {
        "10_znk/0.png": "w10, hat", "10_znk/1.png": "mine, w11, hat", "10_znk/2.png": "w12, hat",
    }  # fmt: skip
    assert not [edit for edit in folders.edits(whole, whole.captions) if edit.changes]


def test_tags_are_added_to_those_there_even_where_the_tagger_finds_none(make):
    whole = folders.read(make("mine\nA girl stands in the rain."))
    found, _ = folders.tagged(whole, Wide(), Thresholds(1.0), "add")
    assert found["0.png"].text() == f"mine, w10\n{PROSE}"
    assert folders.tagged(whole, Nothing(), Thresholds(), "add")[0]["0.png"] == whole.captions["0.png"]


class Nothing(Wide):
    def tags(self, pictures):
        return [Tagged(()) for _ in pictures]


@pytest.mark.parametrize(
    "there, share, new", [((), 0.5, "135"), ((0, 1), 0.5, "5"), ((1, 3, 5), 0.5, ""), ((0,), 1.0, "12345")]
)
def test_sentences_that_are_there_count_towards_the_share(make, there, share, new):
    whole = folders.read(make(*(f"hat\n{PROSE}" if n in there else "hat" for n in range(6))))
    found, _ = folders.told(whole, whole.captions, Wide(), share)
    assert "".join(name[0] for name in found) == new
    assert all(one.text() == f"hat\nA picture of {10 + int(name[0])} pixels." for name, one in found.items())


@pytest.mark.parametrize(
    "before, after",
    [
        (f"hat\n{PROSE}", f"znk, score_9, hat\nznk, {PROSE}"),
        (f"hat, {PROSE}", f"znk, score_9, hat, {PROSE}"),
        ("hat\nred_sky", "znk, score_9, hat\nznk, score_9, red sky"),
        ("A znkish girl stands there.", "znk, A znkish girl stands there."),
        ("A girl called ZNK stands in the rain.", "A girl called ZNK stands in the rain."),
        (PROSE, f"znk, {PROSE}"),
        ("", "znk, score_9"),
    ],
)
def test_rules_go_line_by_line_and_twice_is_once(make, before, after):
    wanted = Rules(trigger="znk", quality="starter")
    assert ruled(folders.read(make(before)), wanted) == [after]
    assert ruled(folders.read(make(after, below="again")), wanted) == [after]


def test_a_trigger_with_an_underscore_stands_once_however_often_rules_are_applied(make):
    wanted = Rules(trigger="twmj_style", quality="starter", absorb=0.9)
    texts = ["twmj_style, score_9, hat, tree", "twmj style, hat", f"hat, sky\ntwmj_style, {PROSE}", "hat, cat", "hat"]
    once = ruled(folders.read(make(*texts)), wanted)
    assert once[0] == "twmj_style, score_9, tree" and once[2] == f"twmj_style, score_9, sky\ntwmj_style, {PROSE}"
    assert ruled(folders.read(make(*once, below="again")), wanted) == once


def test_what_falls_past_the_limit_is_counted_and_a_sentence_counts_too(make):
    whole = folders.read(make("a, b, c", "a, c", "a", "a, b, A cat sits on a mat."))
    found = folders.ruled(whole.captions, Rules(max_tokens=7), lambda text: 3 * len(text.split(",")))
    assert [one.text() for one in found.captions.values()] == ["a, b", "a, c", "a", "a, A cat sits on a mat."]
    assert found.fallen == {"c": 1, "b": 1} and found.cut == 2


def test_a_run_cut_short_keeps_what_it_wrote_and_is_one_edit(make):
    folder = make(None, None, "mine", None, None, None)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    whole = folders.read(folder)
    (folder / "1.txt").write_text("meanwhile")

    def go(tagger):
        now = folders.read(folder) if tagger.left == 99 else whole
        with edits.editing(folder, "tag") as session:
            outcome = run(
                now, Plan(tagger, rules=Rules("znk")), lambda new: session.write(folders.edits(now, new)),
                lambda stage: lambda done, total: None,
            )  # fmt: skip
            session.write(folders.edits(now, outcome.captions))

    with pytest.raises(KeyboardInterrupt):
        go(Wide(stop=4))
    assert (folder / "3.txt").read_text() == "w13, hat\n" and not (folder / "5.txt").exists()
    assert (folder / "1.txt").read_text() == "meanwhile"
    go(Wide())
    assert [(folder / f"{n}.txt").read_text().strip() for n in range(6)] == [
        "znk, w10, hat", "znk, meanwhile", "znk, mine", "znk, w13, hat", "znk, w14, hat", "znk, w15, hat",
    ]  # fmt: skip
    edits.undo(folder)
    edits.undo(folder)
    (folder / "1.txt").unlink()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
