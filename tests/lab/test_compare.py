"""Runs side by side: what differs, what each came to, and one picture."""

import json

import pytest
from PIL import Image

from lorakiln.base import recipe as recipes
from lorakiln.base.ledger import Entry, Ledger
from lorakiln.lab import compare
from tests.cli.verbs import kiln


def make_run(tmp_path, name, *, losses=(0.5, 0.3), colour="red", dataset="d", events=(), verdict="", **changes):
    """A run folder as a training leaves it, without training."""
    folder = tmp_path / "runs" / name
    (folder / "samples").mkdir(parents=True)
    table = {
        "base": "starter",
        "name": name,
        "sample": {"prompts": ["a red hat", "a cat"]},
        "dataset": [{"folder": "p"}],
    }
    (folder / "recipe.toml").write_text(recipes.write(recipes.parse(table | changes, name)))
    lines = [{"event": "step", "step": n, "loss": loss} for n, loss in enumerate(losses, 1)] + list(events)
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    facts = {"id": f"id-{name}", "status": "stopped", "dataset": dataset, "pictures": 5, "seconds": {"train": 4.0}}
    (folder / "run.json").write_text(json.dumps(facts | {"timed_steps": 2, "started": "2026"}))
    for step, number in [(1, 1), (1, 2), (2, 1)]:
        Image.new("RGB", (32, 32), colour if step == 2 else "white").save(
            folder / "samples" / f"step{step:06d}-{number}.png"
        )
    if verdict:
        best = {"name": "b-2", "step": 2, "strength": 0.9}
        checkpoints = [{"name": "b-1", "gain": {"mean": 0.01}}, {"name": "b-2", "gain": {"mean": 0.03}}]
        told = {"verdict": verdict, "best": best, "checkpoints": checkpoints, "seconds": 60.0}
        (folder / "verdict.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def two(tmp_path):
    judged = [{"event": "judge", "step": n, "gain": gain} for n, gain in ((1, 0.02), (2, 0.01))]
    return (
        make_run(tmp_path, "a", optim={"lr": 1e-3}),
        make_run(
            tmp_path, "b", optim={"lr": 1e-4}, colour="blue", losses=(0.5, 0.4, 0.4), events=judged, verdict="baked"
        ),
    )


def test_only_what_differs_is_shown(two):
    sides = compare.look([str(folder) for folder in two])
    assert compare.differences(sides) == {"optim.lr": [1e-3, 1e-4]}
    found = compare.measures(sides)
    assert found["settled loss"] == [pytest.approx(0.4), pytest.approx(1.3 / 3)]
    assert found["verdict"] == [None, "baked"] and found["gain while training"] == [None, 0.02]
    assert [found[name][1] for name in ("best checkpoint", "at strength", "its held-out gain")] == [2, 0.9, 0.03]
    assert sides[1].entry.seconds == {"train": 4.0, "judge": 60.0}
    assert found["seconds a step"] == [2.0, 2.0] and found["steps"] == [2, 3]
    assert compare.same_pictures(sides) is True


def test_the_picture_has_a_column_a_run_with_its_last_samples(two, tmp_path):
    assert compare.picture(compare.look([str(folder) for folder in two]), tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        shown = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(255, 0, 0), (0, 0, 255), (255, 255, 255)} <= shown


def test_a_run_without_folder_is_compared_by_what_the_ledger_knows(two, capsys):
    recipe = recipes.read(two[0] / "recipe.toml").model_dump()
    Ledger().save([Entry("far", "far", "finished", recipe=recipe | {"seed": 7}, origin="theirs.json", dataset="e")])
    sides = compare.look([str(two[0]), "far"])
    assert compare.differences(sides) == {"seed": [42, 7]} and compare.same_pictures(sides) is False
    code, out = kiln(capsys, "compare", two[0], "far")
    assert code == 0 and "their losses cannot be compared" in out.out and "not judged" in out.out


def test_the_command_prints_80_columns_and_writes_the_picture(two, tmp_path, capsys):
    code, out = kiln(capsys, "compare", *two)
    lines = out.out.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80 and (tmp_path / "compare.png").exists()
    assert lines[1].split() == ["optim.lr", "0.001", "0.0001"]
    assert ["verdict", "-", "baked"] in [line.split() for line in lines]
    code, out = kiln(capsys, "compare", *two, "--overwrite", "--json")
    told = json.loads(out.out)
    assert told["runs"] == ["a", "b"] and told["settings"] == {"optim.lr": [1e-3, 1e-4]}
    assert told["picture"] == "compare.png" and told["same_pictures"] is True


def test_many_runs_go_into_several_blocks(tmp_path, capsys):
    folders = [make_run(tmp_path, f"run-{n}", seed=n) for n in range(9)]
    _, out = kiln(capsys, "compare", *folders)
    assert max(map(len, out.out.splitlines())) <= 80 and all(f"run-{n}" in out.out for n in range(9))


def test_equal_runs_and_runs_without_samples_are_said(tmp_path, capsys):
    folders = [make_run(tmp_path, name) for name in ("a", "b")]
    for folder in folders:
        for path in folder.glob("samples/*"):
            path.unlink()
    _, out = kiln(capsys, "compare", *folders)
    assert "no setting differs" in out.out and "no run has samples" in out.out
    assert not (tmp_path / "compare.png").exists()


def test_a_ledger_rows_own_folder_is_read(two):
    from lorakiln.runs.row import row_of, run_folder

    Ledger().save([row_of(run_folder(folder)) for folder in two])
    sides = compare.look(["a", "id-b"])
    assert [side.title for side in sides] == ["a", "b"] and sides[1].gain == 0.02
    same = compare.look(["a", "a"])
    assert [side.title for side in same] == ["a id-a", "a id-a"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a"], "give at least two runs to compare"),
        (["a", "nowhere"], "no run 'nowhere' in the ledger"),
        (["a", "b", "--out", "x.jpg"], "--out x.jpg: the picture is a PNG"),
    ],
)
def test_bad_input_is_one_line(two, words, line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path / "runs")
    code, out = kiln(capsys, "compare", *words)
    assert code == 2 and out.err.startswith(f"kiln: {line}") and out.err.count("\n") == 1, out.err
