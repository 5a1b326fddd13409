"""Sweeps: what is planned, that trials go on, fail and stop as they should, and what is called a finding."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomlkit

from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Ledger
from lorakiln.lab import findings, sweep
from lorakiln.lab.trial import Outcome, outcome_of, run_trial
from tests.cli.verbs import kiln
from tests.runs.conftest import base, make, pictures  # noqa: F401  fixtures

EXPERIMENTS = Path(__file__).parents[2] / "docs" / "experiments"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optim.name=came,adamw", ["came", "adamw"]),
        ("optim.lr=6e-5, 1e-4", ["6e-5", "1e-4"]),
        ("optim.options={betas = [0.9, 0.99]},{}", ["{betas = [0.9, 0.99]}", "{}"]),
        ("dataset.0.prefix='a, b',c", ["'a, b'", "c"]),
        ("train.batch=2", ["2"]),
    ],
)
def test_values_are_divided_by_commas_outside_brackets_and_quotes(text, values):
    assert sweep.values_of(text) == (text.partition("=")[0], values)


@pytest.fixture
def recipe(make, tmp_path):  # noqa: F811
    path = tmp_path / "first.toml"
    path.write_text(tomlkit.dumps(make(train={"steps": 2})))
    return path


def test_the_plan_is_every_combination_seed_by_seed(recipe, tmp_path):
    trials = sweep.plan(recipe, ["optim.name=came,adamw", "optim.lr=1e-3,1e-4"], 2, [], tmp_path / "s")
    assert [trial.seed for trial in trials] == [42] * 4 + [43] * 4
    assert [dict(trial.changes)["optim.name"] for trial in trials[:4]] == ["came", "came", "adamw", "adamw"]
    assert len({trial.name for trial in trials}) == 8 and trials[0].name.startswith("came-1e-3-s42-")
    again = sweep.plan(recipe, ["optim.name=came,adamw", "optim.lr=1e-3,1e-4"], 3, [], tmp_path / "s")
    assert again[:8] == trials, "more seeds only add trials"
    with pytest.raises(UserError, match="begun with another recipe"):
        sweep.plan(recipe, ["optim.name=came"], 1, ["adapter.rank=2"], tmp_path / "s")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["first.toml"], "nothing to sweep: give --over"),
        (["first.toml", "--over", "optim.lr"], "--over optim.lr: write it as section.key=value,value"),
        (["first.toml", "--over", "optim.lr=1,,2"], "--over optim.lr=1,,2: write it as"),
        (["first.toml", "--over", "optim.lr=1,1"], "--over optim.lr=1,1: a value stands there twice"),
        (["first.toml", "--over", "seed=1,2"], "--over seed: the sweep sets it itself"),
        (["first.toml", "--over", "optim.lr=1", "--over", "optim.lr=2"], "--over optim.lr: given twice"),
        (["first.toml", "--over", "optim.lr=1e-3,fast"], "first.toml: optim.lr = 'fast'"),
        (["first.toml", "--over", "optim.lrr=1"], "first.toml: unknown setting 'optim.lrr'"),
        (["first.toml", "--over", "optim.lr=1", "--spend", "3"], "--spend: needs --price"),
        (["nowhere.toml", "--over", "optim.lr=1"], "nowhere.toml: no such recipe"),
        (["first.toml", "--over", "optim.lr=1e-3", "--address", "auto"], "--address needs Ray, which is not installed"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(recipe, words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out = kiln(capsys, "sweep", *words)
    assert code == 2 and out.err.startswith(f"kiln: {line}") and out.err.count("\n") == 1, out.err
    assert not list(tmp_path.glob("sweeps/*/runs"))


def test_a_sweep_trains_keeps_errors_reports_and_goes_on(recipe, tmp_path, capsys):
    words = ["sweep", recipe, "--over", "optim.lr=1e-3,1e18", "--set", "optim.clip=0.0", "--set", "optim.warmup=0.0",
             "--set", "train.steps=6"]  # fmt: skip
    code, out = kiln(capsys, *words)
    assert code == 0, out.err
    assert "1/2 optim.lr=1e-3 seed=42: finished, loss" in out.out and "2/2 optim.lr=1e18 seed=42: failed" in out.out
    page = (tmp_path / "sweeps" / "first" / "report.md").read_text()
    assert "- optim.lr=1e18, seed 42: step" in page and "the loss is" in page and "One seed shows no chance" in page
    good, bad = (next(one for one in Ledger().entries() if one.recipe["optim"]["lr"] == rate) for rate in (1e-3, 1e18))
    assert (good.status, bad.status) == ("finished", "failed") and good.tags == bad.tags == ("sweep:first",)
    began = good.started
    code, out = kiln(capsys, *words, "--json")
    told = json.loads(out.out)
    assert [one["status"] for one in told["trials"]] == ["finished", "failed"] and told["measure"] == "loss"
    assert (
        next(one for one in Ledger().entries() if one.id == good.id).started == began and len(Ledger().entries()) == 2
    )
    (_, difference) = told["means"][0], told["differences"][0]
    assert difference["count"] == 0 and difference["real"] is False, "a failed trial has no twin"


def test_the_budget_stops_a_trial_cleanly_and_it_goes_on_later(recipe, tmp_path):
    (trial,) = sweep.plan(recipe, ["optim.lr=1e-3"], 1, ["train.steps=0", "train.epochs=3000"], tmp_path / "s")
    assert run_trial(trial, time.time() - 1).status == "waiting" and not trial.folder.path.exists()
    first = _trained_beyond(trial, 0)
    assert first.status == "stopped" and first.error == "SIGTERM" and any(trial.folder.state.iterdir())
    second = _trained_beyond(trial, Ledger().find(trial.name).steps)
    assert second.status == "stopped" and second.seconds > first.seconds


@pytest.fixture
def start():
    """Start a command in a process group of its own, which is gone when the test is; Ctrl-C reaches it.

    Where the tests run in the background SIGINT is ignored, and a child would inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    groups = []

    def go(words: list) -> subprocess.Popen:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        groups.append(process)
        return process

    yield go
    signal.signal(signal.SIGINT, before)
    for process in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_ctrl_c_stops_the_sweep_with_the_state_of_the_trial_saved(recipe, tmp_path, start):
    words = [sys.executable, "-m", "lorakiln", "sweep", recipe, "--over", "optim.lr=1e-3,1e-4", "--price", "36",
             "--set", "train.steps=0", "--set", "train.epochs=3000"]  # fmt: skip
    process = start(words)
    events = tmp_path / "sweeps" / "first" / "runs"
    until = time.time() + 120
    while not any('"step": 3,' in path.read_text() for path in events.glob("*/events.jsonl")):
        assert time.time() < until and process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err == "" and "2 of 2 trials are not done" in out
    (one,) = Ledger().entries()
    assert (one.status, one.error) == ("stopped", "SIGTERM") and one.steps >= 3 and one.price == 36.0


def _trained_beyond(trial, steps):
    """The outcome once a budget has left it time to train; a machine that is busy needs longer to start."""
    for seconds in (12, 40, 90):
        outcome = run_trial(trial, time.time() + seconds)
        if outcome.loss and Ledger().find(trial.name).steps > steps:
            return outcome
    pytest.fail(f"never trained: {outcome}")


def test_the_deadline_is_the_nearer_of_time_and_money():
    clock = lambda: 1000.0  # noqa: E731
    assert sweep.deadline_of(0, 0, 0, clock) is None
    assert sweep.deadline_of(2, 0, 0, clock) == 1120
    assert sweep.deadline_of(60, 0.5, 2.0, clock) == 1000 + 900


def outcome(lr, seed, loss, name="came", status="finished", gain=None):
    return Outcome(f"{name}{lr}{seed}", (("optim.name", name), ("optim.lr", lr)), seed, status, loss=loss, gain=gain,
                   seconds=10.0)  # fmt: skip


def test_differences_are_taken_in_pairs_and_only_real_ones_are_called_so():
    found = [
        outcome("1", 1, 0.50), outcome("2", 1, 0.60), outcome("1", 2, 0.30), outcome("2", 2, 0.41),
        outcome("1", 1, 0.51, "adamw"), outcome("2", 1, 0.62, "adamw"),
        outcome("1", 2, 0.29, "adamw"), outcome("2", 2, 0.40, "adamw"),
    ]  # fmt: skip
    name, rate = findings.effects(found, "loss")
    assert (rate.setting, rate.value, rate.against, rate.real) == ("optim.lr", "2", "1", True)
    # the pairs are 0.10, 0.11, 0.11, 0.11: deviation 0.005, Student's t of 3 is 3.182, so 3.182 * 0.005 / 2
    assert (rate.difference.count, rate.difference.mean) == (4, pytest.approx(0.1075))
    assert rate.difference.high == pytest.approx(0.1075 + 0.007955)
    assert not name.real and name.difference.count == 4
    best = findings.rows(found, "loss")[0]
    assert dict(best.changes)["optim.lr"] == "1" and best.seconds == 10.0 and best.failed == 0


def test_a_difference_that_turns_with_another_setting_is_told_at_each_of_its_values():
    found = [
        outcome("1", 1, 0.50), outcome("1", 1, 0.40, "adamw"), outcome("1", 2, 0.52), outcome("1", 2, 0.43, "adamw"),
        outcome("2", 1, 0.30), outcome("2", 1, 0.40, "adamw"), outcome("2", 2, 0.31), outcome("2", 2, 0.40, "adamw"),
    ]  # fmt: skip
    pooled, *_ = findings.effects(found, "loss")
    assert not pooled.real and pooled.difference.count == 4 and pooled.beside == ()
    low, high, *rates = findings.effects_apart(found, "loss")
    assert (low.beside, high.beside) == ((("optim.lr", "1"),), (("optim.lr", "2"),))
    assert low.difference.mean == pytest.approx(-0.095) and high.difference.mean == pytest.approx(0.095)
    assert low.real and high.real and [one.setting for one in rates] == ["optim.lr", "optim.lr"]
    assert "| optim.name: adamw against came | optim.lr=1 | -0.095 |" in findings.page("x", found, [])
    assert findings.table(found)["apart"][0]["beside"] == {"optim.lr": "1"}
    alone = [Outcome(f"{n}", (("optim.lr", f"{n}"),), 1, "finished", loss=0.1 * n) for n in (1, 2)]
    assert not findings.effects_apart(alone, "loss") and "each combination" not in findings.page("x", alone, [])


def test_failed_trials_are_counted_and_the_gain_is_used_where_all_have_it():
    found = [outcome("1", 1, 0.5, gain=0.1), outcome("2", 1, 0.4, gain=0.2), outcome("3", 1, None, status="failed")]
    assert findings.measure_of(found) == "gain" and findings.measure_of(found[2:]) == "loss"
    rows = findings.rows(found, "gain")
    assert [dict(row.changes)["optim.lr"] for row in rows] == ["2", "1", "3"] and rows[2].failed == 1
    page = findings.page("x", found, [])
    assert "best held-out gain, more is better" in page and "Failed:" in page and "nan" not in page
    assert json.dumps(findings.table(found), allow_nan=False)


def _experiments():
    """Each command of docs/experiments that is a sweep."""
    for page in sorted(EXPERIMENTS.glob("*.md")):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        yield from (line for line in text.splitlines() if line.startswith("kiln sweep "))


@pytest.mark.parametrize("command", list(_experiments()))
def test_the_experiments_in_the_docs_can_be_repeated(command, tmp_path):
    """The command that stands under each result still plans the trials that it names."""
    recipe, *words = shlex.split(command)[2:]
    options = list(zip(words[::2], words[1::2], strict=True))
    given = {name: [value for key, value in options if key == name] for name in ("--over", "--set", "--seeds")}
    trials = sweep.plan(
        EXPERIMENTS.parents[1] / recipe, given["--over"], int(given["--seeds"][0]), given["--set"], tmp_path
    )
    assert len(trials) == len({trial.name for trial in trials}) > 3


def test_settings_that_change_the_loss_are_named(recipe, tmp_path):
    trials = sweep.plan(
        recipe, ["optim.lr=1e-3", "loss.min_snr_gamma=1.0", "dataset.0.flip=true"], 1, [], tmp_path / "s"
    )
    assert sweep.loss_settings(trials) == ["loss.min_snr_gamma", "dataset.0.flip"]


def test_trials_run_on_ray(recipe, tmp_path):
    pytest.importorskip("ray")
    trials = sweep.plan(recipe, ["optim.lr=1e-3,1e-4"], 1, [], tmp_path / "s")
    found = list(sweep.run_on_ray(trials, None, False, "local", 0.0))
    assert sorted(one.status for one in found) == ["finished", "finished"]
    assert sweep.state_of(trials) == [outcome_of(trial) for trial in trials]
