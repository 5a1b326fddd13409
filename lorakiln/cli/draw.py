"""`kiln sample`: draw pictures from a base and any LoRAs."""

import json
from pathlib import Path
from typing import Literal

import typer


def add_verbs(app: typer.Typer) -> None:
    app.command("sample")(sample)


def sample(
    base: str = typer.Option(help="The base model, as in a recipe."),
    prompt: list[str] = typer.Option([], help="A prompt; may be given several times. kohya's flags work in it."),
    prompts: Path | None = typer.Option(None, help="A file with one prompt a line."),
    lora: list[str] = typer.Option([], metavar="FILE[:STRENGTH]", help="A LoRA, e.g. a.safetensors:0.7; repeatable."),
    out: Path = typer.Option(Path("pictures"), help="Folder for the pictures."),
    negative: str = typer.Option("", help="Negative prompt."),
    width: int = typer.Option(0, help="Pixels; 0: the base's own."),
    height: int = typer.Option(0, help="Pixels; 0: the base's own."),
    steps: int = typer.Option(25, min=1, max=1000, help="Sampling steps."),
    cfg: float = typer.Option(6.0, help="Guidance scale; 1: none."),
    rescale: float = typer.Option(0.0, min=0.0, max=1.0, help="CFG rescale, for zero-terminal-SNR models."),
    sampler: str = typer.Option("euler", help="euler, euler_a or dpmpp_2m."),
    seed: int = typer.Option(1, min=0, help="Seed of the first picture."),
    count: int = typer.Option(1, min=1, max=1000, help="Pictures a prompt, each with the next seed."),
    vae: str = typer.Option("", help="A VAE to use instead of the base's own."),
    prediction: Literal["auto", "epsilon", "v"] = typer.Option("auto", help="What the base predicts."),
    ztsnr: Literal["auto", "on", "off"] = typer.Option("auto", help="Whether its noise ends in zero signal."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, ..."),
    precision: Literal["auto", "fp32", "bf16", "fp16"] = typer.Option("auto", help="Arithmetic of the base."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing pictures."),
    as_json: bool = typer.Option(False, "--json", help="Print the files as JSON."),
) -> None:
    """Draw pictures from a base and any LoRAs, each at its own strength."""
    from lorakiln.cli.progress import TerminalReporter
    from lorakiln.runs.drawing import Order, draw_order, parse_lora
    from lorakiln.sample.generate import Request

    defaults = Request(
        prompt="", negative=negative, width=width, height=height, steps=steps, cfg=cfg, seed=seed, sampler=sampler,
        rescale=rescale,
    )  # fmt: skip
    loras = [parse_lora(text) for text in lora]
    order = Order(
        base, loras, prompt, prompts, defaults, count, out, vae, prediction, ztsnr, device, precision, overwrite
    )
    with TerminalReporter(as_json) as reporter:
        files = draw_order(order, reporter.steps("draw"))
    if as_json:
        typer.echo(json.dumps({"files": [str(path) for path in files]}))
    else:
        typer.echo(f"{len(files)} files in {out}, last {files[-1].name}")
