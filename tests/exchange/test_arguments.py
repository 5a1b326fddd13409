"""What sd-scripts' arguments train, one by one: optimizers, schedules, networks, datasets, what is held out."""

import math

import pytest

from lorakiln.exchange.read import import_file


@pytest.fixture
def take(tmp_path):
    """Import lines of a file; returns (recipe, rows by key)."""

    def run(text, name="config.toml"):
        path = tmp_path / name
        path.write_text(text)
        done = import_file(path)
        assert len({row.key for row in done.keys}) == len(done.keys)
        return done.recipe, {row.key: row for row in done.keys}

    return run


def setting(recipe, name):
    for key in name.split("."):
        recipe = recipe[int(key)] if isinstance(recipe, list) else recipe[key]
    return recipe


@pytest.mark.parametrize(
    ("lines", "expected", "fates"),
    [
        ("use_8bit_adam = true", {"optim.name": "adamw8bit"}, {"use_8bit_adam": "mapped"}),
        ("use_lion_optimizer = true", {"optim.name": "lion"}, {"use_lion_optimizer": "mapped"}),
        ('optimizer_type = "Lion"\nuse_8bit_adam = true', {"optim.name": "lion"}, {"use_8bit_adam": "invalid"}),
        ('optimizer_type = "prodigyplus.ProdigyPlusScheduleFree"\nlearning_rate = 1.0',
         {"optim.name": "prodigy", "optim.lr": 1.0, "optim.schedule": "constant"}, {"optimizer_type": "unsupported"}),
        ('optimizer_args = ["amsgrad=True"]', {"optim.options": {}}, {"optimizer_args": "unsupported"}),
        ('optimizer_args = ["amsgrad=False"]', {"optim.options": {}}, {"optimizer_args": "no-effect"}),
        ('optimizer_args = ["amsgard=False"]', {"optim.options": {}}, {"optimizer_args": "invalid"}),
        ('optimizer_type = "pytorch_optimizer.CAME"\noptimizer_args = ["weight_decouple=True"]',
         {"optim.options": {}}, {"optimizer_args": "no-effect"}),
        ('optimizer_type = "DAdaptAdan"\noptimizer_args = ["no_prox=True"]',
         {"optim.name": "prodigy"}, {"optimizer_args": "unsupported"}),
        ('optimizer_type = "Prodigy"\noptimizer_args = ["decouple=1"]', {"optim.options": {"decouple": True}}, {}),
        ("lr_warmup_steps = 100", {"optim.warmup": 0.0}, {"lr_warmup_steps": "invalid"}),
        ('lr_scheduler = "linear"\nlr_warmup_steps = 100', {"optim.warmup": 100.0}, {"lr_warmup_steps": "mapped"}),
        ('lr_scheduler = "linear"\nlr_warmup_steps = 0.1', {"optim.warmup": 0.1}, {"lr_warmup_steps": "mapped"}),
        ('lr_scheduler = "linear"\nlr_warmup_steps = 1.0', {"optim.warmup": 0.999999}, {"lr_warmup_steps": "mapped"}),
        ('lr_scheduler = "inverse_sqrt"\nlr_warmup_steps = 9\nlr_scheduler_timescale = 4', {"optim.warmup": 9.0},
         {"lr_scheduler": "unsupported", "lr_warmup_steps": "mapped", "lr_scheduler_timescale": "unsupported"}),
        ('lr_scheduler = "cosine_with_min_lr"\nlr_scheduler_min_lr_ratio = 0.1',
         {"optim.schedule": "cosine", "optim.schedule_options": {"min_ratio": 0.1}}, {"lr_scheduler": "mapped"}),
        ('lr_scheduler = "cosine_with_min_lr"\nlearning_rate = 1e-4\nlr_scheduler_args = ["min_lr=1e-5"]',
         {"optim.schedule_options": {"min_ratio": pytest.approx(0.1)}}, {"lr_scheduler_args": "mapped"}),
        ('lr_scheduler = "cosine_with_min_lr"', {"optim.schedule": "cosine"}, {"lr_scheduler": "invalid"}),
        ('lr_scheduler = "cosine_with_min_lr"\nlr_scheduler_min_lr_ratio = 0.1\nlr_scheduler_num_cycles = 3',
         {}, {"lr_scheduler_num_cycles": "unsupported"}),
        ('lr_scheduler = "warmup_stable_decay"\nmax_train_steps = 1000\nlr_warmup_steps = 100\nlr_decay_steps = 90',
         {"optim.schedule": "wsd", "optim.schedule_options": {"decay": pytest.approx(0.1)}},
         {"lr_decay_steps": "mapped"}),
        ('lr_scheduler = "warmup_stable_decay"', {"optim.schedule_options": {"decay": 0.0}}, {}),
        ('lr_scheduler_type = "CosineAnnealingLR"\nlr_scheduler_args = ["T_max=90", "eta_min=1e-5"]\n'
         "learning_rate = 1e-4\nmax_train_steps = 90",
         {"optim.schedule": "cosine", "optim.schedule_options": {"min_ratio": pytest.approx(0.1)}},
         {"lr_scheduler_type": "mapped", "lr_scheduler_args": "mapped"}),
        ("validation_split = 0.1", {"dataset.0.heldout": 0.1, "judge.epochs": 1}, {"validation_split": "mapped"}),
        ("validation_split = 0.1\nvalidate_every_n_epochs = 3\nvalidate_every_n_steps = 50",
         {"judge.epochs": 3, "judge.steps": 50}, {"validate_every_n_epochs": "mapped"}),
        ("validate_every_n_epochs = 3", {"judge.epochs": 0}, {"validate_every_n_epochs": "no-effect"}),
        ('dataset_config = "d.toml"\ntrain_data_dir = "img"', {"dataset.0.folder": "CHANGE-ME"},
         {"train_data_dir": "no-effect", "dataset_config": "unsupported"}),
        ("console_log_simple = true\nzero_stage = 2", {}, {"console_log_simple": "unsupported"}),
        ("[network_args]\nconv_dim = 3\nseed = 3", {"seed": 3}, {"network_args.conv_dim": "no-effect"}),
        ("[a.b]\nseed = 3", {"seed": 42}, {"a.b.seed": "no-effect"}),
        ("[a.network_args]\nconv_dim = 3\n[c]\nseed = 3", {"seed": 3}, {"a.network_args.conv_dim": "invalid"}),
        ("image_dir = 'x'\nseed = 3", {}, {"image_dir": "no-effect"}),
        ("max_train_epochs = 4\nmax_token_length = 225", {}, {"max_token_length": "mapped"}),
    ],
)  # fmt: skip
def test_an_argument_becomes_what_sd_scripts_does_with_it(take, lines, expected, fates):
    recipe, rows = take(f"{lines}\n")
    assert {name: setting(recipe, name) for name in expected} == expected
    assert {key: rows[key].fate for key in fates} == fates


def network(module, *words, **arguments):
    lines = [f'network_module = "{module}"', f"network_args = {list(words)}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in arguments.items())]) + "\n"


@pytest.mark.parametrize(
    ("words", "expected", "fates"),
    [
        (["preset=full-lin", "conv_dim=8"], {"conv_rank": 0}, {"preset": "mapped", "conv_dim": "no-effect"}),
        (["preset=unet-only"], {"conv_rank": 16}, {"preset": "mapped"}),
        (["preset=unet-convblock-only", "conv_dim=4"],
         {"targets": ["lora_unet_*layers_?", "lora_unet_*_skip_connection", "lora_unet_*_op", "lora_unet_*_conv"]},
         {"preset": "mapped"}),
        (["preset=ia3"], {}, {"preset": "unsupported"}),
        (["dropout=0.1"], {}, {"dropout": "unsupported"}),
        (["dropout=0"], {}, {"dropout": "no-effect"}),
        (["algo=diag-oft", "constraint=1e-3", "rescaled=True"], {},
         {"algo": "unsupported", "constraint": "unsupported", "rescaled": "unsupported"}),
        (["algo=dylora", "block_size=4"], {}, {"block_size": "unsupported"}),
        (["block_size=4"], {}, {"block_size": "no-effect"}),
        (["algo=ia3", "preset=ia3", "train_on_input=True"], {}, {"preset": "unsupported"}),
        (["use_tucker=True", "use_cp=False"], {"tucker": False}, {"use_tucker": "no-effect", "use_cp": "mapped"}),
        (["use_tucker=True"], {"tucker": True}, {"use_tucker": "mapped"}),
    ],
)  # fmt: skip
def test_lycoris_arguments_are_read_as_lycoris_does(take, words, expected, fates):
    recipe, rows = take(network("lycoris.kohya", *words, network_dim=16, network_alpha=8))
    assert {name: recipe["adapter"][name] for name in expected} == expected
    assert {word: rows[f"network_args:{word}"].fate for word in fates} == fates
    if "unet" in words[0]:
        assert recipe["optim"]["text_lr"] == 0.0


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (100000, {"full_matrix": True, "conv_rank": 1}),
        (0, {"full_matrix": True, "conv_rank": 0}),
        (1, {"full_matrix": False, "rank": 1024, "conv_rank": 1, "conv_alpha": 1.0}),
    ],
)
def test_a_whole_lokr_keeps_its_convolutions_as_they_were(take, conv, expected):
    recipe, _ = take(network("lycoris.kohya", "algo=lokr", f"conv_dim={conv}", "conv_alpha=1", network_dim=100000))
    assert {name: recipe["adapter"][name] for name in expected} == expected


@pytest.mark.parametrize(("module", "kind"), [("networks.loha", "loha"), ("networks.lokr", "lokr")])
def test_sd_scripts_own_loha_and_lokr_are_kilns(take, module, kind):
    recipe, rows = take(network(module, "conv_dim=4", "conv_alpha=2", "use_tucker=True", "factor=6", network_dim=8))
    adapter = recipe["adapter"]
    assert (adapter["kind"], adapter["conv_rank"], adapter["conv_alpha"], adapter["tucker"]) == (kind, 4, 2.0, True)
    assert adapter["factor"] == (6 if kind == "lokr" else -1)
    assert rows["network_args:factor"].fate == ("mapped" if kind == "lokr" else "no-effect")


def test_conv_block_dims_are_rules_for_the_convolutions_of_each_block(take):
    dims, convs = ",".join(["8"] * 23), ",".join(str(n) for n in range(23))
    recipe, rows = take(network("networks.lora", f"block_dims={dims}", f"conv_block_dims={convs}", network_dim=8))
    rules = {rule["pattern"]: rule["rank"] for rule in recipe["adapter"]["ranks"]}
    assert recipe["adapter"]["conv_rank"] == 22 and rows["network_args:conv_block_dims"].to == "adapter.ranks"
    assert rules["lora_unet_input_blocks_4_*"] == 8 and rules["lora_unet_input_blocks_4_*layers_[23]"] == 5
    assert rules["lora_unet_input_blocks_3_*op"] == 4 and rules["lora_unet_output_blocks_2_*conv"] == 15


@pytest.mark.parametrize(
    ("word", "second", "last"),
    [("0.5,0.5", 0.5, 1.0), ("sine", math.sin(math.pi / 16), 1.0), ("reverse_linear+.25", 1.125, 0.25),
     ("zeros", 0.0, 0.0)],
)  # fmt: skip
def test_weights_of_the_blocks_may_be_short_or_a_curve(take, word, second, last):
    recipe, rows = take(network("networks.lora", f"down_lr_weight={word}", "conv_dim=4", network_dim=8))
    factors = {rule["pattern"]: rule["factor"] for rule in recipe["optim"]["rates"]}
    assert rows["network_args:down_lr_weight"].to == "optim.rates"
    assert factors["lora_unet_input_blocks_1_*"] == pytest.approx(second)
    assert factors["lora_unet_input_blocks_8_*"] == last


@pytest.mark.parametrize(
    ("words", "expected", "fates"),
    [
        (["loraplus_lr_ratio=16"], 16.0, {"lr_ratio": "mapped"}),
        (["loraplus_unet_lr_ratio=16"], 16.0, {"unet_lr_ratio": "unsupported"}),
        (["loraplus_unet_lr_ratio=16", "loraplus_text_encoder_lr_ratio=16"], 16.0, {"unet_lr_ratio": "mapped"}),
    ],
)
def test_lora_plus_has_one_factor(take, words, expected, fates):
    recipe, rows = take(network("networks.lora", *words, network_dim=8))
    assert recipe["optim"]["loraplus"] == expected
    assert {key: rows[f"network_args:loraplus_{key}"].fate for key in fates} == fates


DATASETS = """
[general]
keep_tokens = 1
flip_aug = true
resolution = 1024
[[datasets]]
batch_size = 3
[[datasets.subsets]]
image_dir = "img/10_x"
num_repeats = 10
keep_tokens = 2
[[datasets]]
batch_size = 4
resolution = 512
[[datasets.subsets]]
image_dir = "b"
keep_tokens = 3
"""


def test_every_key_of_a_dataset_config_is_told(take):
    recipe, rows = take(DATASETS, "data.toml")
    first, second = recipe["dataset"]
    assert (first["repeats"], first["folder_names"], second["folder_names"]) == (10, False, True)
    assert recipe["train"]["batch"] == 3 and (first["resolution"], second["resolution"]) == (1024, 512)
    assert rows["general.keep_tokens"].fate == "no-effect", "every subset has its own"
    assert rows["datasets.0.batch_size"].to == "train.batch"
    assert rows["datasets.1.batch_size"].fate == "unsupported" and "3" in rows["datasets.1.batch_size"].why
    assert rows["general.flip_aug"].to == "dataset.0.flip, dataset.1.flip"


@pytest.mark.parametrize(
    ("text", "key", "fate"),
    [
        ("[general]\nflip_aug = true", "general.flip_aug", "mapped"),
        ("[[datasets]]\nresolution = 768", "datasets.0.resolution", "mapped"),
        ('[[datasets]]\nresolution = "1024,1024"', "datasets.0.resolution", "invalid"),
        ("[[datasets]]\nvalidation_split = 0", "datasets.0.validation_split", "invalid"),
        ("[[datasets]]\nvalidation_split = 0.25", "datasets.0.validation_split", "mapped"),
        ('[[datasets]]\nimage_dir = "x"', "datasets.0.image_dir", "invalid"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\nresolution = 512", "datasets.0.subsets.0.resolution",
         "invalid"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\nnum_repeats = 1.5", "datasets.0.subsets.0.num_repeats",
         "invalid"),
        ("[general]\nflip_aug = 'yes'", "general.flip_aug", "invalid"),
        ("[[datasets]]\nresolution = 768\n[other]\nx = 1", "other", "invalid"),
    ],
)  # fmt: skip
def test_a_dataset_config_is_checked_as_sd_scripts_does(take, text, key, fate):
    recipe, rows = take(text + "\n", "data.toml")
    assert rows[key].fate == fate, rows[key]
    if fate == "mapped":
        assert rows[key].to.startswith("dataset.0.")
        assert recipe["judge"]["epochs"] == (1 if key.endswith("split") else 0)
