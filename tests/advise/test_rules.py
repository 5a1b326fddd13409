"""Every rule of `kiln check`, on both sides of its threshold: the two cases differ in one value."""

import dataclasses

import pytest

import lorakiln.advise.rules  # noqa: F401
from lorakiln.advise import estimate
from lorakiln.advise.check import apply_fixes, check
from lorakiln.advise.evidence import evidence
from lorakiln.advise.findings import RULES, Machine, page
from lorakiln.advise.pictures import Pictures
from lorakiln.advise.rules import idle
from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets
from tests.advise.cases import TAGS, base, case, content, pictures, recipe, said

PROSE = "A girl with long hair stands in a field of flowers, looking at the sky."
LONG = recipe(train={"epochs": 20, "batch": 1}, save={"epochs": 2}, sample={"prompts": ["x"]})


def with_optim(**optim):
    return case(recipe(optim=optim))


def with_adapter(rank, alpha, lr=1e-4):
    return case(recipe(adapter={"rank": rank, "alpha": alpha}, optim={"lr": lr}))


def with_purpose(lr):
    return case(recipe(optim={"name": "came", "lr": lr, "text_lr": 1e-4}), purpose="style")


def length(epochs):
    return case(recipe(train={"epochs": epochs, "batch": 1}), pictures(8))


def kept(epochs):
    return case(recipe(train={"epochs": 9, "batch": 1}, save={"epochs": epochs}))


def stretched(side):
    return case(shown=pictures(60, (side, side), buckets=Buckets(Size(1024, 1024))))


def cut(step):
    buckets = Buckets(Size(1024, 1024), step=step, no_upscale=True)
    made = recipe(dataset=[{"folder": "p", "bucket_step": step, "no_upscale": True}])
    return case(made, pictures(60, (832, 1216), buckets=buckets))


def wide(width):
    """One of sixty pictures is so wide, and all are cut to a square."""
    square = Buckets(Size(1000, 1000), enabled=False)
    shown = [*pictures(59, buckets=square).shown, *pictures(1, (width, 1000), buckets=square).shown]
    return case(recipe(dataset=[{"folder": "p", "bucket": False}]), Pictures(tuple(shown)))


def captioned(table, caption=TAGS):
    return case(recipe(dataset=[{"folder": "p", **table}]), pictures(60, caption=caption))


def bare(count):
    shown = [*pictures(60 - count).shown, *pictures(count, caption=None).shown] if count else pictures(60).shown
    return case(shown=Pictures(tuple(shown)))


def spelled(count):
    texts = ["zzz, long_hair" if n < count else "zzz, long hair" for n in range(60)]
    shown = [dataclasses.replace(one, caption=text) for one, text in zip(pictures(60).shown, texts, strict=True)]
    return case(shown=Pictures(tuple(shown)))


def doubled(same):
    shown = list(pictures(60).shown)
    if same:
        shown[1] = dataclasses.replace(shown[1], sha256=shown[0].sha256)
    return case(shown=Pictures(tuple(shown)))


def vram(spare):
    made = recipe(train={"batch": 4})
    need = estimate.memory(made, base()).total
    return case(made, machine=Machine(vram=need + spare, cuda=True))


def rental(spare):
    longest = case(LONG).time.whole[1] / 3600
    return case(LONG, machine=Machine(vram=24.0, hours=longest + spare))


# id -> (a case that it applies to, one that it does not; they differ in one value, at the threshold)
PAIRS = {
    "K001": (with_optim(name="came", lr=5e-4), with_optim(name="came", lr=4.99e-4)),
    "K002": tuple(case(recipe(optim={"name": "came"}), pictures(n)) for n in (201, 200)),
    "K003": tuple(case(recipe(optim={"name": "came", "lr": lr}), purpose="style") for lr in (9.9e-5, 1e-4)),
    "K004": tuple(case(recipe(adapter={"rank": 17}), pictures(n)) for n in (49, 50)),
    "K005": (length(41), length(42)),
    "K006": (with_optim(lr=1e-4, text_lr=1.01e-4), with_optim(lr=1e-4, text_lr=1e-4)),
    "K007": (with_adapter(16, 161.0), with_adapter(16, 160.0)),
    "K008": tuple(captioned({"shuffle": True, "keep_tokens": n}) for n in (0, 1)),
    "K009": tuple(captioned({"shuffle": True, "keep_tokens": 1}, text) for text in (PROSE, TAGS)),
    "K010": tuple(case(recipe(loss={"min_snr_gamma": gamma}), facts=base("noob-v")) for gamma in (0.001, 0.0)),
    "K011": tuple(case(recipe(prediction=word), facts=base("noob-v", predicts="v")) for word in ("epsilon", "v")),
    "K012": (wide(1053), wide(1052)),
    "K013": (stretched(682), stretched(683)),
    "K014": (doubled(True), doubled(False)),
    "K015": (bare(1), bare(0)),
    "K016": tuple(case(tokens=(n,)) for n in (76, 75)),
    "K017": (spelled(6), spelled(5)),
    "K018": tuple(case(facts=base(name)) for name in ("unknown", "sdxl")),
    "K019": tuple(case(recipe(train={"batch": n}), pictures(3)) for n in (4, 3)),
    "K020": (kept(4), kept(3)),
    "K021": tuple(case(shown=pictures(n)) for n in (30, 29)),
    "K022": (vram(-0.01), vram(0.01)),
    "K023": tuple(case(machine=Machine(disk_free=free), needs_disk=2.0) for free in (1.99, 2.0)),
    "K024": (case(output_exists="runs/x"), case(output_exists="")),
    "K025": tuple(
        case(recipe(train={"precision": "bf16"}), machine=Machine(24.0, bf16=has, cuda=True)) for has in (False, True)
    ),
    "K026": tuple(case(machine=Machine(missing=names)) for names in (("bitsandbytes",), ())),
    "K027": (rental(-0.001), rental(0.001)),
    "K028": tuple(
        case(recipe(sample={"prompts": ["a hero"], "negative": text}), facts=base("pony")) for text in ("", "score_4")
    ),
    "K029": tuple(
        with_optim(name="adafactor", lr=lr, options={"relative_step": True}) for lr in (0.999, 1.0)
    ),
    "K030": tuple(case(recipe(sample={"prompts": prompts})) for prompts in ([], ["x"])),
    "K031": tuple(with_optim(name="prodigy", lr=lr) for lr in (0.999, 1.0)),
    "K032": tuple(case(shown=pictures(60, unreadable=bad)) for bad in (("a.png: cut off",), ())),
    "K033": tuple(case(facts=base(problem=text)) for text in ("x: no such file", "")),
    "K034": tuple(case(shown=pictures(60, unscanned=n)) for n in (1, 0)),
    "K035": tuple(case(recipe(dataset=[{"folder": "p", "keep_tokens": n}])) for n in (1, 0)),
    "K036": tuple(case(recipe(train={"epochs": 5, "steps": n, "batch": 4})) for n in (76, 75)),
    "K037": (with_optim(lr=0.0), with_optim(lr=1e-6)),
}  # fmt: skip


def long_run(epochs):
    return case(recipe(train={"epochs": epochs, "batch": 1}), pictures(102))


# further edges of the same rules
EDGES = [
    ("K003", with_purpose(1e-9), with_purpose(0.0)),
    ("K004", *(case(recipe(adapter={"rank": rank}), pictures(49)) for rank in (17, 16))),
    ("K004", *(case(recipe(adapter={"rank": 17, "kind": kind}), pictures(49)) for kind in ("lora", "lokr"))),
    ("K005", long_run(81), long_run(80)),
    ("K007", with_adapter(16, 16.0, 0.99e-6), with_adapter(16, 16.0, 1e-6)),
    ("K010", *(case(recipe(ztsnr=word, loss={"min_snr_gamma": 5.0})) for word in ("on", "auto"))),
    ("K010", *(case(recipe(ztsnr=word, loss={"min_snr_gamma": 5.0}), facts=base("noob-v"))
               for word in ("auto", "off"))),
    ("K010", *(case(recipe(loss={"min_snr_gamma": 5.0}), facts=base(name)) for name in ("noob-v", "noob-eps"))),
    ("K011", *(case(recipe(prediction="epsilon"), facts=base(name)) for name in ("noob-v", "noob-eps"))),
    ("K011", *(case(recipe(prediction=word), facts=base("sdxl")) for word in ("v", "auto"))),
    ("K012", cut(256), cut(64)),
    ("K014", *(case(shown=pictures(60, copies=frozenset(pairs))) for pairs in ({(content(1), content(2))}, ()))),
    ("K014", *(case(shown=pictures(60, copies=frozenset({(content(1), content(n))}))) for n in (59, 60))),
    ("K021", *(captioned({"heldout": share}) for share in (0.0, 0.01))),
    ("K029", *(with_optim(name="adafactor", options={"relative_step": on}) for on in (True, False))),
    ("K031", with_optim(name="prodigy", lr=1.001), with_optim(name="prodigy", lr=0.0, text_lr=1.0)),
    ("K022", vram(-1e-9), vram(0.0)),
]  # fmt: skip
# a setting, the table in which it has no effect, and what gives it one
IDLE = [
    ("adapter", {"conv_alpha": 4.0}, {"conv_rank": 4}),
    ("adapter", {"rank": 4, "kind": "lokr", "full_matrix": True}, {"full_matrix": False}),
    ("adapter", {"alpha": 4.0, "kind": "lokr", "full_matrix": True}, {"full_matrix": False}),
    ("adapter", {"rank_stabilised": True, "kind": "lokr", "full_matrix": True}, {"full_matrix": False}),
    ("loss", {"huber_c": 0.2}, {"kind": "huber"}),
    ("loss", {"huber_schedule": "constant"}, {"kind": "smooth_l1"}),
    ("loss", {"multires_discount": 0.5}, {"multires_levels": 6}),
    ("save", {"keep": 3}, {"epochs": 1}),
    ("sample", {"epochs": 1}, {"prompts": ["x"]}),
    ("sample", {"steps": 1}, {"file": "x.txt"}),
    ("sample", {"negative": "x", "cfg": 1.0}, {"cfg": 1.1}),
    ("sample", {"rescale": 0.7, "cfg": 1.0}, {"cfg": 1.1}),
    ("cache", {"text_megabytes": 9, "text": "off"}, {"text": "memory"}),
    ("cache", {"folder": "x", "latents": "memory"}, {"latents": "disk"}),
    ("dataset", {"bucket_min": 512, "no_upscale": True}, {"no_upscale": False}),
    ("dataset", {"bucket_max": 2048, "bucket": False}, {"bucket": True}),
    ("dataset", {"bucket_step": 32, "bucket": False}, {"bucket": True}),
    ("dataset", {"no_upscale": True, "bucket": False}, {"bucket": True}),
    ("dataset", {"keep_tokens": 1}, {"shuffle": True}),
    ("dataset", {"keep_tokens": 1}, {"tag_dropout": 0.1}),
]


def tabled(section, values):
    return case(recipe(**{section: [{"folder": "p", **values}] if section == "dataset" else values}))


@pytest.mark.parametrize(("section", "wrong", "cure"), IDLE, ids=lambda value: str(value))
def test_a_setting_without_effect_is_told(section, wrong, cure):
    name = next(iter(wrong))
    assert f"{name} = " in said("K035", tabled(section, wrong)).text
    told = said("K035", tabled(section, wrong | cure))
    assert told is None or f".{name} = " not in told.text


def test_a_cache_of_captions_is_idle_while_text_encoders_are_trained():
    trained, frozen = (recipe(cache={"text": "off"}, optim={"text_lr": rate}) for rate in (1e-5, 0.0))
    assert said("K035", case(trained)) and said("K035", case(frozen)) is None


def test_every_idle_setting_is_tested():
    assert set(idle.IDLE) == {f"{section}.{next(iter(values))}" for section, values, _ in IDLE} | {"cache.text"}


REFUSED = [
    ({"optim": {"name": "prodigy", "lr": 1.0, "text_lr": 0.5}}, {"optim": {"name": "prodigy", "lr": 1.0}}),
    ({"optim": {"name": "prodigy", "lr": 1.0, "loraplus": 16.0}},
     {"optim": {"name": "prodigy", "lr": 1.0, "loraplus": 1.0}}),
    ({"optim": {"name": "prodigy", "lr": 1.0, "rates": [{"pattern": "*", "factor": 0.5}]}},
     {"optim": {"name": "prodigy", "lr": 1.0, "rates": [{"pattern": "*", "factor": 1.0}]}}),
    ({"optim": {"warmup": 601.0}}, {"optim": {"warmup": 600.0}}),
    ({"loss": {"min_timestep": 500, "max_timestep": 500}}, {"loss": {"min_timestep": 499, "max_timestep": 500}}),
    ({"adapter": {"tucker": True}}, {"adapter": {"tucker": True, "conv_rank": 4}}),
    ({"adapter": {"kind": "loha", "factor": 8}}, {"adapter": {"kind": "lokr", "factor": 8}}),
    ({"judge": {"epochs": 1}}, {"judge": {"epochs": 1}, "dataset": [{"folder": "p", "heldout": 0.1}]}),
    ({"dataset": [{"folder": "p", "random_crop": True}]},
     {"dataset": [{"folder": "p", "random_crop": True}], "cache": {"latents": "off"}}),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "right"), REFUSED)
def test_what_training_would_refuse_is_told_now(wrong, right):
    assert said("K037", case(recipe(**wrong))) and said("K037", case(recipe(**right))) is None


def test_the_end_that_comes_early_is_told_with_its_step():
    text = said("K036", case(recipe(train={"epochs": 10, "steps": 2000}), pictures(100))).text
    assert text == "train.steps = 2,000, but the epochs hold 1,000: the run ends at 1,000"


@pytest.mark.parametrize(("id", "yes", "no"), EDGES, ids=[f"{id}-{n}" for n, (id, *_) in enumerate(EDGES)])
def test_a_rule_has_its_other_edges_where_it_should(id, yes, no):
    assert said(id, yes) and said(id, no) is None


def test_what_a_rule_says_fits_the_case():
    assert "would stop there" in said("K015", bare(1)).text
    plain = case(recipe(dataset=[{"folder": "p", "missing": "empty"}]), bare(1).pictures)
    assert "empty prompt" in said("K015", plain).text
    assert "next to nothing" in said("K007", with_adapter(16, 16.0, 1e-7)).text
    assert "it burns" in said("K007", with_adapter(16, 161.0)).text
    assert said("K022", vram(-0.01)).fix == {"train.checkpointing": True}
    full = recipe(train={"batch": 2, "checkpointing": True})
    assert said("K022", case(full, machine=Machine(vram=1.0))).fix == {"train.batch": 1}
    single = recipe(train={"batch": 1, "checkpointing": True})
    assert said("K022", case(single, machine=Machine(vram=1.0))).fix == {}


def test_every_rule_has_a_pair():
    assert set(PAIRS) == set(RULES)


@pytest.mark.parametrize("id", sorted(PAIRS))
def test_a_rule_applies_on_one_side_of_its_threshold_only(id):
    yes, no = PAIRS[id]
    assert said(id, yes) and said(id, yes).text
    assert said(id, no) is None


@pytest.mark.parametrize("id", sorted(PAIRS))
def test_a_rule_cites_evidence_that_there_is(id):
    assert RULES[id].evidence and set(RULES[id].evidence) <= set(evidence())


SETTLED = (
    "K001",
    "K003",
    "K004",
    "K005",
    "K006",
    "K008",
    "K009",
    "K010",
    "K011",
    "K020",
    "K021",
    "K025",
    "K028",
    "K029",
    "K031",
    "K036",
    "K037",
)


@pytest.mark.parametrize("id", SETTLED)
def test_the_fix_of_a_rule_satisfies_it(id):
    wrong = PAIRS[id][0]
    fix = said(id, wrong).fix
    assert fix
    changed = wrong.recipe.model_dump()
    for path, value in fix.items():
        place = changed
        *parents, key = path.split(".")
        for name in parents:
            place = place[int(name)] if name.isdigit() else place[name]
        place[key] = value
    made = recipe(**changed)
    time = estimate.duration(made, wrong.base, wrong.pictures, estimate.Card("x", 24, 100, (9, 0)))
    assert said(id, dataclasses.replace(wrong, recipe=made, time=time)) is None


def test_copies_and_unscanned_pictures_are_told_with_the_way_to_know():
    pairs = frozenset({(content(1), content(2)), (content(1), content(3)), (content(4), content(99))})
    assert said("K014", case(shown=pictures(60, copies=pairs))).text.startswith("2 pictures")
    assert "60 of 60 pictures not scanned" in said("K034", case(shown=pictures(60, unscanned=60))).text
    assert "run 'kiln curate p'" in said("K034", case(shown=pictures(60, unscanned=1))).text


def test_the_starter_is_spared_rules_about_sdxls_numbers():
    made = recipe(optim={"lr": 2e-3}, train={"epochs": 10}, adapter={"alpha": 16.0})
    found = {one.rule.id for one in check(case(made, pictures(8), base("starter")))}
    assert not found & {"K001", "K005", "K007"}


def test_errors_come_first_and_ignored_rules_do_not_count():
    made = recipe(optim={"name": "came", "lr": 5e-4}, ignore=["K001"])
    found = check(case(made))
    assert [one.rule.severity for one in found] == sorted(
        (one.rule.severity for one in found), key=["error", "warning", "note"].index
    )
    assert next(one for one in found if one.rule.id == "K001").ignored


def test_an_unknown_rule_cannot_be_ignored():
    with pytest.raises(UserError, match="K901"):
        check(case(recipe(ignore=["K901"])))


def test_only_safe_fixes_are_made_and_comments_stay():
    text = 'base = "x"  # mine\n[optim]\nname = "came"\nlr = 5e-4  # hot\n[[dataset]]\nfolder = "p"\nshuffle = true\n'
    made = recipe(optim={"name": "came", "lr": 5e-4}, dataset=[{"folder": "p", "shuffle": True}], adapter={"rank": 64})
    new, changed = apply_fixes(text, check(case(made, pictures(20))))
    assert changed == {"optim.lr": 1e-4, "dataset.0.keep_tokens": 1}, "the rank is for the user to decide"
    assert "# mine" in new and "lr = 0.0001" in new and "keep_tokens = 1" in new


def test_the_page_of_rules_has_a_row_for_each():
    text = page()
    assert all(f"| {id} | {rule.severity} |" in text for id, rule in RULES.items())
