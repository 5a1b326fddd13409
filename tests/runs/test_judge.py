"""`kiln judge` on real little runs: what is written, what is measured, and what is said of what cannot be judged."""

import json
import shutil
from functools import partial

import pytest
import torch

from lorakiln.base.errors import UserError
from lorakiln.judge import look
from lorakiln.judge.plan import PLANS
from lorakiln.runs import judge
from lorakiln.runs.measuring import measure
from lorakiln.runs.reporter import Silent, Stages
from lorakiln.runs.subject import of_file, of_run
from tests.runs.test_judging import HELD
from tests.tiny import write_safetensors

QUICK = PLANS[-1]


@pytest.fixture(scope="module")
def _alone():
    """Flat shapes on flat colours are copies of each other to `kiln curate`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorakiln.runs.pictures.same_pictures", lambda examples: [[n] for n in range(len(examples))])
        yield


@pytest.fixture
def trained(run, pictures, _alone):
    table = {"dataset": [{"folder": str(pictures), **HELD}], "save": {"epochs": 1}, "train": {"epochs": 2}}
    return partial(run, **table)


def judged(folder, unseen=None, tagger="", plan=QUICK):
    stages = Stages(Silent())
    return judge.run_judge(of_run(folder, unseen, stages), 0, tagger, Silent(), stages, plan)


def test_a_run_gets_a_verdict_a_report_and_a_card(trained):
    result = trained("a")
    done = judged(result.folder.path)
    table = json.loads((result.folder.path / "verdict.json").read_text())
    assert table["verdict"] == done.verdict.word and table["heldout"] == 2
    assert [row["step"] for row in table["checkpoints"]] == [2, 4], "the finished LoRA is its last checkpoint"
    assert table["best"]["file"].endswith(".safetensors")
    assert all(reason["evidence"] for reason in table["reasons"])
    page = (result.folder.path / "report.html").read_text()
    assert page.index(table["verdict"]) < page.index("<h2>") and page.count("data:image/jpeg") >= 3
    assert "http" not in page.replace("http-equiv", ""), "the page needs no network"
    card = (result.folder.path / "README.md").read_text()
    assert "rank 4" in card and "3 trained on, 2 unseen" in card and "## Limits" in card


def test_drawings_at_three_strengths_tell_by_style(trained, monkeypatch):
    monkeypatch.setattr(look, "ALREADY", 0.0)  # a base of random weights draws everything much alike
    folder = trained("a").folder.path
    done = judged(folder, plan=PLANS[3])
    table = json.loads((folder / "verdict.json").read_text())
    assert table["by"] == done.verdict.by == "style"
    assert all(isinstance(one["style"], float) for one in table["checkpoints"][-1]["drawn"].values())
    assert "How far drawings come" in (folder / "report.html").read_text()


def test_the_same_run_is_judged_the_same_again(trained):
    folder = trained("a").folder.path
    tables = []
    for _ in range(2):
        judged(folder)
        table = json.loads((folder / "verdict.json").read_text())
        tables.append({key: value for key, value in table.items() if key not in ("seconds", "foretold")})
    assert tables[0] == tables[1]


def test_judging_leaves_the_base_as_it_was(trained):
    stages = Stages(Silent())
    subject = of_run(trained("a").folder.path, None, stages)
    before = {name: tensor.clone() for name, tensor in subject.family.unet.state_dict().items()}
    measure(subject, QUICK, None, stages)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.family.unet.state_dict().items())


def test_without_held_out_pictures_it_says_what_is_lost(run, pictures):
    done = judged(run("a").folder.path)
    assert done.verdict.word in ("unsure", "underbaked") and done.verdict.heldout == 0
    assert any("no held-out pictures" in reason.text for reason in done.verdict.reasons)
    given = judged(done.subject.folder, unseen=pictures)
    assert given.verdict.heldout == QUICK.unseen


def test_without_a_tagger_the_rest_is_measured(trained):
    done = judged(trained("a").folder.path, tagger="none")
    drawn = done.measures.checkpoints[-1].drawn or done.measures.checkpoints[0].drawn
    assert drawn[1.0].copied is not None and drawn[1.0].fidelity is None
    assert any("no tagger" in note for note in done.measures.notes)


def test_a_users_own_readme_is_left_alone(trained):
    folder = trained("a").folder.path
    (folder / "README.md").write_text("mine")
    judged(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_a_lora_that_gives_no_numbers_is_overbaked(trained, base, pictures, tmp_path):
    from lorakiln.adapters.files.read import read

    file = read(trained("a").folder.lora)
    broken = {name: torch.full_like(tensor, torch.nan) if "lora_up" in name else tensor
              for name, tensor in file.tensors.items()}  # fmt: skip
    path = write_safetensors(
        tmp_path / "broken.safetensors", {n: t.float() for n, t in broken.items()}, dict(file.metadata)
    )
    stages = Stages(Silent())
    subject = of_file(path, str(base), pictures, pictures, tmp_path / "out", 4.0, stages)
    done = judge.run_judge(subject, 0, "", Silent(), stages, QUICK)
    assert done.verdict.word == "overbaked" and "gives no numbers" in done.verdict.reasons[0].text
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["best"]["strength"] is None


def test_a_lora_of_another_base_is_refused(base, pictures, tmp_path):
    layer = "lora_unet_nowhere"
    wide = {f"{layer}.lora_down.weight": torch.zeros(4, 32), f"{layer}.lora_up.weight": torch.zeros(32, 4)}
    path = write_safetensors(tmp_path / "other.safetensors", wide)
    stages = Stages(Silent())
    subject = of_file(path, str(base), pictures, None, tmp_path / "out", 4.0, stages)
    with pytest.raises(UserError, match=r"other.safetensors: .*the base has no layer lora_unet_nowhere"):
        judge.run_judge(subject, 0, "", Silent(), stages, QUICK)


def test_a_folder_without_a_lora_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match=r"not a run folder"):
        of_run(tmp_path, None, Stages(Silent()))
    folder = trained("a").folder
    folder.lora.unlink()
    shutil.rmtree(folder.path / "checkpoints")
    with pytest.raises(UserError, match=r"holds no LoRA yet"):
        of_run(folder.path, None, Stages(Silent()))


def test_changed_pictures_are_noticed(trained, pictures, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(pictures, own)
    result = trained("a", dataset=[{"folder": str(own), **HELD}])
    for path in own.glob("*.txt"):
        path.write_text("other words")
    subject = of_run(result.folder.path, None, Stages(Silent()))
    assert any("changed since the run" in note for note in subject.notes)
