"""The page and the card: nothing of a user's breaks them, and what is not known is not shown."""

import math
import re

import pytest
from PIL import Image

from lorakiln.judge.cell import Cell
from lorakiln.judge.copying import Nearest
from lorakiln.judge.curves import Line, plot
from lorakiln.judge.interval import interval
from lorakiln.judge.report import Told, card, html, sentence
from lorakiln.judge.verdict import Drawn, judge, with_drawn
from tests.judge.test_verdict import checkpoint, drawn

GREY = Image.new("RGB", (300, 200), "grey")


@pytest.fixture
def told():
    late = with_drawn(checkpoint("late", 0.6, 0.19, step=20), {1.0: Drawn(copied=0.5)})
    found = [checkpoint("early", 0.95, 0.2, step=10), late]
    cells = [
        Cell("", 1.0, "a <b>cat</b>", 7, GREY),
        Cell("late", 1.0, "a <b>cat</b>", 7, GREY, Nearest(0, 0.05, 0.2)),
        Cell("late", 1.0, "a dog", 8, GREY, Nearest(-1, 1.0, 1.0)),
    ]
    return Told("<run>", judge(found, 4), found, cells, [("owl & co.png", GREY)], {"base": "<x>"}, ["a note"], "zzz")


def test_the_page_opens_with_the_verdict_and_escapes_what_users_wrote(told):
    page = html(told).decode()
    assert page.index("overbaked") < page.index("<h2>Why</h2>") < page.index("<h2>Checkpoints</h2>")
    assert "<b>cat</b>" not in page and "a &lt;b&gt;cat&lt;/b&gt;" in page and "<run>" not in page
    assert "owl &amp; co.png" in page and "late at its strengths" in page
    assert page.count('<span class="tag reject">copy</span>') == 2, "in the grid, and beside its training picture"
    assert len(re.findall("<svg", page)) == 2 and "a note" in page


def test_the_page_shows_how_far_drawings_come_where_enough_was_drawn(told):
    assert b"How far drawings come" not in html(told)
    one = drawn("a", 0.3, 0.6, 0.9, 0.7)
    page = html(Told("x", judge([one], 4), [one], [], [], {}, [], "")).decode()
    figure = page.split("How far drawings come")[1].split("</svg>")[0]
    assert figure.count("<circle") == 4 and "<th>worth there by style</th>" in page


def test_the_card_says_how_to_use_it_and_what_it_lacks(told):
    text = card(told)
    assert "Use early (baked) at strength" in text and "Trigger: `zzz`" in text
    assert "1 of its drawings are copies" in text and "So few pictures give wide intervals" in text
    bare = Told("x", judge([checkpoint("a", 1.0)], 0), [checkpoint("a", 1.0)], [], [], {}, [], "")
    assert "No pictures were held out" in card(bare) and "Trigger" not in card(bare)
    assert b"Nearest training pictures" not in html(bare)


def test_nothing_gained_is_not_recommended():
    assert "No checkpoint explains the pictures better" in sentence(judge([checkpoint("a", 0.8, height=-0.1)], 4))


def test_a_curve_of_what_is_not_known_is_not_drawn():
    assert plot([Line("a", [1.0], [interval([math.nan])])], "x", "y") == ""
    one = plot([Line("<a>", [1.0], [interval([0.5])])], "x", "y")
    assert one.count("<circle") == 1 and "&lt;a&gt;" in one and "inf" not in one and "nan" not in one
    gap = plot([Line("a", [1.0, 2.0, 3.0], [interval([0.1, 0.2]), interval([]), interval([0.3, 0.4])])], "x", "y")
    assert gap.count("<circle") == 2
