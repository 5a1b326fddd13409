"""`kiln why`, `kiln advise`, `kiln check` and `kiln estimate` at the command line."""

import json
import os
import platform
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lorakiln.base.ledger import Entry, Ledger
from lorakiln.base.recipe import read
from lorakiln.cli import app
from tests.advise.test_base_model import SDXL, write
from tests.advise.test_pictures import draw
from tests.cli.test_cli import kiln
from tests.cli.verbs import kiln as here


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def pics(tmp_path):
    for n in range(12):
        draw(tmp_path / "pics" / f"{n}.png", (128, 128), (n, 9, 9), caption=f"zzz, tag{n}, cat")
    return Path("pics")


def test_why_shows_rows_with_their_source_in_80_columns():
    text = run("why", "learning_rate")
    assert "T11  Never 5e-4 with CAME" in text and "DuskFall" in text
    assert max(map(len, run("why").splitlines())) <= 80
    rows = json.loads(run("why", "came", "--json"))
    assert {"id", "source", "claim", "checked"} <= set(rows[0]) and "T7" in [row["id"] for row in rows]


def test_own_runs_that_say_something_on_a_topic_come_first():
    judged = {"base": "pony", "purpose": "character", "pictures": 9, "steps": 400}
    recipe = {"optim": {"name": "came", "lr": 6e-5}, "adapter": {"rank": 8, "kind": "lora"}}
    Ledger().save([Entry("1", "mika", "finished", verdict="baked", recipe=recipe, **judged),
                   Entry("2", "other", "finished", recipe=recipe, **judged)])  # fmt: skip
    for topic in ("learning_rate", "optim.lr", "came", "character", "rank"):
        text = run("why", topic)
        assert text.startswith("L1   Your run 'mika' for a character (9 pictures, came at 6e-05"), topic
        assert "'other'" not in text and "L  your own ledger" in text and max(map(len, text.splitlines())) <= 80
    assert "mika" not in run("why", "style") and "mika" not in run("why", "T6")
    assert json.loads(run("why", "came", "--json"))[0]["source"] == "L"


def test_advice_can_be_written_checked_and_read(pics, tmp_path):
    text = run("advise", pics, "--base", "starter", "--for", "style", "--out", "my.toml")
    assert "kiln check my.toml" in text and max(map(len, text.splitlines())) <= 80
    made = read(tmp_path / "my.toml")
    assert made.base == "starter" and made.dataset[0].folder == "pics" and made.dataset[0].bucket_step == 16
    answer = json.loads(run("check", "my.toml", "--json", code=1 if _starter_missing() else 0))
    assert {one["id"] for one in answer["findings"] if one["severity"] == "error"} <= {"K033"}


def _starter_missing():
    from lorakiln.advise.base_model import look_at

    return bool(look_at("starter").problem)


def test_explore_writes_the_recipes_worth_comparing(pics, tmp_path):
    run("advise", pics, "--base", "pony.safetensors", "--for", "character", "--explore", "--out", "a.toml")
    assert read(tmp_path / "a.toml").optim.name == "came" and read(tmp_path / "a-2.toml").optim.name == "prodigy"
    done = kiln("advise", pics, "--base", "x", "--for", "style", "--out", "a.toml", cwd=tmp_path)
    assert done.returncode == 2 and "a.toml: exists" in done.stderr


def test_advice_as_json_has_reasons(pics):
    (one,) = json.loads(run("advise", pics, "--base", "pony.safetensors", "--for", "character", "--json"))
    rate = next(row for row in one["settings"] if row["setting"] == "optim.lr")
    assert rate["value"] == 6e-5 and rate["evidence"] == ["T7", "T12"] and one["recipe"]["optim"]["lr"] == 6e-5


def test_a_limit_on_money_is_a_limit_on_time(pics, capsys):
    words = ("advise", pics, "--base", "pony.safetensors", "--for", "character", "--gpu", "rtx4090")
    whole, cut = (run(*words, *more) for more in ((), ("--budget", "0.10", "--price", "1")))
    assert "cut from" not in whole and "cut from" in cut and "min of the 6 that it may" in " ".join(cut.split())
    assert run(*words, "--minutes", "6") == cut
    assert run(*words, "--minutes", "600").count("\n") == whole.count("\n") + 1, "only how long it takes is added"
    for more, line in (
        (("--budget", "1"), "--budget and --price go together"),
        (("--minutes", "0.1"), "no step fits"),
    ):
        code, told = here(capsys, *words, *more)
        assert code == 2 and line in told.err and told.err.count("\n") == 1


def test_an_unknown_base_is_asked_about_once(pics, tmp_path, capsys):
    path = write(tmp_path / "mine.safetensors", SDXL)
    words = ("advise", pics, "--base", path, "--for", "style")
    assert "Of which release is it?" in " ".join(run(*words).replace("#", "").split())
    assert "score_9" in run(*words, "--like", "pony") and "score_9" in run(*words)
    assert "--like ponny: choose from pony" in here(capsys, *words, "--like", "ponny")[1].err


def test_what_changes_nothing_is_said(pics, capsys):
    words = ("advise", pics, "--base", "starter", "--for", "style", "--trigger", "zzz", "--novelty", "0.3", "--explore")
    _, told = here(capsys, *words)
    text = " ".join(told.out.replace("#", "").split())
    assert "'kiln probe' measured +0.30: novel" in text and "changes no setting here" in text
    assert "naming it changes nothing" in text and "nothing to compare it with" in told.err


HOT = """base = "sd_xl_base_1.0.safetensors"
[optim]
name = "came"
lr = 5e-4  # hot
[[dataset]]
folder = "pics"
bucket_step = 16
"""


def test_check_explains_fixes_and_sets_the_exit_code(pics, tmp_path):
    (tmp_path / "my.toml").write_text(HOT)
    text = run("check", "my.toml", "--gpu", "rtx3060", code=1)
    assert "K001 error" in text and "abstract void [T11]" in text and "--fix does it" in text
    assert max(map(len, text.splitlines())) <= 80
    answer = json.loads(run("check", "my.toml", "--fix", "--json", code=1))
    assert answer["changed"] == {"optim.lr": 1e-4} and answer["stops"] is True, "the base is still not there"
    assert "lr = 0.0001" in (tmp_path / "my.toml").read_text() and "# hot" in (tmp_path / "my.toml").read_text()
    assert "K001" not in run("check", "my.toml", code=1)


def test_an_ignored_rule_is_counted_not_shown(pics, tmp_path):
    (tmp_path / "my.toml").write_text(f'ignore = ["K001", "K033"]\n{HOT}')
    text = run("check", "my.toml", "--gpu", "rtx4090")
    assert "K001" not in text and "2 ignored" in text


def test_estimate_tells_memory_batch_time_and_cost(pics, tmp_path):
    (tmp_path / "my.toml").write_text(HOT)
    text = run("estimate", "my.toml", "--gpu", "RTX 4090", "--price", "0.5", "--set", "train.checkpointing=true")
    assert "GiB of 24" in text and "largest that fits" in text and "0.5 an hour" in text and "estimates" in text
    answer = json.loads(run("estimate", "my.toml", "--gpu", "rtx4090", "--json"))
    assert answer["memory"]["training"] > 10 and answer["cost"] is None and answer["steps"] == 120


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["why", "lerning_rate"], "kiln: nothing is known about 'lerning_rate'; did you mean 'learning_rate'?"),
        (
            ["advise", "pics", "--base", "x", "--for", "stile"],
            "kiln: --for stile: choose from character, style, concept",
        ),
        (["advise", "nowhere", "--base", "x", "--for", "style"], "kiln: nowhere: no such folder"),
        (
            ["advise", "pics", "--base", "x", "--for", "style", "--novelty", "new"],
            "kiln: --novelty new: choose from familiar, novel, or give what 'kiln probe' says",
        ),
        (
            ["check", "my.toml", "--set", "optim.options={wd=1}"],
            "kiln: my.toml: optim.options = {'wd': 1}: optimizer 'came' has no option 'wd'; it has betas, eps1",
        ),
        (["check", "nowhere.toml"], "kiln: nowhere.toml: no such recipe"),
        (["estimate", "my.toml", "--gpu", "rtx9"], "kiln: --gpu rtx9: not in the table of cards"),
    ],
)
def test_bad_input_is_one_line(words, line, pics, tmp_path, capsys):
    (tmp_path / "my.toml").write_text(HOT)
    code, told = here(capsys, *words)
    assert code == 2 and told.err.startswith(line) and told.err.count("\n") == 1, told.err


def test_the_ledger_speaks_first_and_its_trouble_stops_nothing(pics, tmp_path, monkeypatch):
    Ledger().save(
        [Entry("1", "mika", "finished", base="pony", purpose="character", notes="eyes too\nlarge", pictures=9)]
    )
    words = ("advise", pics, "--base", "pony.safetensors", "--for", "character")
    text = run(*words)
    assert text.splitlines()[1].startswith("# Your run 'mika' for a character (9 pictures): not judged;")
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    monkeypatch.setenv("KILN_LEDGER", str(tmp_path / "junk"))
    done = kiln(*words, cwd=tmp_path)
    assert done.returncode == 0 and "going on without it" in done.stderr and "[optim]" in done.stdout


def test_estimate_says_measured_where_own_runs_were(pics, tmp_path):
    (tmp_path / "my.toml").write_text(HOT)
    made = read(tmp_path / "my.toml")
    Ledger().save([Entry("1", "mika", "finished", base=made.base, device="NVIDIA GeForce RTX 4090",
                         seconds={"train": 50.0}, timed_steps=100, recipe=made.model_dump())])  # fmt: skip
    text = run("estimate", "my.toml", "--gpu", "rtx4090")
    assert "0.45-0.55 s a step" in text and "one run of yours" in text and "estimates" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(run("estimate", "my.toml", "--gpu", "rtx4090", "--json"))["measured_runs"] == 1
    assert "estimates" in run("estimate", "my.toml", "--gpu", "rtx3060")


def test_without_a_card_a_measured_time_is_told_and_nothing_else(pics, tmp_path, monkeypatch):
    monkeypatch.setattr("lorakiln.advise.cards.installed", list)
    (tmp_path / "my.toml").write_text(HOT.replace("sd_xl_base_1.0.safetensors", "starter"))
    assert kiln("estimate", "my.toml", cwd=tmp_path, env=os.environ | {"PATH": ""}).returncode == 2
    Ledger().save([Entry("1", "ink", "finished", base="starter", device="CPU x86_64", host=platform.node(),
                         seconds={"load base": 3.0, "train": 50.0}, timed_steps=100,
                         recipe=read(tmp_path / "my.toml").model_dump())])  # fmt: skip
    text = run("estimate", "my.toml", "--price", "1")
    assert "0.45-0.55 s a step" in text and "this machine's CPU" in text and "GiB" not in text and "cost" in text
    assert max(map(len, text.splitlines())) <= 80
