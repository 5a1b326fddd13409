"""Plain values to ask rules and advice about: pictures that need no file, bases that need no weights."""

import hashlib

from lorakiln.advise import estimate
from lorakiln.advise.base_model import BaseFacts, shipped
from lorakiln.advise.cards import card
from lorakiln.advise.findings import RULES, Case, Machine
from lorakiln.advise.pictures import Pictures, Shown
from lorakiln.advise.profiles import PROFILES
from lorakiln.base.recipe import parse
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets

TAGS = "zzz, 1girl, long hair, blue eyes, smile"


def base(name="sdxl", **changes):
    """Facts of a known base; "unknown" has no profile."""
    profile = PROFILES.get(name)
    facts = {
        "base": f"{name}.safetensors", "where": None, "profile": profile, "unet": shipped("unet"),
        "text": (shipped("text_encoder"), shipped("text_encoder_2")),
        "resolution": profile.resolution if profile else 1024,
    }  # fmt: skip
    if name.startswith("starter"):
        facts["base"] = name
    return BaseFacts(**(facts | changes))


def content(number):
    """The hash that the `number`-th picture would have."""
    return hashlib.sha256(f"{number}".encode()).hexdigest()


def pictures(count, size=(1024, 1024), caption=TAGS, visits=1, buckets=None, **changes):
    """`count` different pictures of one size."""
    buckets = buckets or Buckets(Size(1024, 1024))
    crop = buckets.fit(Size(*size))
    shown = [Shown(f"p/{n}.png", Size(*size), crop, caption, visits, content(n)) for n in range(count)]
    return Pictures(tuple(shown), **changes)


def recipe(**tables):
    table = {"base": "sdxl.safetensors", "dataset": [{"folder": "p"}]}
    return parse(table | tables, "case")


def case(made=None, shown=None, facts=None, gpu="rtx4090", **changes):
    """A case as `gather` would make it, without looking at any file."""
    made, shown, facts = made or recipe(), shown or pictures(60), facts or base()
    machine = changes.pop("machine", Machine(vram=24.0, cuda=True, disk_free=500.0))
    time = estimate.duration(made, facts, shown, card(gpu))
    return Case(made, facts, shown, machine=machine, memory=estimate.memory(made, facts), time=time, **changes)


def said(id, one):
    """What rule `id` says of a case; None where it does not apply."""
    import lorakiln.advise.rules  # noqa: F401

    return RULES[id].test(one)
