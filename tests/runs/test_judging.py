"""Judging during training: it changes no loss, is written down, ends a run that has peaked, and survives a resume."""

from functools import partial

import pytest

from lorakiln.base.errors import UserError
from lorakiln.runs import judging
from tests.runs.conftest import events, losses

HELD = {"bucket_step": 16, "shuffle": True, "keep_tokens": 1, "heldout": 2.0}


@pytest.fixture
def judged(run, pictures, monkeypatch):
    """A run with two pictures held out."""
    # flat shapes on flat colours are copies of each other to `kiln curate`
    monkeypatch.setattr("lorakiln.runs.pictures.same_pictures", lambda examples: [[n] for n in range(len(examples))])
    return partial(run, dataset=[{"folder": str(pictures), **HELD}])


@pytest.mark.parametrize(
    "adapter", [{}, {"dora": True}, {"rank_dropout": 0.3, "module_dropout": 0.2}], ids=["lora", "dora", "dropout"]
)
def test_judging_changes_no_loss_and_no_weight(judged, adapter):
    options = {"adapter": adapter, "optim": {"text_lr": 1e-4}}
    plain = judged("plain", **options)
    watched = judged("watched", judge={"steps": 1}, **options)
    assert losses(watched) == losses(plain)
    assert next(watched.folder.state.iterdir()).read_bytes() == next(plain.folder.state.iterdir()).read_bytes()
    found = events(watched, "judge")
    assert [one["step"] for one in found] == list(range(1, len(losses(plain)) + 1))
    assert len(found[0]["gains"]) == 2 and found[0]["low"] < found[0]["gain"] < found[0]["high"]
    assert not events(plain, "judge")


def scripted(monkeypatch, means):
    """Measurements that rise and fall as `means` say, four pictures each."""
    answers = iter(means)

    def measure() -> list[float]:
        mean = next(answers)
        return [mean + shift for shift in (0.01, 0.0, -0.01, 0.002)]

    monkeypatch.setattr("lorakiln.runs.run.Measure", lambda *_: measure)


def test_a_run_that_has_peaked_ends_and_keeps_its_best(judged, monkeypatch):
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.1, 0.0])
    result = judged("a", judge={"steps": 1, "stop": "baked"}, save={"steps": 1, "keep": 1})
    assert result.stop and result.stop.reason == "baked: the gain on held-out pictures peaked at step 2"
    assert result.stop.complete
    assert result.exit_code == 0 and len(losses(result)) == 4
    assert result.folder.lora.read_bytes() == result.folder.checkpoint(2).read_bytes()
    kept = sorted(path.name for path in result.folder.checkpoint(2).parent.iterdir())
    assert kept == ["a-step000002.safetensors", "a-step000004.safetensors"]


def test_the_best_is_kept_where_no_checkpoint_was_due(judged, monkeypatch):
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.1])
    result = judged("a", judge={"steps": 1, "stop": "baked"})
    assert result.folder.lora.read_bytes() == result.folder.checkpoint(2).read_bytes()


def test_a_resumed_run_remembers_what_was_measured(judged, monkeypatch):
    scripted(monkeypatch, [0.1, 0.3, 0.25])
    table = {"judge": {"steps": 1, "stop": "baked"}, "optim": {"schedule": "constant", "warmup": 0.0}}
    judged("a", train={"steps": 3}, **table)
    scripted(monkeypatch, [0.2, 0.1])
    result = judged("a", resume=True, train={"steps": 6}, **table)
    assert result.stop and "step 2" in result.stop.reason
    assert [one["step"] for one in events(result, "judge")] == [1, 2, 3, 4]


def test_settings_without_effect_are_refused(run, judged):
    with pytest.raises(UserError, match=r"\[judge\]: there are no held-out pictures"):
        run("a", judge={"epochs": 1})
    with pytest.raises(UserError, match=r"judge.stop = 'baked': needs judge.epochs or judge.steps"):
        judged("a", judge={"stop": "baked"})
    assert judging.TIMESTEPS >= 3
