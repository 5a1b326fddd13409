"""A state goes on only with the pictures, processes, arithmetic and base that it came from."""

import json
from dataclasses import replace

import pytest

from lorakiln.base.errors import UserError
from lorakiln.train.basis import Basis

BASIS = Basis((("set/a.png", "1"), ("set/b.png", "2")), 1, "fp32", "abc")


def test_the_same_basis_goes_on():
    BASIS.refuse_other(json.loads(json.dumps(BASIS.table())))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pictures": (*BASIS.pictures, ("set/c.png", "3"))}, "set/c.png added"),
        ({"pictures": BASIS.pictures[:1]}, "set/b.png gone"),
        ({"pictures": (("set/a.png", "9"), BASIS.pictures[1])}, "set/a.png changed (picture, caption, mask or repea"),
        ({"pictures": BASIS.pictures[::-1]}, "the order of the pictures changed"),
        ({"pictures": tuple((f"{n}.png", "") for n in range(5))}, "0.png, 1.png, 2.png and 2 more added"),
        ({"processes": 2}, "1 processes trained it, now there are 2"),
        ({"precision": "fp16"}, "precision was fp32, here it is fp16 (train.precision = 'fp32' keeps it)"),
        ({"base": "xyz"}, "the base's weights are others"),
    ],
    ids=lambda one: one[:20] if isinstance(one, str) else "",
)
def test_what_changed_is_named(changes, words):
    with pytest.raises(UserError) as caught:
        replace(BASIS, **changes).refuse_other(BASIS.table())
    assert words in str(caught.value) and str(caught.value).startswith("--resume: ") and "\n" not in str(caught.value)
