"""The advice for a grid of set sizes, purposes and bases is what the guides' rows say, where they speak."""

import dataclasses

import pytest
import tomlkit

from lorakiln.advise import estimate
from lorakiln.advise.advice import Wish, advise, chosen, explained
from lorakiln.advise.cards import card
from lorakiln.advise.check import check, missing_packages
from lorakiln.advise.evidence import evidence
from lorakiln.advise.findings import Case, Machine
from lorakiln.advise.length import FEWEST_STEPS, MOST_STEPS, NOVEL_STEPS
from lorakiln.advise.methods import METHODS
from lorakiln.advise.novelty import Novelty
from lorakiln.advise.novelty import read as read_novelty
from lorakiln.advise.pictures import Pictures, look
from lorakiln.base.errors import UserError
from lorakiln.base.recipe import differences, parse
from lorakiln.base.settings import Dataset
from lorakiln.data.loader import Batching, plan
from lorakiln.runs.build import dataset_spec
from lorakiln.runs.pictures import read_pictures
from tests.advise.cases import base, pictures
from tests.curate.pictures import save, scene

SIZES = (8, 14, 30, 49, 50, 73, 99, 100, 125, 150, 200, 201, 282, 500, 1000)
BASES = ("pony", "sdxl", "illustrious", "noob-eps", "noob-v", "animagine")


def wish(count, purpose="style", name="pony", **changes):
    known = changes.pop("novelty", "")
    known = known if isinstance(known, Novelty) else Novelty(known)
    return Wish("pics", base(name), purpose, pictures(count, **changes.pop("shown", {})), known, **changes)


def trained(made, shown):
    """The pictures as a recipe visits them."""
    return shown.repeated(made.dataset[0].repeats).holding_out(made.dataset[0].heldout)


# row: (purpose, from, to, novelty) -> (optimizer, learning rate, rank, alpha) of the advice that stands at this place
GUIDE = {
    "T7": ("character", 8, 49, "", 0, ("came", 6e-5, 8, 4.0)),
    "T7 concept": ("concept", 8, 49, "", 0, ("came", 6e-5, 8, 4.0)),
    "T1": ("character", 20, 40, "", 1, ("prodigy", 1.0, 16, 2.0)),
    "T1 concept": ("concept", 20, 40, "", 1, ("prodigy", 1.0, 16, 2.0)),
    "M5": ("character", 50, 200, "", 0, ("prodigy", 1.0, 16, 2.0)),
    "M5 concept": ("concept", 50, 200, "", 0, ("prodigy", 1.0, 16, 2.0)),
    "T2": ("character", 201, 1000, "", 0, ("prodigy", 1.0, 32, 32.0)),
    "T2 concept": ("concept", 201, 1000, "", 0, ("prodigy", 1.0, 32, 32.0)),
    "T4": ("style", 201, 1000, "", 1, ("prodigy", 1.0, 32, 32.0)),
    "T8": ("style", 50, 99, "familiar", 0, ("came", 1e-4, 16, 8.0)),
    "T5": ("style", 50, 99, "novel", 0, ("adamw8bit", 5e-4, 32, 16.0)),
    "T12": ("style", 100, 200, "novel", 0, ("came", 1e-4, 16, 8.0)),
    "S1": ("style", 8, 49, "novel", 0, ("adamw8bit", 5e-4, 16, 8.0)),
    "T9": ("style", 100, 200, "", 0, ("came", 1e-4, 16, 8.0)),
    "T6": ("style", 100, 200, "", 1, ("came", 1e-4, 16, 8.0)),
    "T10": ("style", 201, 1000, "", 0, ("adamw", 5e-4, 16, 8.0)),
}
# rows about one setting, whatever the number of pictures: what the advice for a purpose never has
NEVER = {
    "T11": lambda made: made.optim.name == "came" and made.optim.lr >= 5e-4,
    "T12": lambda made: made.purpose == "style" and made.optim.lr < 1e-4,
    "T3": lambda made: made.optim.name == "adafactor" and made.optim.options.get("relative_step", False),
    "S8": lambda made: made.dataset[0].bucket_step > 64,
}


def cited_in(advice):
    told = {word.strip("[],.") for note in advice.notes for word in note.split()}
    return {id for one in advice.choices for id in one.evidence} | told


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("row", GUIDE)
def test_the_advice_is_what_the_row_says(row, name):
    purpose, low, high, novelty, place, expected = GUIDE[row]
    sizes = [size for size in SIZES if low <= size <= high]
    for count in sizes if name == "pony" else (sizes[0], sizes[-1]):
        advice = advise(wish(count, purpose, name, novelty=novelty))[place]
        made = advice.recipe()
        found = (made.optim.name, made.optim.lr, made.adapter.rank, made.adapter.alpha)
        assert found == expected, f"{row}: {count} pictures of a {purpose} on {name}: {found}"
        assert row.split()[0] in cited_in(advice)
        assert not [rule for rule, broken in NEVER.items() if broken(made)]
        if row == "T6":
            assert made.adapter.dora and made.adapter.conv_rank == 16


def test_rows_that_give_a_recipe_and_no_size_are_recipes_by_name():
    assert {"T3", "T5", "T6"} <= {row for method in METHODS.values() for row in method.evidence}
    assert METHODS["adafactor"].value("optim.lr") == 5e-4


def test_the_starter_has_one_way_whatever_is_asked():
    for purpose in ("character", "style", "concept"):
        for count in SIZES[:4]:
            (only,) = advise(wish(count, purpose, "starter", novelty="novel"))
            assert only.method == "starter" and only.recipe().optim.lr == 2e-3 and "K1" in cited_in(only)
            assert any("changes no setting" in note for note in only.notes)


LISTED = """
{row:<11} {purpose:<10}{count:>5} pictures {novelty:<9} {method:<20}{optim:<10}{lr:<7g} rank {rank:<3} {steps:>5} steps
""".strip()


def test_each_row_is_listed_beside_the_advice_that_it_produced(capsys):
    """`pytest -rP` shows it: the row of the guides, the case that it speaks of, and what is advised there."""
    for row, (purpose, low, high, novelty, place, _) in GUIDE.items():
        for count in [size for size in SIZES if low <= size <= high]:
            asked = wish(count, purpose, novelty=novelty)
            advice = advise(asked)[place]
            made = advice.recipe()
            line = LISTED.format(
                row=row, purpose=purpose, count=count, novelty=novelty or "-", method=advice.method,
                optim=made.optim.name, lr=made.optim.lr, rank=made.adapter.rank,
                steps=estimate.steps_of(made, trained(made, asked.pictures)),
            )  # fmt: skip
            print(line)
    listed = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in listed} == {row.split()[0] for row in GUIDE}
    print(*listed, sep="\n")


CARDS = ("rtx3060", "rtx4090")


@pytest.mark.parametrize("name", ("pony", "noob-v", "starter"))
@pytest.mark.parametrize("purpose", ("character", "style", "concept"))
def test_every_advised_recipe_is_whole_has_reasons_and_passes_its_own_check(purpose, name):
    for count in (8, 73, 125, 282):
        for novelty in ("familiar", "novel") if purpose == "style" else ("",):
            for gpu in CARDS:
                chosen = card(gpu)
                asked = wish(count, purpose, name, novelty=novelty, vram=chosen.vram, card=chosen)
                for advice in advise(asked):
                    assert all(one.why and one.evidence and set(one.evidence) <= set(evidence())
                               for one in advice.choices)  # fmt: skip
                    made = advice.recipe()
                    assert made.sample.prompts and (made.save.epochs or made.save.steps)
                    found = checked(advice, asked, chosen)
                    assert not {one.rule.id for one in found if one.rule.severity != "note"}, [
                        (advice.method, count, gpu, one.rule.id, one.said.text) for one in found
                    ]


def checked(advice, asked, chosen, missing=()):
    made = advice.recipe()
    shown = trained(made, asked.pictures)
    machine = Machine(chosen.vram, chosen.bf16, True, 500.0, missing)
    memory, time = estimate.memory(made, asked.base), estimate.duration(made, asked.base, shown, chosen)
    return check(Case(made, asked.base, shown, asked.purpose, machine, memory, time, chosen))


def test_a_card_that_is_too_small_is_told_so_with_what_was_given_up():
    asked = wish(73, "character", vram=12.0)
    made = advise(asked)[1].recipe()
    assert (made.optim.name, made.adapter.rank, made.optim.text_lr) == ("prodigy", 16, 0.0)
    hopeless = advise(wish(73, vram=6.0))[0]
    assert "6 will not do" in hopeless.toml() and hopeless.recipe().train.batch == 1


def test_a_card_without_bf16_gets_fp16_and_a_machine_without_bitsandbytes_plain_adamw():
    turing = dataclasses.replace(card("rtx2080ti"), vram=24.0)
    asked = wish(73, novelty="novel", vram=turing.vram, bf16=turing.bf16, card=turing, eight_bit=False)
    advice = advise(asked)[0]
    made = advice.recipe()
    assert (made.train.precision, made.optim.name, made.optim.lr) == ("fp16", "adamw", 5e-4)
    assert "pip install bitsandbytes" in " ".join(advice.toml().replace("#", "").split())
    assert not [one for one in checked(advice, asked, turing, missing_packages(made)) if one.rule.severity == "error"]


@pytest.mark.parametrize(("count", "novelty"), [(73, "novel"), (73, "familiar"), (125, ""), (14, "")])
def test_a_purse_cuts_the_length_to_what_the_estimate_says_it_buys(count, novelty):
    chosen = card("rtx4090")
    purpose = "style" if count > 50 else "character"
    asked = wish(count, purpose, novelty=novelty, vram=24.0, card=chosen)
    whole = advise(asked)[0].recipe()
    shown = trained(whole, asked.pictures)
    full = estimate.duration(whole, asked.base, shown, chosen)
    assert advise(dataclasses.replace(asked, seconds=full.whole[1] + 1))[0].choices == advise(asked)[0].choices
    half = dataclasses.replace(asked, seconds=full.whole[1] / 2)
    advice = advise(half)[0]
    made = advice.recipe()
    time = estimate.duration(made, asked.base, shown, chosen)
    assert 0.3 * full.whole[1] < time.whole[1] <= half.seconds * 1.02
    assert "cut from" in advice.toml() and "W6" in cited_in(advice) and "min of the" in advice.notes[-1]
    assert (made.save.epochs or made.save.steps) and (made.sample.epochs or made.sample.steps)


def test_a_purse_smaller_than_one_epoch_counts_steps_and_one_that_buys_nothing_is_refused():
    chosen = card("rtx4090")
    asked = wish(1000, vram=24.0, card=chosen, seconds=840.0)
    train = advise(asked)[0].recipe().train
    assert train.epochs == 1 and 0 < train.steps < 450
    with pytest.raises(UserError, match="no step fits"):
        advise(dataclasses.replace(asked, seconds=60.0))


def test_a_novel_style_is_trained_longer_wherever_a_row_speaks_and_else_nothing_changes():
    for count in (73, 125, 282):
        steps = {}
        for word in ("familiar", "novel"):
            asked = wish(count, novelty=word)
            made = advise(asked)[0].recipe()
            steps[word] = estimate.steps_of(made, trained(made, asked.pictures))
        assert steps["novel"] >= NOVEL_STEPS and steps["novel"] >= steps["familiar"], count
    for count in (30, 125, 282):
        plain, told = (advise(wish(count, "character", novelty=word))[0] for word in ("", "novel"))
        assert plain.choices == told.choices and any("No setting changes" in note for note in told.notes)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", ""), ("novel", "novel"), ("0.12", "familiar"), ("0.13", "novel"), ("+0.31", "novel"), 
        ("-0.05", "familiar"),
        ('{"excess": 0.2, "spread": 0.01, "novelty": "novel"}', "novel"),
    ],
)  # fmt: skip
def test_novelty_is_a_word_or_what_the_probe_measured(text, word):
    found = read_novelty(text)
    assert found.word == word and bool(found.sentence) == (text not in ("", "novel"))


def test_a_measurement_close_to_the_line_is_called_so(tmp_path):
    (tmp_path / "probe.json").write_text('{"excess": 0.13, "spread": 0.02}')
    found = read_novelty(str(tmp_path / "probe.json"))
    assert "close to the line" in found.sentence and found.sentence in advise(wish(73, novelty=found))[0].notes
    for bad in ("new", "nan", "[1]", "true", "{}", str(tmp_path / "none.json")):
        with pytest.raises(UserError, match="--novelty"):
            read_novelty(bad)


def test_the_line_between_familiar_and_novel_is_the_probes():
    from lorakiln.advise import novelty
    from lorakiln.judge import probe

    assert novelty.NOVEL == probe.NOVEL


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
    steps = estimate.steps_of(made, trained(made, wish(count).pictures))
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
    assert "30 pictures, 14 steps an epoch" in enough.notes[-1], "27 of them, twice, at 4 a batch"
    assert "125 pictures, 57 steps an epoch, 570 steps in all" in advise(wish(125))[0].notes[-1], "113, twice, at 4"


@pytest.mark.parametrize(("side", "no_upscale"), [(128, True), (96, False)])
def test_the_steps_that_are_told_are_those_that_training_makes(tmp_path, side, no_upscale):
    """Of the advised recipe, on real files: cut, repeated and held out as a run does it."""
    for number, size in enumerate([(100, 100)] * 14 + [(120, 80)] * 9 + [(75, 130)] * 8):
        save(tmp_path, **{f"p{number}": scene(number, 130).resize(size)})
    facts = base("pony", resolution=side)
    found = look([Dataset(folder=str(tmp_path), missing="empty", bucket_step=64)], side)
    advice = advise(Wish(str(tmp_path), facts, "style", found))[0]
    made = advice.recipe()
    assert made.dataset[0].no_upscale == no_upscale
    visited, _ = read_pictures(made, [dataset_spec(made.dataset[0], side)])
    real = len(plan(visited.examples, 0, Batching(made.seed, made.train.batch)))
    assert f" {real} steps an epoch, {made.train.epochs * real:,} steps in all." in advice.notes[-1]


def test_a_style_is_sampled_on_what_the_base_knows_too_and_a_character_is_not():
    style, character = (advise(wish(30, purpose, name="pony"))[0].recipe() for purpose in ("style", "character"))
    assert [("scenery" in prompt and "zzz" in prompt) for prompt in style.sample.prompts].count(True) == 1
    assert not any("scenery" in prompt for prompt in character.sample.prompts)


def test_a_prompt_comes_from_a_caption_that_says_something():
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
