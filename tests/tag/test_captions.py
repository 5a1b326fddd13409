"""Captions are read in every encoding users have, and drawn as their rules say, the same for the same key."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lorakiln.base.errors import UserError
from lorakiln.tag import captions
from lorakiln.tag.captions import CaptionRules, draw

TAGS = "mika, 1girl, red hair, blue eyes, hat, smile"


def drawn(caption, rules, count=200):
    return [draw(caption, rules, random.Random(seed)) for seed in range(count)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-mark", "utf-16-be-mark"])
def test_reads_every_unicode_encoding(tmp_path, encoding):
    text, path = "red hair, é, 猫", tmp_path / "a.txt"
    if encoding.endswith("-mark"):
        path.write_bytes(f"\ufeff{text}\r\n".encode(encoding.removesuffix("-mark")))
    else:
        path.write_bytes(f"{text}\r\n".encode(encoding))
    assert captions.read_caption(path) == text


@pytest.mark.parametrize(
    "data", ["café".encode("latin-1"), "cat".encode("utf-16-le"), b"\xff\xfea", b"\xff\xfe\0\0a\0\0\0"]
)
def test_other_encodings_are_refused_in_one_line(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.txt: .*save the caption as UTF-8") as caught:
        captions.read_caption(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


def test_the_first_extension_found_is_read(tmp_path):
    (tmp_path / "a.b.txt").write_text("from txt")
    (tmp_path / "a.b.caption").write_text("from caption")
    assert captions.reader()(tmp_path / "a.b.png") == "from txt"
    assert captions.reader(["caption", ".txt"])(tmp_path / "a.b.png") == "from caption"
    assert captions.reader([".tags"])(tmp_path / "a.b.png") is None
    assert captions.reader()(tmp_path / "c.png") is None


def test_an_empty_caption_file_is_a_caption(tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    assert captions.reader()(tmp_path / "a.png") == ""


def test_parse_keeps_the_order_and_drops_what_is_empty():
    assert captions.parse(" red  hair ,, blue eyes,\that , ") == ("red hair", "blue eyes", "hat")
    assert captions.parse("a. b", ".") == ("a", "b")


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("10_mika girl", (10, "mika girl")),
        ("1_a_b", (1, "a_b")),
        ("3_", (3, "")),
        ("10 mika", None),
        ("mika", None),
        ("_mika", None),
    ],
)
def test_folder_names(name, parsed):
    assert captions.parse_folder(name) == parsed


def test_a_folder_of_no_repeats_is_refused():
    with pytest.raises(UserError, match="0_mika"):
        captions.parse_folder("0_mika")


def test_without_rules_the_text_stays_as_written():
    prose = "A girl, smiling; about 1,000 birds. (red:1.2) {{masterpiece}} :|"
    assert set(drawn(prose, CaptionRules(), 20)) == {prose}
    assert set(drawn(prose, CaptionRules(wildcards=True), 20)) == {prose}


def test_keep_tokens_counts_tags_that_never_move_or_drop():
    rules = CaptionRules(keep_tokens=2, shuffle=True, tag_dropout=0.5)
    results = [captions.parse(caption) for caption in drawn(TAGS, rules)]
    assert all(tags[:2] == ("mika", "1girl") for tags in results)
    assert {tag for tags in results for tag in tags} == set(captions.parse(TAGS))
    assert len(set(results)) > 30


def test_shuffle_loses_and_invents_nothing():
    rules = CaptionRules(shuffle=True)
    results = [captions.parse(caption) for caption in drawn(TAGS, rules)]
    assert all(sorted(tags) == sorted(captions.parse(TAGS)) for tags in results)
    assert {tags[0] for tags in results} == set(captions.parse(TAGS))


def test_a_sentence_stays_whole_at_the_end_and_is_no_tag():
    sentence = "A girl in red, smiling at 1,000 birds, stands in the rain."
    rules = CaptionRules(keep_tokens=1, shuffle=True, tag_dropout=0.5)
    results = drawn(f"znk, hat, tree, sky, {sentence}", rules)
    assert len(set(results)) > 8 and all(text.startswith("znk, ") and text.endswith(sentence) for text in results)
    assert set(drawn(f"znk, hat\nznk, {sentence}", CaptionRules(keep_tokens=1, tag_dropout=1.0))) == {
        "znk", f"znk, {sentence}",
    }  # fmt: skip
    assert set(drawn(sentence, CaptionRules(shuffle=True, tag_dropout=1.0))) == {sentence}
    assert not captions.varies(f"znk, {sentence}", rules)
    for text in drawn(f"znk ||| a, b, {sentence} ||| end", CaptionRules(keep_separator="|||", shuffle=True), 20):
        assert text.endswith(f"{sentence}, end")


def test_the_keep_separator_counts_instead_of_keep_tokens():
    rules = CaptionRules(keep_separator="|||", keep_tokens=3, shuffle=True, tag_dropout=0.4)
    for caption in drawn("mika, 1girl ||| red hair, hat, smile ||| best quality, new", rules):
        tags = captions.parse(caption)
        assert tags[:2] == ("mika", "1girl")
        assert tags[-2:] == ("best quality", "new")
        assert set(tags[2:-2]) <= {"red hair", "hat", "smile"}
    assert set(drawn("a, ||| b, c", CaptionRules(keep_separator="|||"))) == {"a, b, c"}
    assert all(
        caption.startswith("a, b, ")
        for caption in drawn("a, b, c, d", CaptionRules(keep_separator="|||", keep_tokens=2, shuffle=True))
    )


def test_rates_are_rates():
    tags = ", ".join(f"t{number}" for number in range(10))
    kept = sum(len(captions.parse(caption)) for caption in drawn(tags, CaptionRules(tag_dropout=0.3), 1000))
    assert kept / 10000 == pytest.approx(0.7, abs=0.02)
    empty = drawn(TAGS, CaptionRules(caption_dropout=0.2, prefix="p", suffix="s"), 2000).count("")
    assert empty / 2000 == pytest.approx(0.2, abs=0.03)
    assert set(drawn(TAGS, CaptionRules(caption_dropout=1.0, prefix="p"), 20)) == {""}
    assert set(drawn(TAGS, CaptionRules(tag_dropout=1.0, keep_tokens=1, prefix="p"), 20)) == {"p, mika"}


def test_prefix_and_suffix_stand_outside():
    rules = CaptionRules(prefix="style of x", suffix="best", shuffle=True, tag_dropout=0.9)
    for caption in drawn(TAGS, rules):
        assert caption.startswith("style of x") and caption.endswith("best")
    assert draw("", CaptionRules(prefix="a", suffix="b"), random.Random(0)) == "a, b"


def test_wildcards_draw_every_word_and_escapes_stay():
    rules = CaptionRules(wildcards=True)
    results = drawn("a {red|dark blue, long|} hat {{x|y}}", rules)
    assert set(results) == {"a red hat {x|y}", "a dark blue, long hat {x|y}", "a  hat {x|y}"}
    assert set(drawn("a {red|blue} hat", CaptionRules())) == {"a {red|blue} hat"}


def test_lines_are_alternatives():
    assert set(drawn("a girl\n\n  a woman\r\nb", CaptionRules())) == {"a girl", "a woman", "b"}


def test_another_separator():
    for caption in drawn("red hat. blue coat. smile", CaptionRules(separator=".", shuffle=True), 20):
        assert sorted(caption.split(". ")) == ["blue coat", "red hat", "smile"]


@pytest.mark.parametrize(
    "wrong", [{"tag_dropout": 1.5}, {"caption_dropout": -0.1}, {"keep_tokens": -1}, {"separator": " "}]
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CaptionRules(**wrong)


RULES = some.builds(
    CaptionRules,
    keep_tokens=some.integers(0, 3),
    keep_separator=some.sampled_from(["", "|||"]),
    shuffle=some.booleans(),
    tag_dropout=some.sampled_from([0.0, 0.3, 1.0]),
    caption_dropout=some.sampled_from([0.0, 0.2]),
    prefix=some.sampled_from(["", "p"]),
    wildcards=some.booleans(),
)
TEXT = some.lists(some.sampled_from(["a", "b c", "|||", "{d|e}", "\n", "", "f"]), max_size=6).map(", ".join)


@given(TEXT, RULES, some.integers(0, 2**63 - 1))
def test_a_key_draws_the_same_caption_every_time(caption, rules, key):
    once = captions.drawer(rules)(caption, key)
    assert once == captions.drawer(rules)(caption, key)
    assert "\n" not in once


@given(TEXT, RULES)
def test_what_does_not_vary_is_always_drawn_the_same(caption, rules):
    results = set(drawn(caption, rules, 20))
    if not captions.varies(caption, rules):
        assert len(results) == 1


def test_varies_knows_each_reason():
    assert not captions.varies(TAGS, CaptionRules(keep_tokens=1, prefix="p", wildcards=True))
    assert not captions.varies("one tag", CaptionRules(shuffle=True))
    for rules in ({"shuffle": True}, {"tag_dropout": 0.1}, {"caption_dropout": 0.1}):
        assert captions.varies(TAGS, CaptionRules(**rules))
    assert captions.varies("one\ntwo", CaptionRules())
    assert captions.varies("{a|b}", CaptionRules(wildcards=True))
