"""Exact resume: however a run is stopped, continuing gives the bytes of the run that was never stopped."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomlkit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.runs.run import train
from tests.runs.conftest import events, losses, recipe_table

ROOT = Path(__file__).parent.parent.parent
LENGTH = {"train": {"epochs": 4}, "save": {"epochs": 1}, "sample": {"prompts": ["red"], "count": 2, "epochs": 1}}


@pytest.fixture
def recipe_file(make, tmp_path):
    def write(name: str, **changes) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(tomlkit.dumps(make(name=name, **(LENGTH | changes))))
        return path

    return write


def kiln(*arguments: object, kill: tuple[str, int] = ("nowhere", 0)) -> subprocess.CompletedProcess:
    """`kiln` in a process of its own, killed where `kill` says."""
    words = [sys.executable, "-m", "tests.runs.killed", *kill, *arguments]
    return subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, check=False)


def outcome(folder: Path) -> tuple[bytes, list[tuple[int, float]]]:
    """What must not depend on interruptions: the LoRA's bytes, and each step once with its loss."""
    return (folder / "a.safetensors").read_bytes(), steps_of(folder)


def steps_of(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["event"] == "step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base, pictures) -> tuple[bytes, list[tuple[int, float]]]:
    """The outcome of the run that was never stopped, in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = folder / "a.toml"
    recipe.write_text(tomlkit.dumps(recipe_table(base, pictures, folder, name="a", **LENGTH)))
    done = kiln("train", recipe)
    assert done.returncode == 0, done.stderr
    return outcome(folder / "runs" / "a")


PLACES = [("step", 7), ("checkpoints", 2), ("state-", 3), ("samples", 2), ("cache", 3), ("a.safetensors", 1)]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_a_killed_run_resumes_to_the_same_bytes(recipe_file, whole, tmp_path, place):
    recipe, folder = recipe_file("a"), tmp_path / "runs" / "a"
    assert kiln("train", recipe, kill=place).returncode == -signal.SIGKILL
    started = (folder / "recipe.toml").exists()
    assert started == (place[0] != "cache"), "nothing is written before the pictures are known to be good"
    train(recipes.read(recipe), recipe, resume=started)
    got = outcome(folder)
    assert got[1] == whole[1]
    assert got[0] == whole[0]
    assert not list(folder.rglob("*.tmp")), "leftovers of the kill"


def test_a_run_that_is_killed_again_and_again_still_arrives(recipe_file, whole, tmp_path):
    """Three processes, each killed at another place, and a fourth that ends the run."""
    recipe = recipe_file("a")
    for words, place in [([], ("step", 3)), (["--resume"], ("checkpoints", 1)), (["--resume"], ("step", 11))]:
        assert kiln("train", recipe, *words, kill=place).returncode == -signal.SIGKILL
    assert kiln("train", recipe, "--resume").returncode == 0
    assert outcome(tmp_path / "runs" / "a") == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_says_how_to_go_on(recipe_file, tmp_path, number, code):
    recipe = recipe_file("a", train={"epochs": 400}, save={"epochs": 0}, sample={"prompts": []})
    words = [sys.executable, "-m", "lorakiln", "train", str(recipe)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_step(tmp_path / "runs" / "a" / "events.jsonl", 5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert f"continue with: kiln train {recipe} --resume" in output
    steps = [json.loads(line)["step"] for line in (tmp_path / "runs" / "a" / "events.jsonl").read_text().splitlines()]
    assert f"state-{steps[-1]:08d}.safetensors" in [path.name for path in (tmp_path / "runs" / "a" / "state").iterdir()]


def wait_for_step(path: Path, count: int) -> None:
    for _ in range(600):
        if path.exists() and path.read_text().count('"event": "step"') >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never reached step {count}")


def test_told_to_sample_save_and_stop(recipe_file, tmp_path):
    recipe = recipe_file("a", train={"epochs": 400}, save={"epochs": 0}, sample={"prompts": ["red"], "count": 2})
    folder = tmp_path / "runs" / "a"
    process = subprocess.Popen(
        [sys.executable, "-m", "lorakiln", "train", str(recipe)], cwd=ROOT, stdout=subprocess.PIPE
    )
    wait_for_step(folder / "events.jsonl", 3)
    for command in ("sample", "save"):
        assert kiln("tell", folder, command).returncode == 0
        wait_for_step(folder / "events.jsonl", (folder / "events.jsonl").read_text().count("step") // 3 + 5)
    assert kiln("tell", folder, "stop").returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(list((folder / "checkpoints").iterdir())) == 2  # one as told, one of the stop
    assert len({path.name[:10] for path in (folder / "samples").iterdir()}) == 2  # before training, and as told
    assert kiln("tell", folder, "dance").returncode == 2
    assert kiln("tell", tmp_path, "save").returncode == 2


def test_more_epochs_extend_a_finished_run(run):
    first = run("a", train={"epochs": 1}, optim={"schedule": "constant", "warmup": 0.0})
    longer = run("a", resume=True, train={"epochs": 2}, optim={"schedule": "constant", "warmup": 0.0})
    assert [event["step"] for event in events(longer)] == list(range(1, 9))
    whole = run("b", train={"epochs": 2}, optim={"schedule": "constant", "warmup": 0.0})
    assert losses(longer) == losses(whole)
    with pytest.raises(UserError, match=r"finished at step 8; raise train.epochs"):
        run("a", resume=True, train={"epochs": 2}, optim={"schedule": "constant", "warmup": 0.0})
    assert first.folder.lora.exists()
    board = EventAccumulator(str(longer.folder.path / "tensorboard")).Reload()
    shown = [(scalar.step, scalar.value) for scalar in board.Scalars("loss")]
    assert shown == [(step, pytest.approx(loss)) for step, loss in enumerate(losses(longer), start=1)]


def test_a_resumed_run_keeps_the_settings_that_shape_its_weights(run):
    run("a", train={"epochs": 1})
    with pytest.raises(UserError) as caught:
        run("a", resume=True, train={"epochs": 2}, optim={"lr": 5e-4})
    text = str(caught.value)
    assert "optim.lr was 0.001, is 0.0005" in text and "train.epochs" in text and "save.keep" in text
    assert "optim.warmup" not in text.split("may change:")[1]
    run("a", resume=True, train={"epochs": 2}, save={"keep": 1}, sample={"cfg": 2.0})


def test_there_must_be_something_to_resume(run):
    with pytest.raises(UserError, match=r"no run to resume"):
        run("a", resume=True)


def test_a_damaged_newest_state_falls_back_to_the_one_before(run):
    result = run("a", save={"epochs": 1}, train={"epochs": 3}, optim={"schedule": "constant"})
    expected = losses(result)
    newest = max(result.folder.state.iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    again = run("a", save={"epochs": 1}, resume=True, train={"epochs": 3}, optim={"schedule": "constant"})
    assert losses(again) == expected


def test_two_processes_with_half_the_batch_see_the_same_losses(make, tmp_path, pictures):
    """The fifth picture is a batch of its own, in which the second process has no part, sometimes the step's first."""
    square = {"folder": str(pictures), "bucket": False}
    much = {"dataset": [square], "adapter": {"rank": 4, "alpha": 4.0, "dora": True, "rank_dropout": 0.3}}
    for name, batch, processes in [("one", 4, 1), ("two", 2, 2)]:
        path = tmp_path / f"{name}.toml"
        length = {"batch": batch, "accumulate": 2, "epochs": 6}
        path.write_text(tomlkit.dumps(make(name=name, train=length, optim={"lr": 1e-2, "warmup": 0.0}, **much)))
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "lorakiln"]
        done = subprocess.run(
            [sys.executable, *launch, "train", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("frozen (learning rate 0)") == done.stdout.count("kiln judge") == 1, "said once"
    alone, together = ([loss for _, loss in steps_of(tmp_path / "runs" / name)] for name in ("one", "two"))
    assert together == pytest.approx(alone, rel=1e-5)


def test_the_recipe_in_the_run_folder_repeats_the_run(run):
    first = run("a")
    again = recipes.read(first.folder.recipe, ["name=b"])
    assert losses(train(again, first.folder.recipe)) == losses(first)
