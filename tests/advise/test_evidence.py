"""Evidence is data: every row has a source, can be found, and reads at 80 columns."""

import pytest

from lorakiln.advise.evidence import SOURCES, about, evidence, lines, page
from lorakiln.advise.methods import METHODS
from lorakiln.base.errors import UserError


def test_every_row_of_the_guides_is_there():
    wanted = [f"B{n}" for n in range(1, 6)] + [f"S{n}" for n in range(1, 9)]
    wanted += [f"T{n}" for n in range(1, 15)] + [f"W{n}" for n in range(1, 11)]
    assert set(wanted) <= set(evidence())


@pytest.mark.parametrize("row", evidence().values(), ids=lambda row: row.id)
def test_a_row_is_complete_and_fits_80_columns(row):
    assert row.source in SOURCES and row.claim.endswith(".") and row.topics
    assert max(map(len, lines(row))) <= 80
    assert not row.overruled or row.checked


def test_what_was_checked_overrules_the_claim_where_they_differ():
    assert {row.id for row in evidence().values() if row.overruled} == {"S8", "T6", "T9"}


@pytest.mark.parametrize(
    ("word", "row"),
    [("learning_rate", "T11"), ("optim.lr", "T7"), ("T6", "T6"), ("style", "T9"), ("min_snr", "M2"),
     ("keep_tokens", "S7"),     ("network_dim", "T2"), ("dora", "W7"), ("vram", "C1"), ("t11", "T11")],
)  # fmt: skip
def test_rows_are_found_by_setting_word_or_id(word, row):
    assert row in [one.id for one in about(word)]


def test_an_unknown_topic_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'duplicates'"):
        about("duplicate")


def test_the_page_has_every_row():
    assert all(f"| {id} |" in page() for id in evidence())


def test_named_recipes_cover_the_training_rows():
    cited = {row for method in METHODS.values() for row in method.evidence}
    cited |= {row for method in METHODS.values() for one in method.choices for row in one.evidence}
    assert {f"T{n}" for n in range(1, 11)} <= cited <= set(evidence())
