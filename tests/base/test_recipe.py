"""Recipes: what is read, what is refused and in which words, and that nothing is lost on the way back to TOML."""

import tomllib

import pytest

from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.base.settings import EFFECTS, sections

SMALLEST = {"base": "starter", "dataset": [{"folder": "pictures"}]}


def refusal(**changes):
    with pytest.raises(UserError) as caught:
        recipes.parse(SMALLEST | changes, "my.toml")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_smallest_recipe_has_a_base_and_a_folder():
    recipe = recipes.parse(SMALLEST, "my.toml")
    assert (recipe.base, recipe.dataset[0].folder, recipe.adapter.rank) == ("starter", "pictures", 16)


def test_a_written_recipe_reads_back_equal_with_every_setting_in_it():
    changed = SMALLEST | {"optim": {"lr": 3e-4, "text2_lr": 1e-5, "options": {"betas": [0.9, 0.95]}}}
    changed |= {"adapter": {"ranks": [{"pattern": "*attn2*", "rank": 4}]}}
    recipe = recipes.parse(changed, "my.toml")
    text = recipes.write(recipe)
    assert recipes.parse(tomllib.loads(text), "again") == recipe
    for section, model in sections():
        for key, field in model.model_fields.items():
            if isinstance(field.json_schema_extra, dict) and key != "dataset":
                assert f"\n{key} =" in f"\n{text}" or f"# {key} =" in text, f"{section}.{key}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim": {"lerning_rate": 1.0}}, ["unknown setting 'optim.lerning_rate'"]),
        ({"optim": {"wamup": 1.0}}, ["unknown setting 'optim.wamup'", "did you mean 'warmup'?"]),
        ({"rank": 8}, ["unknown setting 'rank'", "did you mean 'adapter.rank'?"]),
        ({"optm": {}}, ["unknown setting 'optm'", "'optim'"]),
        ({"optim": {"name": "adamm"}}, ["optim.name = 'adamm'", "'adamw'"]),
        ({"loss": {"noise_offset": 0.5}}, ["loss.noise_offset = 0.5: must be at most 0.2"]),
        ({"loss": {"noise_offset": -0.1}}, ["loss.noise_offset = -0.1: must be at least 0"]),
        ({"optim": {"lr": "1e-4"}}, ["optim.lr = '1e-4'", "number"]),
        ({"optim": {"lr": float("nan")}}, ["optim.lr = nan", "finite"]),
        ({"train": {"epochs": 2.5}}, ["train.epochs = 2.5", "integer"]),
        ({"dataset": []}, ["dataset is empty"]),
        ({"dataset": [{"folder": "a", "flop": True}]}, ["'dataset.0.flop'", "did you mean 'flip'?"]),
        ({"dataset": [{}]}, ["dataset.0.folder is missing"]),
        ({"dataset": [{"foldr": "a"}]}, ["unknown setting 'dataset.0.foldr'", "did you mean 'folder'?"]),
        ({"adapter": {"kind": "dora"}}, ["adapter.kind = 'dora'", "lora, loha, lokr"]),
        ({"adapter": {"ranks": [{"pattern": "a", "rang": 2}]}}, ["'adapter.ranks.0.rang'", "did you mean 'rank'?"]),
    ],
)
def test_bad_settings_are_refused_in_one_line_with_what_is_allowed(changes, words):
    text = refusal(**changes)
    assert text.startswith("my.toml: ")
    for word in words:
        assert word in text


def test_a_missing_base_says_what_it_is():
    with pytest.raises(UserError, match=r"base is missing; The model to train on"):
        recipes.parse({"dataset": [{"folder": "a"}]}, "my.toml")


def test_changes_from_the_command_line_lie_over_the_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('base = "starter"\n[[dataset]]\nfolder = "a"\n')
    recipe = recipes.read(path, ["optim.lr=1e-3", "name=other", "dataset.0.repeats=3", "dataset.0.prefix=a, b"])
    assert (recipe.optim.lr, recipe.name, recipe.dataset[0].repeats, recipe.dataset[0].prefix) == (
        1e-3,
        "other",
        3,
        "a, b",
    )


@pytest.mark.parametrize("change", ["optim.lr", "dataset.5.repeats=2", "base.x=1", "dataset.repeats=2"])
def test_a_change_that_leads_nowhere_is_refused(tmp_path, change):
    path = tmp_path / "r.toml"
    path.write_text('base = "starter"\n[[dataset]]\nfolder = "a"\n')
    with pytest.raises(UserError, match="--set"):
        recipes.read(path, [change])


@pytest.mark.parametrize("content", [b"base = ", b"\xff\xfe\x00", b"base = 'a'\nbase = 'b'"])
def test_a_file_that_is_no_toml_is_refused(tmp_path, content):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"r\.toml: not a readable TOML recipe"):
        recipes.read(path)


def test_differences_name_each_changed_setting_once():
    old = recipes.parse(SMALLEST, "a")
    new = recipes.parse(SMALLEST | {"seed": 7, "dataset": [{"folder": "pictures", "repeats": 2}]}, "b")
    assert recipes.differences(old, new) == {"seed": (42, 7), "dataset.0.repeats": (1, 2)}


def test_every_setting_has_help_and_a_known_effect():
    for section, model in sections():
        for key, field in model.model_fields.items():
            if isinstance(field.json_schema_extra, dict):
                assert field.description and field.description.endswith("."), f"{section}.{key}"
                assert field.json_schema_extra["effect"] in EFFECTS
