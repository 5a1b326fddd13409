"""Conditions on runs as people write them."""

import pytest

from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Entry
from lorakiln.base.where import check, condition, settings_of

RUN = Entry(
    "1", "Mika", "finished", steps=600, seconds={"train": 60.0}, started="2026-03-01T00:00:00+00:00",
    recipe={"base": "pony", "optim": {"name": "came", "lr": 6e-5, "text_lr": None, "options": {"betas": [0.9, 0.99]}},
            "dataset": [{"repeats": 2, "shuffle": True}]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("optim.name=came", True), ("optim.name = CAME", True), ("optim.name!=came", False), ("optim.lr=1", False),
        ("optim.lr=6e-5", True), ("optim.lr=0.00006", True), ("optim.lr<1e-4", True), ("optim.lr>=1e-4", False),
        ("steps>599", True), ("steps>600", False), ("time=60", True), ("name=mika", True),
        ("dataset.0.repeats=2", True), ("dataset.0.shuffle=true", True), ("dataset.0.shuffle>0", False),
        ("cost=1", False), ("cost!=1", True),
        ("optim.text_lr=0", False), ("started>2026-02", True), ("started<2026-02", False), ("adapter.rank=16", False),
        ("optim.options={\"betas\": [0.9, 0.99]}", True),
    ],
)  # fmt: skip
def test_a_condition_holds_or_not(text, holds):
    assert condition(text)(RUN) is holds


def test_settings_are_named_as_in_a_recipe():
    assert settings_of(RUN)["dataset.0.repeats"] == 2 and settings_of(RUN)["optim.options"] == {"betas": [0.9, 0.99]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("came", "write KEY=VALUE"),
        ("optim.lr>fast", "> needs a number"),
        ("optim.lrr=1", r"no run has 'optim.lrr'; did you mean 'optim.lr'\?"),
    ],
)
def test_what_is_no_condition_is_refused(text, words):
    with pytest.raises(UserError, match=words):
        condition(text)
        check([text], [RUN])
