"""Prompt files say what they mean, or which line does not."""

import pytest

from lorakiln.base.errors import UserError
from lorakiln.sample import prompts
from lorakiln.sample.generate import Request

DEFAULTS = Request("", negative="lowres", width=512, height=512, steps=20, cfg=6.0, seed=42)


def test_flags_are_read_and_the_rest_is_default():
    (one,) = prompts.parse(
        "1girl, smiling --w 832 --h 1216 --d 7 --s 30 --l 4.5 --n bad hands, blurry --ss euler_a", DEFAULTS
    )
    assert one == Request("1girl, smiling", "bad hands, blurry", 832, 1216, 30, 4.5, 7, "euler_a")
    assert prompts.parse("a fox", DEFAULTS) == [Request("a fox", "lowres", 512, 512, 20, 6.0, 42)]


def test_comments_and_empty_lines_are_no_prompts():
    found = prompts.parse("# a comment\n\n  one, two--three \n   # another\nfour # 5\n", DEFAULTS)
    assert [request.prompt for request in found] == ["one, two--three", "four # 5"]


def test_an_empty_prompt_and_an_empty_negative_are_possible():
    (one,) = prompts.parse("--n --w 640", DEFAULTS)
    assert (one.prompt, one.negative, one.width) == ("", "", 640)


def test_a_file_is_read_with_its_byte_order_mark(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("﻿狐 --d 3\r\nb\r\n".encode())
    assert [(one.prompt, one.seed) for one in prompts.read(path, DEFAULTS)] == [("狐", 3), ("b", 42)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a\nb --am 0.5", r"prompts line 2: unknown flag '--am'; choose from --w, --h, --d, --s, --l, --n, --ss"),
        ("a --w wide", r"prompts line 1: --w wide: must be a number"),
        ("a --w", r"prompts line 1: --w : must be a number"),
        ("a --s 20.5", r"line 1: --s 20.5"),
        ("a --w 8 --w 16", r"line 1: --w is given twice"),
        ("# only a comment", r"there is no prompt"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text, match):
    with pytest.raises(UserError, match=match):
        prompts.parse(text, DEFAULTS)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt"):
        prompts.read(tmp_path / "none.txt", DEFAULTS)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match=r"binary\.txt"):
        prompts.read(tmp_path / "binary.txt", DEFAULTS)
