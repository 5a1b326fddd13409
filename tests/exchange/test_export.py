"""Recipes for other tools: they train the same thing, or the loss is said."""

import json
import shlex
from pathlib import Path

import pytest

from lorakiln.base.recipe import differences, parse
from lorakiln.base.settings import sections
from lorakiln.exchange.arguments import parse_command_line
from lorakiln.exchange.export import command, export, prompt_lines
from lorakiln.exchange.export_gui import preset
from lorakiln.exchange.export_pictures import dataset_file
from lorakiln.exchange.read import import_file

PRESETS = sorted((Path(__file__).parent / "presets").glob("*.json"))


def recipe(**tables):
    table = {"base": "b.safetensors", "prediction": "epsilon", "dataset": [{"folder": "img", "resolution": 1024}]}
    return parse(table | tables, "test")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_kohya_to_kiln_to_kohya_keeps_what_has_an_effect(path, tmp_path):
    first = parse(import_file(path, base="b", folder="f").recipe, "first")
    table, problems = preset(first)
    (tmp_path / "again.json").write_text(json.dumps(table))
    again = parse(import_file(tmp_path / "again.json").recipe, "again")
    changed = differences(first, again)
    if path.stem == "iA3-Prodigy-sd15":  # it says neither resolution nor prediction, which a preset must
        assert changed.pop("dataset.0.resolution") == (0, 1024) and changed.pop("prediction") == ("auto", "epsilon")
        assert len(problems) == 1
    else:
        assert not problems
    options = changed.pop("optim.options", ({}, {}))
    assert {k: v for k, v in options[1].items() if v is not False} == {
        k: v for k, v in options[0].items() if v is not False
    }
    assert not changed


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_an_exported_preset_says_in_its_own_keys_what_the_first_one_did(path):
    done = import_file(path)
    table, _ = preset(parse(done.recipe, "first"))
    changed = {
        row.key
        for row in done.keys
        if row.fate == "mapped" and ":" not in row.key and plain(table.get(row.key)) != plain(row.value)
    }
    # what stood in additional_parameters has a field of its own; both rates 0 meant that both are learning_rate
    assert changed <= {"additional_parameters", *(("unet_lr", "text_encoder_lr") if path.stem == "t5clrs" else ())}


def plain(value):
    """A key's value however it is written: 1.0, "1" and 1 are one, and quotes around words are none."""
    try:
        return float(value or 0)
    except ValueError:
        return value.replace('"', "")


@pytest.mark.parametrize(
    "tables",
    [
        {"adapter": {"dora": True, "conv_rank": 8}},
        {"adapter": {"dora": True, "dora_axis": "output", "kind": "loha"}},
        {"adapter": {"kind": "lokr", "rank": 8, "factor": 4}},
        {"adapter": {"kind": "lokr", "rank": 8, "decompose_both": True, "conv_rank": 4, "tucker": True}},
        {"adapter": {"rank_stabilised": True, "rank_dropout": 0.1}},
        {"adapter": {"conv_rank": 4, "conv_alpha": 2.0, "module_dropout": 0.2}},
        {"adapter": {"targets": ["*_attn1_*", "*_attn2_*"]}},
        {"optim": {"name": "came", "lr": 1e-4, "options": {"weight_decay": 0.1, "eps1": 1e-20}}},
        {"optim": {"name": "adafactor", "lr": 5e-4, "schedule": "constant", "warmup": 0.055}},
        {"optim": {"name": "adafactor", "lr": 1.0, "options": {"relative_step": True}, "schedule": "constant"}},
        {"optim": {"text_lr": 5e-5, "text2_lr": 2e-5, "schedule": "polynomial", "schedule_options": {"power": 3.0}}},
        {"optim": {"lr": 0.0, "text_lr": 1e-4, "clip": 0.0}},
        {"optim": {"schedule": "cosine", "schedule_options": {"min_ratio": 0.1}, "warmup": 100, "loraplus": 16.0}},
        {"optim": {"schedule": "cosine_restarts", "schedule_options": {"cycles": 3}}},
        {"optim": {"schedule": "wsd", "schedule_options": {"decay": 0.25, "min_ratio": 0.1}, "warmup": 0.2}},
        {"optim": {"schedule": "rex", "schedule_options": {"min_ratio": 0.1}}, "train": {"steps": 90, "epochs": 90}},
        {"adapter": {"kind": "lokr", "full_matrix": True, "conv_rank": 1}},
        {"dataset": [{"folder": "a", "resolution": 768, "heldout": 0.1}], "judge": {"epochs": 1}},
        {"optim": {"rates": [{"pattern": "lora_unet_output_blocks_1_*", "factor": 0.5}]}},
        {"loss": {"noise_offset": 0.05, "multires_levels": 6, "multires_discount": 0.2, "input_perturbation": 0.1}},
        {"loss": {"kind": "huber", "huber_schedule": "constant", "huber_c": 0.2, "debiased": True}},
        {"prediction": "v", "ztsnr": "on", "loss": {"min_timestep": 20, "max_timestep": 900}},
        {"seed": 0, "init": "old.safetensors", "vae": "vae.safetensors", "name": "n"},
        {"train": {"steps": 300, "epochs": 300, "precision": "bf16"}, "save": {"steps": 50, "keep": 3}},
        {"dataset": [{"folder": "a", "resolution": 768, "masks": "alpha", "prefix": "zzz", "tag_dropout": 0.1}]},
        {"dataset": [{"folder": "a", "resolution": 768}, {"folder": "reg", "resolution": 768, "weight": 0.5}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_preset_of_any_recipe_reads_back_as_it_was(tables, tmp_path):
    first = recipe(**tables)
    table, problems = preset(first)
    told = ("precision", "extensions", "straight line")
    assert not [line for line in problems if not any(word in line for word in told)], problems
    (tmp_path / "out.json").write_text(json.dumps(table))
    again = parse(import_file(tmp_path / "out.json").recipe, "again")
    shown = {key: pair for key, pair in differences(first, again).items() if not key.endswith(HARMLESS)}
    if "optim.rates" in shown:  # one pattern is told among all of its row's
        assert {"pattern": "lora_unet_output_blocks_1_*", "factor": 0.5} in shown.pop("optim.rates")[1]
    if "optim.options" in shown:
        before, after = shown.pop("optim.options")
        assert before.items() <= after.items()
    assert not shown


# written out where Kiln's own default was in force, or without effect
HARMLESS = ("extensions", "missing", "bucket_min", "bucket_max", "train.precision")


def test_the_command_is_one_that_sd_scripts_can_read():
    text = command(
        export(recipe(adapter={"conv_rank": 4}, optim={"name": "prodigy", "lr": 1.0, "options": {"d_coef": 2.0}}))
    )
    words = shlex.split(text.replace("\\\n", " "))
    given, wrong = parse_command_line(words[words.index("sdxl_train_network.py") + 1 :], "")
    assert not wrong
    assert given["network_args"].read == ["conv_dim=4", "conv_alpha=1.0"]
    assert given["optimizer_args"].read == ["d_coef=2.0"] and given["unet_lr"].read == 1.0
    assert given["train_data_dir"].read == "img" and given["network_train_unet_only"].read is True


def test_several_folders_need_a_dataset_file_that_reads_back(tmp_path):
    tables = [{"folder": "a", "repeats": 3, "resolution": 1024, "shuffle": True}, {"folder": "b", "resolution": 512}]
    out = export(recipe(dataset=tables))
    assert "--dataset_config=dataset.toml" in command(out) and "train_data_dir" not in out.arguments
    (tmp_path / "dataset.toml").write_text(dataset_file(out))
    found = import_file(tmp_path / "dataset.toml").recipe["dataset"]
    assert [(one["folder"], one["repeats"], one["resolution"], one["shuffle"]) for one in found] == [
        ("a", 3, 1024, True), ("b", 1, 512, False),
    ]  # fmt: skip


def test_the_number_in_a_folders_name_is_multiplied_in(tmp_path):
    for name in ("flat", "set/3_a girl", "set/2_b"):
        (tmp_path / name).mkdir(parents=True)
    shown = {}
    for folder, repeats in [("flat", 1), ("set", 1), ("set", 4), ("set/3_a girl", 2)]:
        out = export(recipe(dataset=[{"folder": str(tmp_path / folder), "repeats": repeats}]))
        shown[folder, repeats] = [(one["num_repeats"], one.get("class_tokens")) for one in out.datasets]
        assert ("train_data_dir" in out.arguments) == (not out.datasets)
    assert shown == {
        ("flat", 1): [(1, None)],
        ("set", 1): [],
        ("set", 4): [(8, "b"), (12, "a girl")],
        ("set/3_a girl", 2): [(6, "a girl")],
    }
    out = export(recipe(dataset=[{"folder": "x/10_y", "repeats": 3, "folder_names": False}]))
    assert [(one["num_repeats"], one.get("class_tokens")) for one in out.datasets] == [(3, None)]


def test_a_held_out_share_and_its_measuring_go_along(tmp_path):
    first = recipe(dataset=[{"folder": "img", "resolution": 1024, "heldout": 0.2}], judge={"epochs": 2, "steps": 30})
    out = export(first)
    assert out.arguments["validation_split"] == 0.2 and not [line for line in out.problems if "heldout" in line]
    (tmp_path / "out.json").write_text(json.dumps(preset(first)[0]))
    again = import_file(tmp_path / "out.json").recipe
    assert again["dataset"][0]["heldout"] == 0.2 and again["judge"] == {"epochs": 2, "steps": 30, "stop": ""}
    assert any("heldout" in line for line in export(recipe(dataset=[{"folder": "img", "heldout": 3}])).problems)


def test_ranks_of_blocks_and_of_their_convolutions_become_kohyas_lists():
    block = "lora_unet_output_blocks_2_*"
    ranks = [{"pattern": block, "rank": 4, "alpha": 2.0}, {"pattern": f"{block}conv", "rank": 3}]
    out = export(recipe(adapter={"rank": 16, "conv_rank": 8, "ranks": ranks}))
    dims, convs = (out.network[name].split(",") for name in ("block_dims", "conv_block_dims"))
    assert (dims[15], dims[14], convs[15], convs[14]) == ("4", "16", "3", "8") and len(dims) == len(convs) == 23


def test_the_gui_cannot_hold_an_argument_with_spaces():
    named = {"folder": "img", "resolution": 1024, "keep_separator": "|||"}
    table, problems = preset(recipe(dataset=[named | {"prefix": "zzz"}]))
    assert "--caption_prefix=zzz" in table["additional_parameters"]
    assert "--keep_tokens_separator=|||" in table["additional_parameters"]
    assert not [line for line in problems if "--" in line and "v model" not in line]
    table, problems = preset(recipe(dataset=[named | {"prefix": "zzz girl"}]))
    assert "zzz girl" not in table["additional_parameters"] and any("--caption_prefix" in line for line in problems)


def test_long_captions_stay_as_long_as_sd_scripts_can_read():
    assert export(recipe()).arguments["max_token_length"] == 225
    assert preset(recipe())[0]["max_token_length"] == 225


def test_what_only_kiln_has_of_a_schedule_is_told():
    out = export(recipe(optim={"schedule": "rex"}))
    assert any("rex" in line for line in out.problems) and out.arguments["lr_scheduler"] == "cosine"
    out = export(recipe(optim={"schedule": "wsd", "warmup": 100}))
    assert any("decay" in line for line in out.problems), "the warm-up's share is not known"


def test_prompts_carry_the_recipes_sizes_as_flags():
    sample = {"prompts": ["cat", "dog --w 512"], "negative": "ugly", "width": 832, "cfg": 5.5, "seed": 7}
    assert prompt_lines(recipe(sample=sample)).splitlines() == [
        "cat --n ugly --w 832 --s 25 --l 5.5 --d 7",
        "dog --w 512 --n ugly --s 25 --l 5.5 --d 8",
    ]


OTHER = {
    "base": "other", "prediction": "v", "adapter.kind": "loha", "optim.name": "lion", "optim.schedule": "rex",
    "optim.options": {"eps": 1e-6}, "optim.schedule_options": {"min_ratio": 0.5}, "train.precision": "fp16",
    "train.adapter_precision": "bf16",
    "adapter.targets": ["*attn1*"], "adapter.exclude": ["*ff*"], "adapter.ranks": [{"pattern": "*ff*", "rank": 2}],
    "optim.rates": [{"pattern": "*ff*", "factor": 0.5}], "dataset.extensions": [".cap"],
    "dataset.background": "#000000",    "loss.kind": "l1", "loss.timesteps": "low_discrepancy",
    "ztsnr": "on", "optim.text2_lr": 2e-5, "save.dtype": "fp32",
}  # fmt: skip
# what a setting needs beside it to have any effect
BESIDE = {
    "adapter.conv_alpha": {"adapter": {"conv_rank": 4}}, "adapter.tucker": {"adapter": {"conv_rank": 4}},
    "adapter.dora_axis": {"adapter": {"dora": True}}, "adapter.factor": {"adapter": {"kind": "lokr"}},
    "adapter.full_matrix": {"adapter": {"kind": "lokr"}}, "adapter.decompose_both": {"adapter": {"kind": "lokr"}},
    "loss.huber_schedule": {"loss": {"kind": "huber"}}, "loss.huber_c": {"loss": {"kind": "huber"}},
    "loss.multires_discount": {"loss": {"multires_levels": 6}}, "ztsnr": {"prediction": "v"},
    "optim.text2_lr": {"optim": {"text_lr": 1e-5}},
}  # fmt: skip
# sd-scripts always takes a picture without a caption; how Kiln should, is Kiln's alone
ALONE = {"dataset.missing", "dataset.folder", "dataset"}


def changed_values():
    for section, model in sections():
        for key, field in model.model_fields.items():
            extra = field.json_schema_extra
            name = f"{section}.{key}".lstrip(".")
            if isinstance(extra, dict) and extra["effect"] in ("loss", "tensors", "order") and name not in ALONE:
                value = OTHER.get(name)
                if value is None:
                    default = field.get_default(call_default_factory=True)
                    special = name == "judge.stop" or default != ""
                    value = not default if isinstance(default, bool) else other(default, name) if special else "x"
                yield name, value


def other(default, name):
    if name == "judge.stop":
        return "baked"
    if name == "adapter.dora_axis":
        return "output"
    if name == "loss.huber_schedule":
        return "constant"
    if name in ("loss.max_timestep", "dataset.bucket_step"):
        return 512
    return default + (0.1 if isinstance(default, float) and default < 1 else 1)


def with_value(base, name, value):
    *section, key = name.split(".")
    tables = json.loads(json.dumps(base))
    place = (
        tables if not section else tables["dataset"][0] if section == ["dataset"] else tables.setdefault(section[0], {})
    )
    place[key] = value
    return parse(tables, name)


@pytest.mark.parametrize(("name", "value"), list(changed_values()), ids=lambda one: str(one)[:24])
def test_no_setting_that_changes_the_result_is_lost_in_silence(name, value):
    base = {"base": "b", "dataset": [{"folder": "img"}], **BESIDE.get(name, {})}
    before, after = export(parse(base, "plain")), export(with_value(base, name, value))
    assert before != after, f"{name} = {value} is neither exported nor told"
