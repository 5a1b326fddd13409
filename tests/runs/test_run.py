"""A whole run, from a folder of pictures to a LoRA file, and what each setting of its length and saving does."""

import json

import pytest
from safetensors import safe_open

from lorakiln.base.errors import UserError
from tests.runs.conftest import events, losses


def header(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_run_leaves_everything_in_its_folder(run):
    result = run(sample={"prompts": ["trigger, red --w 64 --h 48", "blue --d 7"], "count": 2, "epochs": 1})
    folder = result.folder
    # 5 pictures: two buckets of one, one of three -> 4 batches of at most 2
    assert len(events(result)) == 3 * 4
    assert [event["step"] for event in events(result)] == list(range(1, 13))
    assert [event["epoch"] for event in events(result)] == [1] * 4 + [2] * 4 + [3] * 4
    assert folder.lora.exists() and folder.recipe.exists() and folder.curve.exists() and folder.grid.exists()
    assert sorted(path.name for path in folder.samples.iterdir()) == [
        f"step{step:06d}-{number}.png" for step in (0, 4, 8, 12) for number in (1, 2)
    ]
    assert len(list(folder.state.iterdir())) == 1
    assert any((folder.path / "tensorboard").iterdir())
    assert json.loads((folder.path / "run.json").read_text())["seconds"]["train"] > 0


def test_training_lowers_the_loss_of_what_it_sees(run):
    result = run(train={"epochs": 20}, optim={"lr": 1e-2})
    seen = losses(result)
    assert sum(seen[-20:]) < 0.9 * sum(seen[:20])


def test_the_file_says_how_it_was_made_and_nothing_of_when_or_where(run, tmp_path):
    metadata, tensors = header(run(adapter={"conv_rank": 2}).folder.lora)
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    recipe = json.loads(metadata["lorakiln.recipe"])
    assert recipe["optim"]["lr"] == 1e-3 and recipe["base"] == "tiny.safetensors"
    assert str(tmp_path) not in json.dumps(metadata)
    assert not {"ss_training_started_at", "ss_session_id", "modelspec.date"} & metadata.keys()
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.bfloat16"}
    assert any("lora_down" in name for name in tensors)


def test_the_same_recipe_gives_the_same_bytes(run):
    first, second = run("a"), run("b")
    assert losses(first) == losses(second)
    one, other = header(first.folder.lora), header(second.folder.lora)
    assert all((one[1][name] == other[1][name]).all() for name in one[1])


def test_a_different_seed_gives_a_different_run(run):
    assert losses(run("a")) != losses(run("b", seed=43))


def test_checkpoints_come_on_their_schedule_and_only_the_last_are_kept(run):
    result = run("a[1]", save={"epochs": 1, "keep": 2})
    names = sorted(path.name for path in (result.folder.path / "checkpoints").iterdir())
    assert names == ["a[1]-step000008.safetensors", "a[1]-step000012.safetensors"]
    assert [event["step"] for event in events(result, "save")] == [4, 8, 12]
    assert len(list(result.folder.state.iterdir())) == 2


def test_steps_end_a_run_inside_an_epoch(run):
    assert [event["step"] for event in events(run(train={"steps": 5}))] == [1, 2, 3, 4, 5]


def test_learning_rates_follow_the_schedule(run):
    rates = [event["lr"]["unet"] for event in events(run())]
    assert rates[0] == pytest.approx(1e-3 / 3)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] < 1e-4


def test_a_frozen_part_is_not_in_the_file_and_a_trained_one_is(run):
    _, tensors = header(run("a").folder.lora)
    assert not any(name.startswith("lora_te") for name in tensors)
    _, tensors = header(run("b", optim={"text_lr": 1e-4, "text2_lr": 0.0}).folder.lora)
    assert {name.split("_")[1] for name in tensors} == {"unet", "te1"}
    _, tensors = header(run("c", optim={"lr": 0.0, "text_lr": 1e-4}).folder.lora)
    assert {name.split("_")[1] for name in tensors} == {"te1", "te2"}


def test_caching_text_and_latents_does_not_change_the_losses(run):
    with_caches = run("a")
    without = run("b", cache={"latents": "off", "text": "off"})
    in_memory = run("c", cache={"latents": "memory"})
    assert losses(with_caches) == losses(in_memory)
    assert losses(without) == pytest.approx(losses(with_caches), rel=1e-6)


def test_training_can_go_on_from_a_lora(run):
    first = run("a", optim={"lr": 5e-3})
    go_on = run("b", init=str(first.folder.lora), train={"steps": 2})
    anew = run("c", train={"steps": 2})
    assert losses(go_on) != losses(anew)


def test_min_snr_and_noise_offset_change_the_loss(run):
    plain = losses(run("a", train={"steps": 4}))
    assert losses(run("b", train={"steps": 4}, loss={"min_snr_gamma": 0.1})) != plain
    assert losses(run("c", train={"steps": 4}, loss={"noise_offset": 0.1})) != plain


def test_checkpointing_changes_nothing_but_memory(run):
    assert losses(run("a")) == pytest.approx(losses(run("b", train={"checkpointing": True})), rel=1e-5)


def test_bf16_stays_near_fp32(run):
    assert losses(run("b", train={"precision": "bf16"})) == pytest.approx(losses(run("a")), rel=0.05)


def test_nothing_to_train_is_refused(run):
    with pytest.raises(UserError, match=r"nothing would be trained"):
        run(optim={"lr": 0.0})


def test_a_run_is_never_overwritten_unasked(run):
    before = run().folder.lora.read_bytes()
    with pytest.raises(UserError, match=r"this run exists; --resume continues it, --overwrite replaces it"):
        run(seed=1)
    assert run(overwrite=True).folder.lora.read_bytes() == before


def test_overwrite_leaves_a_folder_alone_that_is_no_run(run, tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"not a run folder"):
        run(overwrite=True)
    assert (tmp_path / "runs" / "a" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"sample": {"prompts": ["red --q 7"]}}, "--q"),
        ({"sample": {"prompts": ["red"], "width": 63}}, "width = 63"),
        ({"optim": {"options": {"beta": 0.9}}}, "beta"),
        ({"optim": {"schedule_options": {"minimum": 0.1}}}, "minimum"),
        ({"optim": {"warmup": 500.0}}, "warmup"),
        ({"device": "cuda:7"}, "cuda:7"),
        ({"dataset": [{"folder": "nowhere"}]}, "nowhere"),
        ({"name": "../b"}, "name = '../b': it names a folder and a file"),
        ({"name": "b/c"}, "name = 'b/c'"),
        ({"name": ".."}, "name = '..'"),
    ],
)
def test_bad_input_leaves_no_folder_behind(run, tmp_path, changes, words):
    with pytest.raises(UserError) as caught:
        run(**changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "runs" / "a").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint_and_state(run, tmp_path):
    with pytest.raises(UserError, match=r"step \d+: the loss is (nan|inf) at learning rate unet 1e\+18"):
        run(
            optim={"lr": 1e18, "warmup": 0.0, "clip": 0.0, "schedule": "constant"},
            save={"steps": 1},
            train={"epochs": 30},
        )
    for folder in ("checkpoints", "state"):
        newest = max((tmp_path / "runs" / "a" / folder).iterdir())
        assert all(tensor.isfinite().all() for tensor in header(newest)[1].values()), newest
