"""Caption files keep their encoding, line ends and everything else that is not the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lorakiln.base.errors import UserError
from lorakiln.tag import caption, edits, sidecar
from lorakiln.tag.caption import Caption, Line


@pytest.mark.parametrize(
    "data, text",
    [
        ("1girl, 帽子\n".encode(), "1girl, 帽子"),
        (b"\xef\xbb\xbf" + "1girl, 帽子\r\n".encode(), "1girl, 帽子"),
        (b"\xff\xfe" + "1girl, 帽子".encode("utf-16-le"), "1girl, 帽子"),
        (b"\xfe\xff" + "1girl, 帽子\n\n".encode("utf-16-be"), "1girl, 帽子"),
        ("1girl, 帽子を被った少女".encode("cp932"), "1girl, 帽子を被った少女"),
        (b"", ""),
        (b"one\r\ntwo\r\n", "one\ntwo"),
        (b"one\r\ntwo\n", "one\ntwo"),
        (b"one\rtwo\n\r\n", "one\ntwo"),
        (b"\x87\x90, hat", "≒, hat"),
    ],
)
def test_a_file_written_back_unchanged_is_the_same_bytes(tmp_path, data, text):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    read = sidecar.read(path)
    assert read.text == text and read.data(text) == data
    path.write_bytes(read.data(text + " 帽" if read.encoding != "utf-8" or data else "x"))
    assert sidecar.read(path).encoding == read.encoding and sidecar.read(path).mark == read.mark


def test_several_kinds_of_line_break_become_the_first_of_them_and_the_end_stays(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\nthree\n \r\n")
    assert sidecar.read(tmp_path / "a.txt").data("one\ntwo\nfour") == b"one\r\ntwo\r\nfour\n \r\n"


def test_shift_jis_is_guessed_with_a_warning(tmp_path):
    (tmp_path / "a.txt").write_bytes("少女".encode("cp932"))
    assert "read as Shift-JIS" in sidecar.read(tmp_path / "a.txt").warning


def test_what_is_no_text_or_too_long_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\x00\x01\x02")
    with pytest.raises(UserError, match="neither UTF-8"):
        sidecar.read(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("x" * 100_001)
    with pytest.raises(UserError, match="at most 100,000"):
        sidecar.read(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_bytes("少女".encode("cp932"))
    with pytest.raises(UserError, match="which has no 'ć'"):
        sidecar.read(tmp_path / "c.txt").data("ć")


SENTENCE = "A girl with a red hat stands in the rain."
COMMAS = "A girl in red, smiling, stands in the rain."


@pytest.mark.parametrize(
    "text, found",
    [
        ("1girl, hat, rain", caption.of(["1girl", "hat", "rain"])),
        (SENTENCE, caption.of([], SENTENCE)),
        (f"1girl, hat\n{SENTENCE}", caption.of(["1girl", "hat"], SENTENCE)),
        (f"1girl, hat, {SENTENCE}", caption.of(["1girl", "hat"], SENTENCE, joined=True)),
        (f"1girl, hat, {COMMAS}", caption.of(["1girl", "hat"], COMMAS, True)),
        (f"Hatsune Miku, {COMMAS}", caption.of(["Hatsune Miku"], COMMAS, True)),
        ("a cat sitting on top of a wooden table", caption.of([], "a cat sitting on top of a wooden table")),
        ("1girl, looking at viewer, mr. x", caption.of(["1girl", "looking at viewer", "mr. x"])),
        ("", caption.of([])),
        ("a, b\nc, d", Caption((Line(("a", "b")), Line(("c", "d"))))),
        (f"{SENTENCE}\n{COMMAS}", Caption((Line((), SENTENCE), Line((), COMMAS)))),
        (f"znk, hat\nznk, {SENTENCE}", Caption((Line(("znk", "hat")), Line(("znk",), SENTENCE)))),
        ("hat, A girl of 1,000 birds stands there.", caption.of(["hat"], "A girl of 1,000 birds stands there.", True)),
        ("hat, A cat sits there., , ", caption.of(["hat"], "A cat sits there.", True)),
        ("nature, insect, nature", caption.of(["nature", "insect", "nature"])),
        ("hat\nIt rains.", caption.of(["hat"], "It rains.")),
    ],
)  # fmt: skip
def test_tags_and_sentences_are_told_apart_and_written_back(text, found):
    assert caption.read(text) == found
    assert caption.read(found.text()) == found


PIECES = [
    "hat",
    "long hair",
    "Hatsune Miku",
    "A girl stands",
    "in the rain.",
    "smiling",
    ", ",
    "\n",
    "1,000",
    "mr. x",
    "",
]


@given(some.lists(some.sampled_from(PIECES), max_size=9).map(", ".join))
def test_a_caption_read_and_written_is_the_same_caption_of_as_many_lines(text):
    once = caption.read(text)
    assert caption.read(once.text()) == once
    assert len(once.lines) == sum(bool(line.strip(", ")) for line in text.splitlines())


@pytest.mark.parametrize(
    "before, after",
    [
        ("znk, hat\nznk, A girl stands in the rain.", "znk, hat, red\nznk, A girl stands in the rain."),
        ("a, b\nc, d", "a, b, red\nc, d, red"),
        ("1girl, A girl stands in the rain.", "1girl, red, A girl stands in the rain."),
        (
            "A girl stands in the rain.\nShe is wet, but smiling.",
            "red\nA girl stands in the rain.\nShe is wet, but smiling.",
        ),
        ("", "red"),
    ],
)
def test_an_added_tag_keeps_the_form_of_a_caption(before, after):
    assert edits.add(["red"])(caption.read(before)).text() == after


@pytest.mark.parametrize(
    "before, after",
    [
        ("znk, hat\nznk, A girl stands in the rain.", "new\nznk, A girl stands in the rain."),
        ("a, b\nc, d", "new"),
        ("1girl, A girl stands in the rain.", "new, A girl stands in the rain."),
        ("A girl stands in the rain.", "new\nA girl stands in the rain."),
    ],
)
def test_other_tags_replace_those_there_and_sentences_stay(before, after):
    assert caption.read(before).retagged(["new"]).text() == after


def test_a_caption_of_many_capitals_is_read_at_once():
    assert len(caption.read(", ".join(f"Some Name {n}" for n in range(7_000))).tags) == 7_000
