"""The user's own runs come first: which are cited, in which order, and what is said of them."""

from dataclasses import replace

from lorakiln.advise.advice import Wish, advise
from lorakiln.advise.own import cited, same_family
from lorakiln.base.ledger import Entry
from tests.advise.cases import base, pictures, recipe

ONE = Entry(
    "1", "mika", "finished", verdict="baked", base="/models/ponyDiffusionV6XL.safetensors", purpose="character",
    pictures=30, steps=1200, notes="eyes good\nhands so-so",
    recipe=recipe(optim={"name": "came", "lr": 6e-5}, adapter={"rank": 16}).model_dump(),
)  # fmt: skip


def names(entries, purpose="character", count=30, facts=None):
    return [text.split("'")[1] for text in cited(entries, facts or base("pony"), purpose, count)]


def test_a_run_is_cited_with_what_it_was_and_how_it_came_out():
    (text,) = cited([ONE], base("pony"), "character", 25)
    assert text == (
        "Your run 'mika' for a character (30 pictures, came at 6e-05, rank 16, 1,200 steps): "
        'baked; "eyes good" "hands so-so". [yours]'
    )
    (text,) = cited([replace(ONE, origin="theirs.csv", notes="", purpose="")], base("pony"), "character", 25)
    assert text.startswith("A run of 'theirs.csv', 'mika' (30") and text.endswith("baked. [shared]")
    (text,) = cited([Entry("2", "old", "failed", base="pony", notes="too hot")], base("pony"), "style", 9)
    assert text == "Your run 'old' (): not judged; \"too hot\". [yours]".replace(" ()", "")


def test_only_runs_of_this_base_and_purpose_that_say_something_are_cited():
    assert names([ONE]) == ["mika"]
    assert names([ONE], purpose="style") == []
    assert names([ONE], facts=base("illustrious")) == []
    assert names([replace(ONE, verdict="", notes="")]) == []
    assert names([replace(ONE, purpose="")], purpose="style") == ["mika"], "what it was for was never told"


def test_own_runs_come_before_shared_ones_and_the_likest_first():
    runs = [
        replace(ONE, name="theirs", origin="t.json"), replace(ONE, name="untold", purpose=""),
        replace(ONE, name="far", pictures=300), replace(ONE, name="near", pictures=36),
    ]  # fmt: skip
    assert cited(runs, base("pony"), "character", 30)[0].startswith("Your run 'near'")
    assert names(runs) == ["near", "far", "untold"]
    assert names([]) == []


def test_bases_are_told_apart_by_release_and_unknown_ones_by_name():
    assert same_family("C:/models/pony.safetensors", base("pony")) and not same_family("sd_xl_base", base("pony"))
    mine = base("my-mix", base="my-mix.safetensors")
    assert same_family("other/my-mix.safetensors", mine) and not same_family("your-mix.safetensors", mine)


def test_they_stand_at_the_head_of_the_recipe():
    wish = Wish("pics", base("pony"), "character", pictures(30), own=("Your run 'mika' was baked. [yours]",))
    advice = advise(wish)[0]
    assert advice.notes[0] == wish.own[0] and advise(replace(wish, own=()))[0].choices == advice.choices
    assert "# Your run 'mika' was baked. [yours]" in advice.toml()
    assert advice.recipe().purpose == "character"
