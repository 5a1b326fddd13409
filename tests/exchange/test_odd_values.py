"""Values that no tool wrote: each becomes a row, and the rest is imported all the same."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lorakiln.adapters.spec import AdapterSpec, RankRule
from lorakiln.base.errors import UserError
from lorakiln.base.recipe import parse, write
from lorakiln.exchange import dataset_config, sd_scripts
from lorakiln.exchange.arguments import ARGUMENTS
from lorakiln.exchange.kohya_gui import NETWORK_KEYS, RENAMED
from lorakiln.exchange.read import KINDS, import_file, in_order
from lorakiln.exchange.report import FATES
from lorakiln.exchange.settle import settle

MINIMAL = {"LoRA_type": "LyCORIS/LoKr", "network_dim": 8, "sdxl": True, "learning_rate": 1e-4, "lr_warmup": 0}
ODD = [
    "", "abc", "1,2", "[", "None", "true", "1.5", "100000", "1e-4", "a=b=c", "\0", '"', "--x", -1, 0, 1, 2048, 10**30,
    -0.1, 0.5, 100.0, math.inf, math.nan, True, False, None, [], [1], [[1, 2]], ["a=b"], ["betas=x", "eps={}"], {},
    {"a": {"b": [{}]}},
]  # fmt: skip
odd = some.sampled_from(ODD)
quick = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tables(names, most=6):
    return some.dictionaries(some.sampled_from(sorted(names)), odd, max_size=most)


def accounted(kind, table, keys=()):
    """Import a table; every one of `keys` must have exactly one row that a program can read."""
    sheet, _ = KINDS[kind](table)
    recipe = settle(sheet, "odd")
    rows = in_order(table, sheet)
    assert json.dumps([[row.key, row.value] for row in rows], allow_nan=False)
    assert parse(recipe.model_dump(), "again") == recipe and write(recipe)
    fitting(recipe.adapter)
    told = [row.key for row in rows]
    assert len(told) == len(set(told)) and set(keys) <= set(told)
    for row in rows:
        assert row.fate in FATES and (row.to or row.why)
        assert bool(row.to) == (row.fate == "mapped"), row


def fitting(adapter):
    """UserError for options that this kind of adapter cannot have together."""
    table = {key: tuple(one) if isinstance(one, list) else one for key, one in adapter.model_dump().items()}
    AdapterSpec(**table | {"ranks": tuple(RankRule(**rule) for rule in table["ranks"])})


@quick
@given(tables({*ARGUMENTS, *RENAMED, *NETWORK_KEYS, "sd3_checkbox", "foo"}))
def test_any_value_in_a_preset_has_a_row(table):
    accounted("kohya_ss preset", MINIMAL | table, MINIMAL | table)


@quick
@given(
    tables({*ARGUMENTS, "foo"}), some.lists(odd, max_size=2), some.sampled_from(["conv_dim", "preset", "block_dims"])
)
def test_any_value_in_a_config_file_has_a_row(table, values, word):
    table["network_args"] = [f"{word}={value}" for value in values]
    accounted("sd-scripts config", table, sd_scripts.flatten(table))
    easy = {"a_args": {"args": table, "dataset_args": dict.fromkeys(["batch_size", "resolution"], values)}}
    accounted("LoRA Easy Training", easy)
    accounted("LoRA header", {f"ss_{key}": value for key, value in table.items()}, [f"ss_{key}" for key in table])


@quick
@given(tables({*dataset_config.KEYS, "foo"}), tables({*dataset_config.KEYS, "foo"}), odd)
def test_any_value_in_a_dataset_config_has_a_row(above, below, other):
    table = {"general": above, "datasets": [{**above, "subsets": [below, {}]}, {"subsets": other}]}
    keys = [f"general.{key}" for key in above] + [f"datasets.0.{key}" for key in above]
    accounted("sd-scripts dataset", table, [*keys, *(f"datasets.0.subsets.0.{key}" for key in below)])


@pytest.mark.parametrize(
    ("line", "fate"),
    [
        ('loss_type = "pseudo_huber"', "invalid"),
        ('loss_type = "huber"\nhuber_schedule = "sine"', "invalid"),
        ("enable_bucket = true\nbucket_reso_steps = 2048", "unsupported"),
        ("max_train_steps = 0", "invalid"),
        ("max_train_epochs = -2", "invalid"),
        ("train_batch_size = 0", "invalid"),
        ("noise_offset = -0.1", "unsupported"),
        ("noise_offset = 0.9", "unsupported"),
        ("min_snr_gamma = -1", "unsupported"),
        ("max_timestep = -1", "invalid"),
        ("min_timestep = 500\nmax_timestep = 400", "invalid"),
        ("keep_tokens = -1", "no-effect"),
        ("network_dim = -4", "invalid"),
        ('network_module = "networks.loha"\nnetwork_args = ["use_tucker=True", "conv_dim=-1"]', "invalid"),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["algo=lokr", "factor=0", "use_cp=True", "conv_dim=-1"]',
         "mapped"),
        ("learning_rate = -1e-4", "invalid"),
        ('resolution = "abc"', "invalid"),
        ("resolution = 1024", "invalid"),
        ('caption_dropout_rate = "x"', "invalid"),
        ("lr_scheduler_type = 2024-01-01", "unsupported"),
        ('lr_scheduler = "constant_with_warmup"\nlr_warmup_steps = 100.0', "unsupported"),
        ('lr_scheduler = "warmup"', "invalid"),
        ('lr_scheduler = "polynomial"\nlr_scheduler_power = 0.0', "invalid"),
        ('optimizer_type = "Adamm"', "invalid"),
        ('optimizer_args = ["betas=0.9"]', "invalid"),
        ('optimizer_args = ["weight_decay=a=b"]', "invalid"),
        ("validation_split = 1.0", "invalid"),
        ('optimizer_args = "weight_decay=0.1"', "invalid"),
        ('network_args = "conv_dim=4"', "invalid"),
    ],
)  # fmt: skip
def test_a_value_that_kiln_cannot_take_is_told_and_the_rest_imported(line, fate, tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(f"network_alpha = 3\nseed = 5\n{line}\n")
    done = import_file(path)
    rows = {row.key: row for row in done.keys}
    last = line.splitlines()[-1].partition(" = ")[0]
    assert rows[last].fate == fate, rows[last]
    assert done.recipe["adapter"]["alpha"] == 3.0 and done.recipe["seed"] == 5
    fitting(parse(done.recipe, "odd").adapter)


@pytest.mark.parametrize(
    "line",
    ["--noise_offset=-0.1", "--max_timestep=-1", "--keep_tokens -1", "--max_train_epochs=10.0", "--lr_warmup_steps=1.0",
     "--batch_size=2", "--num_repeats=2", "--image_dir=x", "--seed", "--loss_type=l3", "--resolution=a,b"],
)  # fmt: skip
def test_an_odd_argument_on_the_command_line_ends_nothing(line, tmp_path):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(MINIMAL | {"additional_parameters": f"{line} --save_precision=fp16"}))
    done = import_file(path)
    assert done.recipe["save"]["dtype"] == "fp16"
    row = next(row for row in done.keys if row.key.startswith(f"additional_parameters:{line.partition('=')[0][:10]}"))
    assert row.fate != "mapped" and row.why


def test_a_fault_of_kilns_own_recipe_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"lorakiln.recipe: train.batch = 0"):
        KINDS["LoRA header"]({"lorakiln.recipe": '{"base": "b", "train": {"batch": 0}, "dataset": [{"folder": "f"}]}'})
