"""`kiln judge`: what it asks for, and in which words it refuses."""

import json

import pytest

from tests.cli.verbs import kiln


@pytest.fixture
def lora(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere"], "nowhere: no such run folder"),
        (["nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["LORA"], "a LoRA file needs --base MODEL and --pictures FOLDER"),
        (["LORA", "--base", "starter"], "a LoRA file needs --base MODEL and --pictures FOLDER"),
        ([".", "--base", "starter"], "--base, --pictures and --out are for a LoRA file"),
        (["."], "not a run folder"),
    ],
)
def test_bad_input_is_one_line(capsys, lora, words, complaint):
    code, said = kiln(capsys, "judge", *[lora if word == "LORA" else word for word in words])
    assert code == 2 and complaint in said.err and said.err.count("\n") == 1


def test_an_existing_report_is_not_replaced(capsys, lora, tmp_path):
    (tmp_path / "a-judged").mkdir()
    (tmp_path / "a-judged" / "report.html").write_text("mine")
    code, said = kiln(capsys, "judge", lora, "--base", "starter", "--pictures", tmp_path)
    assert code == 2 and "exists; choose another --out, or --overwrite" in said.err
    assert (tmp_path / "a-judged" / "report.html").read_text() == "mine"


def test_the_verdict_as_text_and_as_json(capsys, tmp_path):
    """A LoRA that changes nothing, judged on two pictures of the examples."""
    import shutil
    from pathlib import Path

    import torch

    from tests.tiny import tiny_sdxl_file, write_safetensors

    base = tiny_sdxl_file(tmp_path / "base.safetensors")
    examples = Path(__file__).parent.parent.parent / "examples" / "twemoji"
    for name in ("bus", "owl"):
        for kind in (".png", ".txt"):
            (tmp_path / "two").mkdir(exist_ok=True)
            shutil.copy(examples / f"{name}{kind}", tmp_path / "two")
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    down, up = torch.ones(2, 64), torch.zeros(64, 2)
    lora = write_safetensors(
        tmp_path / "a.safetensors", {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
    )
    words = ["judge", lora, "--base", base, "--pictures", tmp_path / "two", "--budget", "0.001", "--tagger", "none"]
    code, said = kiln(capsys, *words)
    assert code == 0 and "a: underbaked" in said.out and "no held-out pictures" in said.out
    assert "6 of 6, 1 the most thorough" in said.out, "the quickest that there is"
    code, said = kiln(capsys, *words, "--json", "--overwrite")
    table = json.loads(said.out.splitlines()[-1])
    assert code == 0 and table["event"] == "verdict" and table["verdict"] == "underbaked"
    assert table["checkpoints"][0]["gain"]["mean"] == pytest.approx(0, abs=1e-6)
    assert len(table["checkpoints"][0]["weights"]["dead"]) == 1
    assert Path(table["report"]).exists()
