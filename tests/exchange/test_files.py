"""The other formats: sd-scripts' two, LoRA Easy Training, the Jupyter trainer, and the header of a LoRA."""

import json
import struct

import pytest

from lorakiln.base.errors import UserError
from lorakiln.exchange.read import import_file

CONFIG = """
[whatever]
pretrained_model_name_or_path = "pony.safetensors"
train_data_dir = "img"
network_module = "lycoris.kohya"
network_dim = 16
network_alpha = 8
network_args = ["algo=lora", "use_dora=True", "conv_dim=16", "conv_alpha=8"]
learning_rate = 1e-4
text_encoder_lr = 0.0
optimizer_type = "LoraEasyCustomOptimizer.came.CAME"
optimizer_args = ["weight_decay=0.1"]
lr_scheduler = "cosine"
train_batch_size = 4
max_train_epochs = 10
min_snr_gamma = 8.0
keep_tokens = 1
learning_rat = 3
cache_latents = false
seed = "7"

[later]
network_dim = 32
"""


@pytest.fixture
def take(tmp_path):
    """Import a file with the given name and content; returns (kind, recipe, rows by key, asked)."""

    def run(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        done = import_file(path)
        assert len({row.key for row in done.keys}) == len(done.keys)
        return done.kind, done.recipe, {row.key: row for row in done.keys}, done.asked

    return run


def test_a_config_file_is_read_as_sd_scripts_does(take):
    kind, recipe, rows, asked = take("guide.toml", CONFIG)
    assert kind == "sd-scripts config" and not asked
    adapter, optim = recipe["adapter"], recipe["optim"]
    assert (adapter["rank"], adapter["alpha"], adapter["conv_rank"], adapter["conv_alpha"]) == (32, 8.0, 16, 8.0)
    assert adapter["dora"] is False
    assert (optim["name"], optim["lr"], optim["text_lr"]) == ("came", 1e-4, 0.0)
    assert optim["options"] == {"weight_decay": 0.1}
    assert recipe["seed"] == 7 and recipe["cache"]["latents"] == "off"
    assert recipe["dataset"][0]["extensions"] == [".caption"] and recipe["dataset"][0]["bucket"] is False
    assert recipe["train"]["precision"] == "fp32", "mixed_precision is 'no' unless it is given"
    assert rows["whatever.network_dim"].fate == "no-effect" and rows["later.network_dim"].fate == "mapped"
    assert rows["whatever.network_args:use_dora"].fate == "no-effect"
    assert rows["whatever.learning_rat"].fate == "no-effect" and "learning_rate" in rows["whatever.learning_rat"].why


def test_wrong_values_in_a_config_file_are_invalid(take):
    _, recipe, rows, _ = take(
        "bad.toml",
        'network_dim = 4\nmixed_precision = "float"\nmax_train_epochs = "many"\nnetwork_module = "networks.lora"',
    )
    assert rows["mixed_precision"].fate == rows["max_train_epochs"].fate == "invalid"
    assert recipe["train"]["steps"] == 1600, "sd-scripts' own length"


def test_the_jupyter_trainers_dead_keys_are_told_as_such(take):
    kind, recipe, rows, _ = take(
        "lora.toml",
        '[network_arguments]\nnetwork_module = "networks.lora"\nnetwork_dim = 8\nnetwork_alpha = 4\ndora_wd = true\n'
        "conv_dim = 16\n[optimizer_arguments]\nlearning_rate = 6e-5\noptimizer_type = 'AdamW8bit'\n"
        "weight_decay = 0.04\nlr_warmup_ratio = 0.1\nbetas = [0.9, 0.99]\n"
        '[training_arguments]\nmax_train_epochs = 10\nmax_grad_norm = "1.0"\nkeep_only_last_n_epochs = 3\n',
    )
    assert kind == "Jupyter trainer"
    for dead in ("network_arguments.dora_wd", "network_arguments.conv_dim", "optimizer_arguments.weight_decay",
                 "optimizer_arguments.lr_warmup_ratio", "optimizer_arguments.betas",
                 "training_arguments.keep_only_last_n_epochs"):  # fmt: skip
        assert rows[dead].fate == "no-effect", dead
    assert recipe["optim"]["clip"] == 1.0 and recipe["optim"]["warmup"] == 0 and recipe["optim"]["options"] == {}
    assert recipe["adapter"]["conv_rank"] == 0 and recipe["adapter"]["dora"] is False


DATASET = """
[general]
resolution = 1024
enable_bucket = true
caption_extension = ".txt"
keep_tokens = 1
[[datasets]]
batch_size = 3
[[datasets.subsets]]
image_dir = "a/3_x"
num_repeats = 3
flip_aug = true
[[datasets.subsets]]
image_dir = "b"
keep_tokens = 2
is_reg = true
colour = "red"
"""


def test_a_dataset_config_becomes_one_table_a_subset(take):
    kind, recipe, rows, asked = take("data.toml", DATASET)
    assert kind == "sd-scripts dataset" and asked == ["base"]
    first, second = recipe["dataset"]
    assert (first["folder"], first["repeats"], first["flip"], first["keep_tokens"]) == ("a/3_x", 3, True, 1)
    assert (second["folder"], second["repeats"], second["flip"], second["keep_tokens"]) == ("b", 1, False, 2)
    assert first["resolution"] == second["resolution"] == 1024 and recipe["train"]["batch"] == 3
    assert rows["datasets.0.subsets.1.colour"].fate == "invalid", "sd-scripts stops at an unknown key"
    assert rows["general.keep_tokens"].to == "dataset.0.keep_tokens"
    assert rows["general.resolution"].to == "dataset.0.resolution, dataset.1.resolution"


EASY = """
[[subsets]]
num_repeats = 10
keep_tokens = 1
caption_extension = ".txt"
shuffle_caption = true
image_dir = "data/10_atla"
name = "atla"

[noise_args]

[general_args.args]
pretrained_model_name_or_path = "nai.safetensors"
mixed_precision = "bf16"
seed = 23
clip_skip = 2
xformers = true
sdxl = true
max_train_epochs = 2

[general_args.dataset_args]
resolution = 768
batch_size = 2

[network_args.args]
network_dim = 8
network_alpha = 1.0

[network_args.args.network_args]
algo = "loha"
use_dora = true
conv_dim = 4

[optimizer_args.args]
optimizer_type = "Came"
lr_scheduler = "cosine"
learning_rate = 0.0001
warmup_ratio = 0.05

[bucket_args.dataset_args]
enable_bucket = true
max_bucket_reso = 1024

[optimizer_args.args.optimizer_args]
weight_decay = 0.1
betas = "0.9,0.99,0.999"
"""


def test_lora_easy_training_is_read_with_its_tables(take):
    kind, recipe, rows, asked = take("easy.toml", EASY)
    assert kind == "LoRA Easy Training" and not asked
    adapter, optim, dataset = recipe["adapter"], recipe["optim"], recipe["dataset"][0]
    assert (adapter["kind"], adapter["rank"], adapter["alpha"], adapter["conv_rank"]) == ("loha", 8, 1.0, 4)
    assert (optim["name"], optim["warmup"]) == ("came", 0.05)
    assert optim["options"] == {"weight_decay": 0.1, "betas": [0.9, 0.99, 0.999]}
    assert (dataset["folder"], dataset["repeats"], dataset["resolution"]) == ("data/10_atla", 10, 768)
    assert dataset["shuffle"] and dataset["bucket_max"] == 1024 and recipe["train"]["batch"] == 2
    assert rows["network_args.args.network_args.use_dora"].fate == "no-effect"
    assert rows["optimizer_args.args.optimizer_args.betas"].to == "optim.options.betas"
    assert rows["subsets.0.name"].fate == rows["general_args.args.clip_skip"].fate == "no-effect"
    assert rows["optimizer_args.args.warmup_ratio"].to == "optim.warmup"


def test_every_leaf_of_a_lora_easy_file_has_one_row(take):
    import tomllib

    from lorakiln.exchange.sd_scripts import flatten

    _, _, rows, _ = take("easy.toml", EASY)
    table = tomllib.loads(EASY)
    leaves = set(flatten({key: value for key, value in table.items() if key != "subsets"}))
    leaves |= {f"subsets.0.{key}" for key in table["subsets"][0]}
    assert leaves == set(rows)


HEADER = {
    "ss_network_module": "networks.lora", "ss_network_dim": "16", "ss_network_alpha": "2.0", "ss_unet_lr": "1.0",
    "ss_text_encoder_lr": "1.0", "ss_learning_rate": "1.0", "ss_num_epochs": "50", "ss_seed": "5", "ss_steps": "900",
    "ss_optimizer": "prodigyopt.prodigy.Prodigy(weight_decay=0.01,betas=(0.9, 0.99),use_bias_correction=True)",
    "ss_lr_scheduler": "cosine", "ss_resolution": "(1024, 1024)", "ss_batch_size_per_device": "3", "ss_clip_skip": "2",
    "ss_enable_bucket": "True", "ss_bucket_no_upscale": "True", "ss_max_grad_norm": "1.0", "ss_min_snr_gamma": "None",
    "ss_shuffle_caption": "True", "ss_keep_tokens": "4", "ss_sd_model_name": "pony.safetensors",
    "ss_mixed_precision": "bf16", "ss_network_args": '{"conv_dim": "8", "conv_alpha": "1"}', "modelspec.title": "x",
}  # fmt: skip


def lora(metadata):
    head = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(head)) + head


def test_a_lora_tells_the_recipe_it_was_made_with(take):
    kind, recipe, rows, asked = take("a.safetensors", lora(HEADER))
    assert kind == "LoRA header" and asked == ["dataset.0.folder"]
    assert recipe["base"] == "pony.safetensors" and recipe["seed"] == 5
    assert (recipe["adapter"]["rank"], recipe["adapter"]["alpha"], recipe["adapter"]["conv_rank"]) == (16, 2.0, 8)
    assert recipe["optim"]["name"] == "prodigy"
    assert recipe["optim"]["options"] == {"weight_decay": 0.01, "betas": [0.9, 0.99], "use_bias_correction": True}
    assert recipe["train"]["epochs"] == 50 and recipe["train"]["batch"] == 3
    dataset = recipe["dataset"][0]
    assert (dataset["shuffle"], dataset["keep_tokens"], dataset["no_upscale"]) == (True, 4, True)
    assert set(HEADER) <= set(rows) and rows["ss_steps"].fate == rows["modelspec.title"].fate == "no-effect"


def test_a_lora_from_kiln_gives_its_whole_recipe(take):
    from lorakiln.base.recipe import parse, write

    recipe = parse({"base": "b", "seed": 9, "optim": {"lr": 3e-4}, "dataset": [{"folder": "f"}]}, "x")
    _, found, rows, asked = take("k.safetensors", lora({"lorakiln.recipe": write(recipe), "ss_seed": "9"}))
    assert found == recipe.model_dump() and not asked
    assert rows["lorakiln.recipe"].fate == "mapped" and rows["ss_seed"].fate == "no-effect"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.json", "[1]", "holds a list"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", '{"hello": 1}', "not recognised"),
        ("a.toml", "x = ", "cannot be read as TOML"),
        ("a.toml", 'base = "x"\n[optim]\nlr = 1', "a Kiln recipe already"),
        ("a.safetensors", lora({"format": "pt"}), "no ss_* keys"),
        ("a.safetensors", b"1234", "not a .safetensors file"),
    ],
)
def test_what_is_no_settings_file_is_refused_in_one_line(tmp_path, name, content, line):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=line.replace("*", r"\*")):
        import_file(path)
