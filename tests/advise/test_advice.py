"""The advice for a grid of set sizes, purposes and bases is what the guides' rows say, where they speak."""

import pytest
import tomlkit

from lorakiln.advise.advice import FEWEST_STEPS, MOST_STEPS, Wish, advise, chosen, explained
from lorakiln.advise.evidence import evidence
from lorakiln.advise.pictures import Pictures
from lorakiln.base.recipe import differences, parse
from tests.advise.cases import base, pictures

SIZES = (8, 14, 30, 49, 50, 73, 99, 100, 125, 150, 200, 201, 282, 500, 1000)
BASES = ("pony", "sdxl", "illustrious", "noob-eps", "noob-v", "animagine")


def wish(count, purpose="style", name="pony", **changes):
    return Wish("pics", base(name), purpose, pictures(count, **changes.pop("shown", {})), **changes)


# row: (purpose, from, to, novelty) -> (optimizer, learning rate, rank, alpha) of the advice that stands first
GUIDE = {
    "T7": (("character", 8, 49, ""), ("came", 6e-5, 8, 4.0)),
    "T1": (("character", 50, 200, ""), ("prodigy", 1.0, 16, 2.0)),
    "T2": (("character", 201, 1000, ""), ("prodigy", 1.0, 32, 32.0)),
    "T8": (("style", 50, 99, "familiar"), ("came", 1e-4, 16, 8.0)),
    "T5": (("style", 50, 99, "novel"), ("adamw8bit", 5e-4, 32, 16.0)),
    "T9": (("style", 100, 200, ""), ("came", 1e-4, 16, 8.0)),
    "T10": (("style", 201, 1000, ""), ("adamw", 5e-4, 16, 8.0)),
}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("row", GUIDE)
def test_the_advice_is_what_the_row_says(row, name):
    (purpose, low, high, novelty), expected = GUIDE[row]
    for count in [size for size in SIZES if low <= size <= high]:
        first = advise(wish(count, purpose, name, novelty=novelty))[0]
        made = first.recipe()
        found = (made.optim.name, made.optim.lr, made.adapter.rank, made.adapter.alpha)
        assert found == expected, f"{row}: {count} pictures of a {purpose} on {name}: {found}"
        cited = {id for one in first.choices for id in one.evidence} | {
            word.strip("[],.") for n in first.notes for word in n.split()
        }
        assert row in cited


def test_every_cell_of_the_grid_gets_a_whole_recipe_with_reasons(capsys):
    for purpose in ("character", "style", "concept"):
        for count in SIZES:
            for name in BASES:
                for advice in advise(wish(count, purpose, name)):
                    made = advice.recipe()
                    assert all(
                        one.why and set(one.evidence) <= set(evidence()) and one.evidence for one in advice.choices
                    )
                    assert made.sample.prompts and (made.save.epochs or made.save.steps) and made.base
            first = advise(wish(count, purpose))[0]
            made = first.recipe()
            print(
                f"{purpose:<10}{count:>5}  {first.method:<20}{made.optim.name:<10}{made.optim.lr:<8g}{first.notes[0]}"
            )
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 3 * len(SIZES)


def test_came_never_goes_above_200_pictures_of_a_style_nor_to_5e_4():
    for count in SIZES:
        for advice in advise(wish(count)):
            optim = advice.recipe().optim
            assert optim.name != "came" or (optim.lr < 5e-4 and count <= 200)


def test_dora_is_offered_beside_the_advice_never_first():
    for count in (73, 125):
        methods = [method.name for method, _ in chosen(wish(count))]
        assert "came-dora-style" in methods[1:] and methods[0] != "came-dora-style"


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("purpose", ["character", "style", "concept"])
def test_the_length_stays_within_what_was_tried(purpose, count):
    advice = advise(wish(count, purpose))[0]
    made = advice.recipe()
    shown = wish(count).pictures.holding_out(made.dataset[0].heldout)
    steps = made.train.steps or made.train.epochs * shown.steps_per_epoch(made.train.batch) * made.dataset[0].repeats
    assert steps >= FEWEST_STEPS and (steps <= MOST_STEPS * 1.02 or made.train.epochs == 6)


def test_a_v_base_with_zero_snr_gets_no_min_snr():
    assert advise(wish(125, name="noob-v"))[0].recipe().loss.min_snr_gamma == 0
    assert advise(wish(125, name="noob-eps"))[0].recipe().loss.min_snr_gamma == 8


def test_prompts_speak_the_bases_dialect():
    prompts = advise(wish(125, name="pony"))[0].recipe().sample.prompts
    assert all(prompt.startswith("score_9, score_8_up, score_7_up") and "zzz" in prompt for prompt in prompts)
    sample = advise(wish(125, name="illustrious"))[0].recipe().sample
    assert sample.prompts[0].startswith("masterpiece, best quality") and "worst quality" in sample.negative


def test_some_are_held_out_where_they_can_be_spared():
    few, enough = (advise(wish(count))[0] for count in (29, 30))
    assert few.recipe().dataset[0].heldout == 0
    assert enough.recipe().dataset[0].heldout == 0.1
    assert "30 pictures, 7 steps an epoch" in enough.notes[-1], "27 of them, at 4 a batch"


def test_a_style_is_sampled_on_what_the_base_knows_too_and_a_character_is_not():
    style, character = (advise(wish(30, purpose, name="pony"))[0].recipe() for purpose in ("style", "character"))
    assert [("scenery" in prompt and "zzz" in prompt) for prompt in style.sample.prompts].count(True) == 1
    assert not any("scenery" in prompt for prompt in character.sample.prompts)


def test_a_prompt_comes_from_a_caption_that_says_something():
    from lorakiln.advise.pictures import Pictures
    from lorakiln.advise.prompts import sample_prompts

    bare, full = pictures(2, caption="zzz, red"), pictures(5, caption="zzz, red hair, smile, outdoors")
    prompts = sample_prompts(Pictures((*bare.shown, *full.shown, *bare.shown)), None)
    assert prompts == ["zzz, red hair, smile, outdoors"]


def test_captions_decide_about_shuffling_and_keeping():
    prose = {"caption": "A girl stands in a field of flowers, looking at the sky."}
    assert advise(wish(125, shown=prose))[0].recipe().dataset[0].shuffle is False
    tags = advise(wish(125, shown={"caption": "score_9, zzz, red hair, smile"}))[0].recipe().dataset[0]
    assert tags.shuffle is True and tags.keep_tokens == 2, "the trigger comes second, after the quality tag"


def test_a_given_trigger_that_captions_lack_is_put_before_them():
    made = advise(wish(125, trigger="znkAA"))[0].recipe()
    assert made.dataset[0].prefix == "znkAA" and made.dataset[0].keep_tokens == 0
    assert all("znkAA" in prompt for prompt in made.sample.prompts)
    assert advise(wish(125, trigger="zzz"))[0].recipe().dataset[0].prefix == ""


def test_small_pictures_are_not_blown_up():
    assert advise(wish(125, shown={"size": (700, 700)}))[0].recipe().dataset[0].no_upscale is True
    assert advise(wish(125))[0].recipe().dataset[0].no_upscale is False


def test_a_small_card_gets_checkpointing_and_a_smaller_batch():
    trains = [advise(wish(125, vram=gib))[0].recipe().train for gib in (80.0, 24.0, 10.0)]
    assert [train.checkpointing for train in trains] == [False, True, True]
    assert trains[0].batch == trains[1].batch == 4 and trains[2].batch < 4


def test_folders_that_name_their_repeats_keep_them():
    assert advise(wish(125, shown={"visits": 3}))[0].recipe().dataset[0].repeats == 1


def test_pictures_without_captions_are_told():
    made = advise(Wish("pics", base(), "style", Pictures(pictures(60, caption=None).shown)))[0].recipe()
    assert made.dataset[0].missing == "empty" and made.dataset[0].shuffle is False


def test_the_file_is_the_recipe_with_a_reason_above_every_value():
    advice = advise(wish(125))[0]
    text = advice.toml()
    assert not differences(parse(tomlkit.parse(text).unwrap(), "file"), advice.recipe())
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if " = " in line and not line.startswith(("#", " ", '"')):
            assert lines[place - 1].startswith("#") and lines[place - 1].endswith("]"), line
    assert max(len(line) for line in lines if line.startswith("#")) <= 80
    assert [one["setting"] for one in explained(advice)] == [one.setting for one in advice.choices]
