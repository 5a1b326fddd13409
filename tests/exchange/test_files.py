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


def easy(take, text):
    base = '[[subsets]]\nimage_dir = "d"\nnum_repeats = 2\n'
    _, recipe, rows, _ = take("easy.toml", base + text)
    return recipe, rows


@pytest.mark.parametrize(
    ("text", "setting", "expected", "fates"),
    [
        ("[g_args.args]\nlearning_rate = 1e-4\ntext_encoder_lr = 0.0", "optim.text_lr", 1e-4,
         {"g_args.args.text_encoder_lr": "mapped"}),
        ("[g_args.args]\nmax_grad_norm = 0", "optim.clip", 1.0, {"g_args.args.max_grad_norm": "mapped"}),
        ("[g_args.args]\ncache_latents = true", "cache.latents", "memory", {"g_args.args.cache_latents": "mapped"}),
        ("[g_args.args]\ncache_latents = true\ncache_latents_to_disk = true", "cache.latents", "disk", {}),
        ("[n_args.args]\nfa = true", "adapter.kind", "lora", {"n_args.args.fa": "unsupported"}),
        ("[n_args.args]\nfa = false", "adapter.kind", "lora", {"n_args.args.fa": "no-effect"}),
        ("[n_args.args.network_args]\nunit = 4", "adapter.kind", "lora",
         {"n_args.args.network_args.unit": "unsupported"}),
        ("[n_args.args.network_args]\nblock_dims = [" + ",".join(["4"] * 23) + "]", "adapter.ranks.0.rank", 4,
         {"n_args.args.network_args.block_dims": "mapped"}),
        ("[n_args.args.network_args]\nalgo = 'lokr'\npreset = ''", "adapter.kind", "lokr", {}),
        ("[o_args.args]\noptimizer_type = 'Prodigy'\n[o_args.args.optimizer_args]\ndecouple = 'true'",
         "optim.options", {"decouple": True}, {"o_args.args.optimizer_args.decouple": "mapped"}),
        ("[o_args.args]\noptimizer_type = 'Prodigy'\n[o_args.args.optimizer_args]\nd0 = '['", "optim.options", {},
         {"o_args.args.optimizer_args.d0": "invalid"}),
        ("[o_args.args]\nwarmup_ratio = 0.1\nlr_scheduler = 'cosine'", "optim.warmup", 0.1,
         {"o_args.args.warmup_ratio": "mapped"}),
        ("[o_args.args]\nwarmup_ratio = 'x'", "optim.warmup", 0.0, {"o_args.args.warmup_ratio": "invalid"}),
        ("[o_args.args]\nwarmup_ratio = 0.1\nlr_scheduler_num_cycles = 3\n"
         "lr_scheduler_type = 'LoraEasyCustomOptimizer.X.CosineAnnealingWarmRestarts'\n"
         "[o_args.args.lr_scheduler_args]\nmin_lr = 1e-6",
         "optim.warmup", 0.1, {"o_args.args.warmup_ratio": "mapped", "o_args.args.lr_scheduler_type": "unsupported",
                               "o_args.args.lr_scheduler_args.min_lr": "unsupported",
                               "o_args.args.lr_scheduler_num_cycles": "mapped"}),
        ("[a_args.args]\nseed = 3\n[b_args.args]\nseed = 4", "seed", 4,
         {"a_args.args.seed": "no-effect", "b_args.args.seed": "mapped"}),
        ("[a_args.args]\nseed = 3\n[b_args.args]\nseed = 0", "seed", 3, {"b_args.args.seed": "no-effect"}),
        ("[a_args.dataset_args]\nbatch_size = 3\n[b_args.dataset_args]\nbatch_size = 4", "train.batch", 4,
         {"a_args.dataset_args.batch_size": "no-effect", "b_args.dataset_args.batch_size": "mapped"}),
        ("[b_args.dataset_args]\nenable_bucket = false", "dataset.0.bucket", False,
         {"b_args.dataset_args.enable_bucket": "no-effect"}),
        ("[g_args.args]\nprior_loss_weight = 0.5", "dataset.0.weight", 1.0,
         {"g_args.args.prior_loss_weight": "no-effect"}),
    ],
)  # fmt: skip
def test_lora_easy_hands_on_what_is_not_0_or_false(take, text, setting, expected, fates):
    recipe, rows = easy(take, text + "\n")
    for key in setting.split("."):
        recipe = recipe[int(key)] if isinstance(recipe, list) else recipe[key]
    assert recipe == expected
    assert {key: rows[key].fate for key in fates} == fates


def test_what_the_screen_of_lora_easy_sends_is_read_alike(take):
    sent = {"args": {"general_args": {"seed": 3}, "network_args": {"network_dim": 8}},
            "dataset": {"general_args": {"resolution": 768}, "bucket_args": {"enable_bucket": True},
                        "subsets": [{"image_dir": "a/5_x", "num_repeats": 2}]}}  # fmt: skip
    kind, recipe, rows, _ = take("sent.json", json.dumps(sent))
    assert kind == "LoRA Easy Training" and recipe["seed"] == 3 and recipe["adapter"]["rank"] == 8
    dataset = recipe["dataset"][0]
    assert (dataset["resolution"], dataset["bucket"], dataset["repeats"]) == (768, True, 2)
    assert not dataset["folder_names"] and rows["dataset.subsets.0.num_repeats"].to == "dataset.0.repeats"


HEADER = {
    "ss_network_module": "networks.lora", "ss_network_dim": "16", "ss_network_alpha": "2.0", "ss_unet_lr": "1.0",
    "ss_text_encoder_lr": "1.0", "ss_learning_rate": "1.0", "ss_num_epochs": "50", "ss_seed": "5", "ss_steps": "900",
    "ss_optimizer": "prodigyopt.prodigy.Prodigy(weight_decay=0.01,betas=(0.9, 0.99),use_bias_correction=True)",
    "ss_lr_scheduler": "cosine", "ss_resolution": "(1024, 1024)", "ss_batch_size_per_device": "3", "ss_clip_skip": "2",
    "ss_enable_bucket": "True", "ss_bucket_no_upscale": "True", "ss_max_grad_norm": "1.0", "ss_min_snr_gamma": "None",
    "ss_shuffle_caption": "True", "ss_keep_tokens": "4", "ss_sd_model_name": "pony.safetensors",
    "ss_mixed_precision": "bf16", "ss_network_args": '{"conv_dim": "8", "conv_alpha": "1"}', "modelspec.title": "x",
}  # fmt: skip


def lora(metadata, tensors=()):
    place = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    head = json.dumps({"__metadata__": metadata, **dict.fromkeys(tensors, place)}).encode()
    return struct.pack("<Q", len(head)) + head


def test_a_lora_without_text_encoders_was_not_trained_on_them(take):
    unet, text = "lora_unet_x.lora_up.weight", "lora_te1_x.lora_up.weight"
    for tensors, expected in [
        ((unet,), (1.0, 0.0)),
        ((text,), (0.0, 1.0)),
        ((unet, text), (1.0, 1.0)),
        ((), (1.0, 1.0)),
    ]:
        _, recipe, _, _ = take("a.safetensors", lora(HEADER, tensors))
        assert (recipe["optim"]["lr"], recipe["optim"]["text_lr"]) == expected, tensors


def test_the_datasets_of_a_header_are_taken_over(take):
    subset = {"num_repeats": 5, "shuffle_caption": True, "keep_tokens": 2, "image_dir": "x", "caption_prefix": None}
    text = json.dumps([{"resolution": [768, 768], "batch_size_per_device": 3, "enable_bucket": True,
                        "tag_frequency": {}, "subsets": [subset]}])  # fmt: skip
    given = {"ss_datasets": text, "ss_network_dim": "8", "ss_network_module": "networks.lora"}
    _, recipe, rows, asked = take("a.safetensors", lora(given))
    dataset = recipe["dataset"][0]
    assert (dataset["resolution"], dataset["repeats"], dataset["shuffle"], dataset["keep_tokens"]) == (768, 5, True, 2)
    assert recipe["train"]["batch"] == 3 and asked == ["base", "dataset.0.folder"]
    assert dataset["extensions"] == [".txt", ".caption"], "a header does not say which captions were read"
    assert rows["ss_datasets"].fate == "mapped" and "train.batch" in rows["ss_datasets"].to


@pytest.mark.parametrize(
    ("steps", "expected", "fates"),
    [("500", (50, 0), ("mapped", "no-effect")), ("495", (495, 495), ("no-effect", "mapped"))],
)
def test_a_run_that_ended_inside_an_epoch_is_told_by_its_steps(take, steps, expected, fates):
    given = HEADER | {
        "ss_max_train_steps": steps,
        "ss_num_batches_per_epoch": "20",
        "ss_gradient_accumulation_steps": "2",
    }
    _, recipe, rows, _ = take("a.safetensors", lora(given))
    assert (recipe["train"]["epochs"], recipe["train"]["steps"]) == expected
    assert (rows["ss_num_epochs"].fate, rows["ss_max_train_steps"].fate) == fates


@pytest.mark.parametrize("key", ["ss_network_args", "ss_text_encoder_lr", "ss_datasets"])
def test_what_cannot_be_read_in_a_header_is_invalid(take, key):
    _, recipe, rows, _ = take("a.safetensors", lora(HEADER | {key: "[1"}))
    assert rows[key].fate == "invalid" and recipe["train"]["epochs"] == 50


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
    from lorakiln.base.recipe import parse, portable

    recipe = parse({"base": "b", "seed": 9, "optim": {"lr": 3e-4}, "dataset": [{"folder": "f"}]}, "x")
    text = json.dumps(portable(recipe.model_dump()))  # as runs/header writes it
    _, found, rows, asked = take("k.safetensors", lora({"lorakiln.recipe": text, "ss_seed": "9"}))
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
