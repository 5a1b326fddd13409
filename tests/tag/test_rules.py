"""Rules on hand-written captions: each rule alone, and their order."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lorakiln.base.errors import UserError
from lorakiln.tag import rules
from lorakiln.tag.captions import parse
from lorakiln.tag.rules import Rules, apply, matches, plain, statistics


def test_underscores_become_spaces_but_faces_and_scores_keep_theirs():
    assert apply(["long_hair", "^_^", "o_o", "score_9", ">_<", "|_|", "a_b_c"], Rules()) == [
        "long hair", "^_^", "o_o", "score_9", ">_<", "|_|", "a b c",
    ]  # fmt: skip
    assert apply(["long hair", "^_^"], Rules(underscores="underscores")) == ["long_hair", "^_^"]
    assert apply(["long_hair"], Rules(underscores="as is")) == ["long_hair"]


def test_an_excluded_tag_may_have_several_words_and_matches_whole():
    found = apply(["long hair", "very long hair", "hair_ribbon"], Rules(exclude=["long_hair", "hair ribbon"]))
    assert found == ["very long hair"]
    assert apply(["long hair", "short hair", "hat"], Rules(exclude=["* hair"])) == ["hat"]


def test_alias_then_imply():
    wanted = Rules(alias={"bunny": "rabbit"}, imply={"rabbit": ["animal"]})
    assert apply(["bunny", "hat"], wanted) == ["rabbit", "hat", "animal"]
    chain = Rules(alias={"kit": "bunny", "bunny": "rab_bit"}, imply={"rab bit": ["pet"], "pet": ["animal", "kit"]})
    assert apply(["kit"], chain) == ["rab bit", "pet", "animal"]


def test_all_clothing_but_one():
    wanted = Rules(keep_one_of={"clothing": ["japanese clothes"]})
    assert apply(["japanese clothes", "blue skirt", "hat", "smile"], wanted) == ["japanese clothes", "smile"]
    assert apply(["school uniform", "smile"], wanted) == ["school uniform", "smile"]  # not the outfit that is meant
    both = Rules(keep_one_of={"clothing": ["red hat"], "red*": ["red eyes"]})
    assert apply(["red hat", "red eyes", "red sky", "coat"], both) == ["red hat", "red eyes"]


def test_a_group_may_be_patterns():
    wanted = Rules(keep_one_of={"* eyes, * hair": ["blue eyes"]})
    assert apply(["blue eyes", "pink hair", "smile"], wanted) == ["blue eyes", "smile"]


def test_what_nearly_every_picture_has_goes_to_the_trigger():
    captions = [["pink hair", "smile"], ["pink_hair", "frown"], ["pink hair", "hat"], ["pink hair", "smile"]]
    wanted = Rules(trigger="znk", absorb=0.9)
    known = statistics(captions, wanted)
    assert [apply(tags, wanted, known) for tags in captions] == [
        ["znk", "smile"],
        ["znk", "frown"],
        ["znk", "hat"],
        ["znk", "smile"],
    ]
    kept = Rules(trigger="znk", absorb=0.9, keep=["pink hair"])
    assert apply(captions[0], kept, statistics(captions, kept)) == ["znk", "pink hair", "smile"]


@pytest.mark.parametrize("base, tags", [(base, tags) for base, tags in rules.QUALITY.items() if tags])
def test_quality_tags_follow_the_trigger_and_are_counted(base, tags):
    wanted = Rules(trigger="znk", quality=base)
    found = apply(["hat", tags[-1], "znk"], wanted)
    assert found == ["znk", *tags, "hat"]
    assert wanted.keep_tokens == 1 + len(tags) and found[: wanted.keep_tokens] == ["znk", *tags]


def test_rating_and_order():
    assert apply(["sensitive", "b", "a"], Rules(rating="drop", order="alphabetical")) == ["a", "b"]
    assert apply(["sensitive", "b"], Rules(rating="last")) == ["b", "sensitive"]
    assert apply(["general", "z", "b"], Rules(rating="last", order="alphabetical")) == ["b", "z", "general"]
    spelt = ["rating_explicit", "rating:safe", "rating: general", "explicit", "general store"]
    assert apply(spelt, Rules(rating="drop")) == ["general store"]
    known = statistics([["a", "b"], ["b"], ["b", "c"]], Rules())
    assert apply(["c", "a", "b"], Rules(order="common first"), known) == ["b", "c", "a"]


def test_what_falls_past_the_limit_is_told_and_the_front_stays():
    def count(text):
        return len(text.replace(",", " ,").split())

    wanted = Rules(trigger="znk", max_tokens=5)
    assert apply(["one", "two", "three"], wanted, count=count) == ["znk", "one", "two"]
    assert rules.within(["znk", "one", "two", "three"], wanted, count) == (["znk", "one", "two"], ["three"])
    assert apply(["one"], Rules(trigger="a b c d e f g", max_tokens=2), count=count) == ["a b c d e f g"]


def test_a_limit_is_found_without_counting_every_tag():
    texts = []

    def count(text):
        texts.append(text)
        return text.count(",") + 1

    tags = [f"t{n}" for n in range(10_000)]
    kept, over = rules.within(tags, Rules(max_tokens=7_001), count)
    assert len(kept) == 7_001 and kept + over == tags and len(texts) < 20


SPELT = ["a", "b", "a b", "a_b", "c_d", "twmj_style", "twmj style", "^_^", "score_9", "safe", "rating_safe", "red_hat"]
ALIASES = some.dictionaries(some.sampled_from(["a", "a_b", "c d"]), some.sampled_from(["b", "c_d", "red_hat"]))
IMPLIED = some.lists(some.sampled_from(SPELT), min_size=1, max_size=2)
RULES = some.builds(
    Rules,
    trigger=some.sampled_from(["", "znk", "twmj_style"]),
    underscores=some.sampled_from(["spaces", "underscores", "as is"]),
    alias=ALIASES,
    imply=some.dictionaries(some.sampled_from(SPELT), IMPLIED, max_size=3),
    exclude=some.sampled_from([(), ("a",), ("* b",)]),
    keep_one_of=some.sampled_from([{}, {"clothing": ["red hat"], "a*": ["b"], "* d,b": ["a b"]}]),
    rating=some.sampled_from(["keep", "drop", "last"]),
    order=some.sampled_from(["as is", "alphabetical"]),
    quality=some.sampled_from(["none", "pony", "illustrious"]),
)
WORDS = some.lists(some.sampled_from(SPELT) | some.text("ab_ ", min_size=1, max_size=4).filter(str.strip), max_size=8)


@given(WORDS, RULES)
def test_rules_applied_twice_change_nothing_more(tags, wanted):
    once = apply(parse(", ".join(tags)), wanted)
    assert apply(parse(", ".join(once)), wanted) == once
    assert len(set(once)) == len(once)


def test_matching_ignores_case_and_underscores():
    assert matches("Long_Hair", ["long hair"]) and not matches("long hairs", ["long hair"])
    assert matches("!!", ["!?", "!*"]) and not matches("!!", ["!?", "[!]!", ""]) and matches("!?", ["!?"])
    assert plain("(o)_(o)") == "(o)_(o)" and plain("hair_(x)") == "hair (x)"


@pytest.mark.parametrize(
    "table, said",
    [
        ({"exlude": []}, "unknown rule 'exlude'; did you mean 'exclude'"),
        ({"exclude": "hat"}, "exclude = 'hat': must be a list"),
        ({"absorb": 2.0}, "absorb = 2.0: must be from 0 to 1"),
        ({"quality": "ponny"}, "quality = 'ponny': unknown; did you mean 'pony'"),
        ({"order": "random"}, "order = 'random'"),
        ({"keep_one_of": {"clothes": []}}, "unknown group 'clothes'"),
        ({"keep_one_of": {"clothing": []}}, "keep_one_of.clothing: names no tag"),
        ({"keep_one_of": {"clothing": "x"}}, "keep_one_of.clothing = 'x': must be a list of tags"),
        ({"imply": {"kimono": "japanese clothes"}}, "imply.kimono = 'japanese clothes': must be a list of tags"),
        ({"imply": ["a"]}, "imply = ['a']: must be a table"),
        ({"alias": {"a": 1}}, "alias.a = 1: must be text"),
        ({"alias": {"a": "b", "b": "a"}}, "alias: 'a' leads back to itself"),
        ({"exclude": [1]}, "exclude = [1]: must be a list of tags"),
        ({"exclude": ["a, b"]}, "exclude: 'a, b' must be one tag"),
        ({"trigger": "a, b"}, "trigger: 'a, b' must be one tag"),
        ({"max_tokens": 7.5}, "max_tokens = 7.5: must be a whole number"),
        ({"absorb": True}, "absorb = True: must be a number"),
    ],
)
def test_wrong_rules_are_refused_in_one_line(table, said):
    with pytest.raises(UserError) as error:
        rules.parse(table, "rules.toml")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_rules_are_read_from_toml(tmp_path):
    (tmp_path / "r.toml").write_text('trigger = "znk"\nexclude = ["hat"]\n[alias]\nbunny = "rabbit"\n')
    assert apply(["bunny", "hat"], rules.read(tmp_path / "r.toml")) == ["znk", "rabbit"]
    with pytest.raises(UserError, match="no such rules"):
        rules.read(tmp_path / "none.toml")
