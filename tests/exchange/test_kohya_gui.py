"""What kohya's GUI makes of a preset before anything is trained, key by key."""

import json

import pytest

from lorakiln.exchange.read import import_file

MINIMAL = {"LoRA_type": "Standard", "network_dim": 8, "sdxl": True, "learning_rate": 1e-4, "lr_warmup": 0}


@pytest.fixture
def take(tmp_path):
    """Import a preset with the given keys; returns (recipe, rows by key)."""

    def run(**keys):
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(MINIMAL | keys))
        done = import_file(path)
        return done.recipe, {row.key: row for row in done.keys}

    return run


@pytest.mark.parametrize(
    ("unet", "text", "expected"),
    [(0, 0, (3e-4, 3e-4)), (1e-4, 0, (1e-4, 0.0)), (0, 5e-5, (0.0, 5e-5)), (1e-4, 5e-5, (1e-4, 5e-5))],
)
def test_a_learning_rate_of_0_means_what_kohya_does_with_it(take, unet, text, expected):
    recipe, rows = take(learning_rate=3e-4, unet_lr=unet, text_encoder_lr=text)
    assert (recipe["optim"]["lr"], recipe["optim"]["text_lr"]) == expected
    assert rows["learning_rate"].fate == ("mapped" if not unet and not text else "no-effect")
    assert rows["unet_lr"].fate == rows["text_encoder_lr"].fate == "mapped"


def test_additional_parameters_override_the_rest(take):
    recipe, rows = take(
        unet_lr=1e-4, text_encoder_lr=1e-4, max_grad_norm=1, optimizer="AdamW8bit", optimizer_args="weight_decay=0.5",
        additional_parameters='--network_train_unet_only --max_grad_norm=0 --optimizer_type "Prodigy" '
        '--optimizer_args "d_coef=2" "betas=0.9,0.99"',
    )  # fmt: skip
    optim = recipe["optim"]
    assert (optim["text_lr"], optim["clip"], optim["name"]) == (0.0, 0.0, "prodigy")
    assert optim["options"] == {"d_coef": 2, "betas": [0.9, 0.99]}
    for outer in ("max_grad_norm", "optimizer", "optimizer_args", "text_encoder_lr"):
        assert rows[outer].fate == "no-effect", outer
    for inner in ("network_train_unet_only", "max_grad_norm", "optimizer_type", "optimizer_args"):
        assert rows[f"additional_parameters:--{inner}"].fate == "mapped", inner


def test_network_args_in_additional_parameters_replace_the_guis_own(take):
    recipe, rows = take(
        LoRA_type="LyCORIS/LoHa", conv_dim=4, conv_alpha=1,
        additional_parameters="--network_args algo=lora use_dora=True conv_dim=16 conv_alpha=8",
    )  # fmt: skip
    adapter = recipe["adapter"]
    assert (adapter["kind"], adapter["conv_rank"], adapter["conv_alpha"], adapter["dora"]) == ("lora", 16, 8.0, False)
    assert rows["conv_dim"].fate == rows["conv_alpha"].fate == "no-effect"
    dora = rows["additional_parameters:--network_args:use_dora"]
    assert dora.fate == "no-effect" and "dora_wd" in dora.why
    assert rows["additional_parameters:--network_args:conv_dim"].to == "adapter.conv_rank"
    assert rows["additional_parameters:--network_args"].fate == "mapped"


def test_an_unknown_argument_in_additional_parameters_is_invalid(take):
    _, rows = take(additional_parameters="--max_grad_nrom=0 --seed x7 --sdpa yes stray")
    assert rows["additional_parameters:--max_grad_nrom"].fate == "invalid"
    assert rows["additional_parameters:--seed"].fate == "invalid"
    assert rows["additional_parameters:--sdpa"].fate == "invalid"


def test_quotes_hold_nothing_together_in_additional_parameters(take):
    recipe, rows = take(
        optimizer="Prodigy",
        additional_parameters='--optimizer_args "weight_decay=0.1 d_coef=2 --training_comment "a b"',
    )
    assert recipe["optim"]["options"] == {"weight_decay": 0.1, "d_coef": 2}
    assert rows["additional_parameters:--training_comment"].fate == "invalid"
    recipe, _ = take(additional_parameters=r"--network_weights=D:\\loras\\a.safetensors")
    assert recipe["init"] == r"D:\\loras\\a.safetensors"


def test_max_train_epochs_then_max_train_steps_then_epoch_decide(take):
    for keys, expected, told in [
        ({"epoch": 5, "max_train_epochs": "7", "max_train_steps": "90"}, (7, 0), "max_train_epochs"),
        ({"epoch": 5, "max_train_epochs": "", "max_train_steps": "90"}, (90, 90), "max_train_steps"),
        ({"epoch": 5, "max_train_epochs": "", "max_train_steps": ""}, (5, 0), "epoch"),
    ]:
        recipe, rows = take(**keys)
        assert (recipe["train"]["epochs"], recipe["train"]["steps"]) == expected
        assert [key for key in keys if rows[key].fate == "mapped"] == [told]


def test_text_where_the_gui_wants_a_whole_number_becomes_0(take):
    recipe, _ = take(keep_tokens="2", epoch="1.5", max_train_epochs="", seed="1.0")
    assert recipe["dataset"][0]["keep_tokens"] == 2
    assert recipe["train"]["epochs"] == 1, "epoch 0 would train nothing"
    assert recipe["seed"] == 42, "the GUI reads '1.0' as 0, which is no seed"


@pytest.mark.parametrize("length", [{"epoch": 4}, {"epoch": 4, "max_train_epochs": 40}, {"max_train_steps": 1000}])
def test_warmup_is_a_percentage_of_the_run(take, length):
    recipe, rows = take(lr_warmup=5, lr_scheduler="cosine", **length)
    assert recipe["optim"]["warmup"] == pytest.approx(0.05) and rows["lr_warmup"].to == "optim.warmup"


def test_warmup_steps_beat_the_percentage(take):
    recipe, rows = take(lr_warmup=5, lr_warmup_steps=30, lr_scheduler="cosine")
    assert recipe["optim"]["warmup"] == 30 and rows["lr_warmup"].fate == "no-effect"
    recipe, rows = take(lr_warmup=100, lr_warmup_steps=0, lr_scheduler="cosine")
    assert recipe["optim"]["warmup"] > 0.99 and rows["lr_warmup_steps"].fate == "no-effect"


def test_constant_stops_at_a_warmup(take):
    recipe, rows = take(lr_warmup=5, lr_scheduler="constant")
    assert rows["lr_warmup"].fate == "invalid" and recipe["optim"]["warmup"] == 0


def test_noise_offset_type_picks_the_noise(take):
    noise = {"noise_offset": 0.05, "adaptive_noise_scale": 0.005, "multires_noise_iterations": 8,
             "multires_noise_discount": 0.2}  # fmt: skip
    recipe, rows = take(**noise, noise_offset_type="Multires")
    assert recipe["loss"]["noise_offset"] == 0 and recipe["loss"]["multires_levels"] == 8
    assert rows["noise_offset"].fate == rows["adaptive_noise_scale"].fate == "no-effect"
    recipe, rows = take(**noise, noise_offset_type="Original")
    assert recipe["loss"]["noise_offset"] == 0.05 and recipe["loss"]["multires_levels"] == 0
    assert rows["multires_noise_iterations"].fate == "no-effect"


def test_adafactor_throws_the_rate_away_unless_told_not_to(take):
    recipe, rows = take(optimizer="Adafactor", learning_rate=5e-4, unet_lr=0, text_encoder_lr=0)
    assert recipe["optim"]["options"]["relative_step"] is True and recipe["optim"]["lr"] == 1.0
    assert rows["learning_rate"].fate == "no-effect"
    recipe, rows = take(
        optimizer="Adafactor", learning_rate=5e-4, unet_lr=0, text_encoder_lr=0,
        optimizer_args="scale_parameter=False relative_step=False warmup_init=False",
    )  # fmt: skip
    assert recipe["optim"]["lr"] == 5e-4 and rows["learning_rate"].fate == "mapped"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("LyCORIS/LoCon", "lora"), ("LoCon", "lora"), ("LyCORIS/LoHa", "loha"), ("LyCORIS/LoKr", "lokr")],
)
def test_lycoris_kinds_are_kilns(take, kind, expected):
    recipe, rows = take(LoRA_type=kind, conv_dim=4, conv_alpha=2, dora_wd=True)
    adapter = recipe["adapter"]
    assert (adapter["kind"], adapter["conv_rank"], adapter["conv_alpha"]) == (expected, 4, 2.0)
    assert adapter["dora"] is True and adapter["dora_axis"] == "output"
    assert rows["LoRA_type"].fate == "mapped"


def test_dora_on_a_standard_lora_does_nothing(take):
    recipe, rows = take(dora_wd=True)
    assert rows["dora_wd"].fate == "no-effect" and recipe["adapter"]["dora"] is False


def test_lokr_takes_the_word_false_for_true_where_it_matters(take):
    small, rows = take(LoRA_type="LyCORIS/LoKr", network_dim=8, decompose_both=False)
    assert small["adapter"]["decompose_both"] is True and "'False'" in rows["decompose_both"].why
    large, rows = take(LoRA_type="LyCORIS/LoKr", network_dim=40, decompose_both=False)
    assert large["adapter"]["decompose_both"] is False and rows["decompose_both"].fate == "no-effect"


@pytest.mark.slow  # LyCORIS takes many seconds to import
def test_lycoris_itself_splits_the_small_factor_just_below_that_rank():
    import torch
    from lycoris.modules.lokr import LokrModule

    layer = torch.nn.Linear(1280, 10240)
    split = [hasattr(LokrModule("x", layer, lora_dim=rank, decompose_both="False"), "lokr_w1_a") for rank in (39, 40)]
    assert split == [True, False]


def test_block_dims_become_rules_for_the_blocks_that_hold_layers(take):
    dims = ",".join(str(n) for n in range(23))
    recipe, _ = take(block_dims=dims, block_alphas=",".join(["4"] * 23))
    rules = {rule["pattern"]: (rule["rank"], rule["alpha"]) for rule in recipe["adapter"]["ranks"]}
    assert rules["lora_unet_input_blocks_4_*"] == (5, 4.0)
    assert rules["lora_unet_middle_block_1_*"] == (11, 4.0)
    assert rules["lora_unet_output_blocks_0_*"] == (13, 4.0)
    assert len(rules) == 4 + 1 + 6


def test_a_preset_for_flux_or_sd_1_5_says_so(take):
    _, rows = take(sdxl=False)
    assert rows["sdxl"].fate == "unsupported"
    _, rows = take(flux1_checkbox=True)
    assert rows["flux1_checkbox"].fate == "unsupported"


def test_each_family_is_named_as_what_it_is(take):
    for keys, word in [
        ({"flux1_checkbox": True, "sdxl": False}, "Flux"),
        ({"sd3_checkbox": True, "sdxl": False}, "SD 3"),
    ]:
        _, rows = take(**keys)
        assert all(word in rows[key].why for key in keys)
    assert take(sd3_checkbox=False)[1]["sd3_checkbox"].fate == "no-effect"


def test_with_a_dataset_config_the_gui_counts_no_steps(take):
    recipe, rows = take(dataset_config="d.toml", train_data_dir="img", epoch=5, max_train_epochs="", max_train_steps="")
    assert (recipe["train"]["epochs"], recipe["train"]["steps"]) == (1600, 1600)
    assert rows["epoch"].fate == rows["train_data_dir"].fate == "no-effect"
    assert recipe["dataset"][0]["folder"] == "CHANGE-ME"
    assert take(dataset_config="d.toml", max_train_epochs=7)[0]["train"]["epochs"] == 7


@pytest.mark.parametrize(
    ("keys", "mapped", "others"),
    [
        ({"lora_network_weights": "a", "network_weights": "b"}, ["lora_network_weights"], ["network_weights"]),
        ({"lowvram": True, "lowram": True}, [], ["lowvram", "lowram"]),
        ({"use_8bit_adam": True}, ["use_8bit_adam"], []),
        ({"use_8bit_adam": True, "optimizer": "Lion"}, ["optimizer"], ["use_8bit_adam"]),
        ({"network_module": "x", "zero_terminal_snr": True, "caption_prefix": "y"}, [],
         ["network_module", "zero_terminal_snr", "caption_prefix"]),
        ({"loraplus_lr_ratio": 16}, ["loraplus_lr_ratio"], []),
    ],
)  # fmt: skip
def test_two_keys_for_one_argument_have_a_row_each(take, keys, mapped, others):
    recipe, rows = take(**keys)
    assert {key: rows[key].fate for key in keys} == dict.fromkeys(mapped, "mapped") | dict.fromkeys(others, "no-effect")
    if "use_8bit_adam" in mapped:
        assert recipe["optim"]["name"] == "adamw8bit"


def test_native_fine_tuning_is_lycoris(take):
    _, rows = take(LoRA_type="LyCORIS/Native Fine-Tuning", train_norm=True, conv_dim=4)
    assert rows["LoRA_type"].fate == rows["train_norm"].fate == "unsupported"
    assert rows["conv_dim"].fate == "no-effect"


@pytest.mark.parametrize(("kind", "expected"), [("Kohya LoHa", "loha"), ("Kohya LoKr", "lokr")])
def test_the_guis_own_loha_and_lokr_adapt_convolutions_only_where_asked(take, kind, expected):
    adapter = take(LoRA_type=kind, conv_dim=0, conv_alpha=1)[0]["adapter"]
    assert (adapter["kind"], adapter["conv_rank"]) == (expected, 0)


def test_a_lokr_preset_without_decompose_both_has_the_guis_false(take):
    assert take(LoRA_type="LyCORIS/LoKr")[0]["adapter"]["decompose_both"] is True


def test_a_key_nobody_knows_is_passed_over(take):
    _, rows = take(learning_rat=3)
    assert rows["learning_rat"].fate == "no-effect"


def test_prior_pictures_become_a_second_dataset(take):
    recipe, rows = take(train_data_dir="img", reg_data_dir="reg", prior_loss_weight=0.5)
    assert [(one["folder"], one["weight"]) for one in recipe["dataset"]] == [("img", 1.0), ("reg", 0.5)]
    assert rows["prior_loss_weight"].to == "dataset.1.weight"
