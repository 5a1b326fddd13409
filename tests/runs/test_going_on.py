"""Stopped by a signal, by what is no number, by what changed underneath: what a run says, keeps, and continues to."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from lorakiln.adapters.files.read import read
from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.runs.control import Inbox, tell
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.machine import choose_device
from lorakiln.runs.reporter import Silent
from lorakiln.runs.run import train
from lorakiln.runs.samples import draw_grid, path
from lorakiln.runs.signals import Interrupted, Signals
from lorakiln.sample.generate import Request
from lorakiln.sample.grid import save_png
from lorakiln.train.events import read_events
from lorakiln.train.learner import Learner
from lorakiln.train.scale import LossScale
from tests.cli.verbs import kiln
from tests.runs.conftest import events

# everything that remembers: DoRA's norms, masks, two optimizers' worth of state, sums over batches, mirrored pictures
MUCH = {
    "adapter": {"rank": 4, "alpha": 4.0, "dora": True, "rank_dropout": 0.3},
    "optim": {"name": "prodigy", "lr": 1.0, "text_lr": 1.0, "warmup": 0.0},
    "train": {"steps": 4, "epochs": 4, "batch": 2, "accumulate": 2},
}


class Watcher(Silent):
    """Hears what a run says and does `act` at a stage or after a step."""

    def __init__(self, at: str = "", act=lambda: None):
        self.at, self.act, self.stages, self.notes = at, act, [], []

    def begin(self, stage, total, done):
        self.stages.append(stage)
        if stage == self.at:
            self.act()

    def note(self, text):
        self.notes.append(text)

    def event(self, line):
        if f"{line['event']} {line['step']}" == self.at:
            self.act()


@pytest.fixture
def go(make):
    def train_it(name="a", watcher=None, resume=False, **changes):
        recipe = recipes.parse(make(name=name, **changes), "test.toml")
        return train(recipe, Path("test.toml"), resume=resume, reporter=watcher)

    return train_it


def test_everything_that_remembers_resumes_after_a_signal_and_only_on_the_same_pictures(go, pictures, tmp_path):
    own = shutil.copytree(pictures, tmp_path / "own")
    much = MUCH | {"dataset": [{"folder": str(own), "bucket_step": 16, "shuffle": True, "flip": True}]}
    whole = go("whole", **much).folder
    signalled = Watcher("step 2", lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = go("part", signalled, **much)
    assert stopped.exit_code == 143 and [one["step"] for one in events(stopped)] == [1, 2]
    before = (own / "1.txt").read_text()
    (own / "1.txt").write_text("another caption")
    with pytest.raises(UserError, match=r"--resume: own/1.png changed \(picture, caption"):
        go("part", resume=True, **much)
    (own / "1.txt").write_text(before)
    again = go("part", resume=True, **much)
    assert [one["step"] for one in events(again)] == [1, 2, 3, 4]
    one, other = read(whole.lora).tensors, read(again.folder.lora).tensors
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_signal_before_the_first_step_ends_the_run_at_once(go, tmp_path):
    kill = Watcher("cache latents", lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = go(watcher=kill)
    assert result.exit_code == 143 and not result.begun and not (tmp_path / "runs").exists()


def test_a_second_signal_does_not_wait_for_the_step():
    with Signals() as signals:
        signals.patient = True
        signal.raise_signal(signal.SIGINT)
        stop = signals.asked()
        assert stop and stop.reason == "SIGINT"
        with pytest.raises(Interrupted, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_a_gradient_that_is_no_number_stops_before_such_weights_are_saved(go, monkeypatch, tmp_path):
    real, count = Learner.backward, itertools.count(1)

    def backward(self, loss):
        real(self, loss)
        if next(count) == 3:
            self.flat.gradients_buffer[0] = torch.nan

    monkeypatch.setattr(Learner, "backward", backward)
    with pytest.raises(UserError, match=r"step 3: the gradient's norm is nan at .*the state of step 2 is kept"):
        go(save={"steps": 1})
    newest = max((tmp_path / "runs" / "a" / "state").iterdir())
    assert newest.name == "state-00000002.safetensors"
    assert all(tensor.isfinite().all() for tensor in read(newest).tensors.values())


def test_captions_are_encoded_ahead_of_their_epoch_and_the_frozen_parts_are_told(go, monkeypatch):
    from lorakiln.runs.text import FrozenText

    watcher, during = Watcher(), []
    real = FrozenText._encode
    monkeypatch.setattr(
        FrozenText, "_encode", lambda self, captions: during.append(watcher.stages[-1]) or real(self, captions)
    )
    go(watcher=watcher, train={"epochs": 2, "batch": 4})
    assert set(during) == {"encode captions"} and watcher.stages.count("encode captions") == 2
    assert "frozen (learning rate 0): text encoder 1, text encoder 2" in watcher.notes


def test_half_precision_trains_on_any_device(go):
    told = events(go(train={"precision": "fp16", "steps": 2}))
    assert all((one["grad_norm"] is None) == one.get("skipped", False) for one in told)
    assert "Infinity" not in str(told)


def test_a_run_whose_every_step_overflowed_is_no_success(go, monkeypatch, tmp_path):
    monkeypatch.setattr("lorakiln.runs.build.LossScale", lambda: LossScale(factor=2.0**120))
    with pytest.raises(UserError, match=r"step 2: the gradients of every step overflowed in fp16.*no state was saved"):
        go(train={"precision": "fp16", "steps": 2})
    skipped = [one for one in read_events(tmp_path / "runs" / "a" / "events.jsonl") if one["event"] == "step"]
    assert [(one["grad_norm"], one["skipped"]) for one in skipped] == [(None, True)] * 2


def test_a_full_gpu_is_one_line_whatever_was_asked_for(monkeypatch, capsys):
    def draw_order(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lorakiln.runs.drawing.draw_order", draw_order)
    code, said = kiln(capsys, "sample", "--base", "starter", "--prompt", "a cat")
    assert code == 2 and "the GPU's memory is full" in said.err and said.err.count("\n") == 1


def test_the_grid_leaves_out_what_another_prompt_drew(tmp_path):
    from PIL import Image

    folder = RunFolder(tmp_path, "a")
    was, now = Request("a red one", seed=1), Request("a blue one", seed=1)
    for step, request, colour in [(0, was, (255, 0, 0)), (4, now, (0, 0, 255))]:
        save_png(Image.new("RGB", (64, 64), colour), path(folder, step, 1), request.facts())
    draw_grid(folder, [now])
    colours = {colour for _, colour in Image.open(folder.grid).getcolors(10**6)}
    assert (0, 0, 255) in colours and (255, 0, 0) not in colours


@pytest.mark.parametrize(
    ("status", "command", "words"),
    [
        ("running", "save", ""),
        ("running", "sample", "no sample.prompts"),
        ("finished", "save", "not going on (it is finished)"),
        ("stopped", "stop", "not going on (it is stopped)"),
        ("dead", "save", "not going on (it is killed)"),
    ],
)
def test_a_word_that_nobody_would_hear_is_refused(make, tmp_path, status, command, words):
    import platform

    folder = RunFolder(tmp_path / "a", "a")
    recipe = recipes.parse(make(), "r")
    folder.prepare(recipe, resume=False, overwrite=False)
    gone = {"host": platform.node(), "process": "999999999:1"} if status == "dead" else {}
    folder.record(status="running" if status == "dead" else status, **gone)
    if words:
        with pytest.raises(UserError) as caught:
            tell(folder.path, command)
        assert words in str(caught.value)
    else:  # also what was told before anybody listened, unless it was to an earlier part of the run
        tell(folder.path, command)
        assert Inbox(folder.path).commands() == [command]
        folder.prepare(recipe, resume=True, overwrite=False)
    assert Inbox(folder.path).commands() == []


@pytest.mark.parametrize(
    ("name", "gpus", "rank", "processes", "found"),
    [
        ("auto", 0, 0, 1, "cpu"),
        ("auto", 2, 0, 1, "cuda:0"),
        ("cuda", 2, 1, 2, "cuda:1"),
        ("cuda:1", 2, 0, 1, "cuda:1"),
        ("cpu", 2, 1, 2, "cpu"),
        ("cuda:0", 2, 1, 2, "all 2 processes would share one GPU"),
        ("auto", 2, 2, 3, "process 3 of this machine has no GPU: start at most --nproc-per-node=2"),
        ("cuda:2", 2, 0, 1, "this machine has 2 usable GPUs"),
        ("gpu", 2, 0, 1, "choose from auto, cpu, cuda"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(monkeypatch, name, gpus, rank, processes, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    if " " in found:
        with pytest.raises(UserError) as caught:
            choose_device(name)
        assert found in str(caught.value)
    else:
        assert str(choose_device(name)) == found
