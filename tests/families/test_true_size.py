"""True SDXL's size, with random weights: loaded as diffusers loads it, and trained one step, on an ordinary machine."""

import json
import math
import struct
import time
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel

from lorakiln import families
from lorakiln.base.records import Crop, Size
from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.load import build
from lorakiln.families.sdxl.source import CONFIG_NAME, shipped
from tests.families.conftest import write_configs
from tests.families.test_load import assert_same

GIB = 2**30

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def true_file(tmp_path_factory):
    """6.9 GB, removed at the end."""
    path = tmp_path_factory.mktemp("true") / "true.safetensors"
    write_true_sdxl(path)
    yield path
    path.unlink()


def write_true_sdxl(path: Path) -> None:
    """Every tensor of a true SDXL file in bf16, written one at a time: stretches of one random block."""
    shapes = {}
    for part in keys.PARTS:
        config = shipped(CONFIG_NAME[part])
        state = build(part, config).state_dict()
        shapes |= {key: tuple(tensor.shape) for key, tensor in keys.to_ldm(part, state, config).items()}
    table, end = {}, 0
    for key in sorted(shapes):
        start, end = end, end + 2 * math.prod(shapes[key])
        table[key] = {"dtype": "BF16", "shape": shapes[key], "data_offsets": [start, end]}
    head = json.dumps(table).encode()
    block = torch.randn(80_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float32).bfloat16()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(head)) + head)
        for index, key in enumerate(sorted(shapes)):
            shape = shapes[key]
            first = index * 1_000_003 % (len(block) - math.prod(shape))
            tensor = block[first : first + math.prod(shape)]
            norm = len(shape) == 1 and key.endswith("weight")
            scale = 0.02 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
            stream.write((tensor * scale + norm).view(torch.uint8).numpy())


def memory(kind: str) -> int:
    """Bytes of this process: RssAnon (its own), RssFile (mapped), VmHWM (the most of both so far)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024


def with_low_rank(unet, paths, rank: int = 16) -> list[torch.nn.Parameter]:
    """What an adapter adds, by hooks: each layer's output plus up(down(x)), in bf16."""
    parameters = []
    for path in paths:
        layer = unet.get_submodule(path)
        down = torch.nn.Parameter(torch.randn(rank, layer.in_features, dtype=torch.bfloat16) / 64)
        up = torch.nn.Parameter(torch.zeros(layer.out_features, rank, dtype=torch.bfloat16))
        layer.register_forward_hook(lambda _, args, out, down=down, up=up: out + args[0] @ down.T @ up.T)
        parameters += [down, up]
    return parameters


def test_true_sdxl_loads_as_in_diffusers_and_takes_a_step(true_file, tmp_path, capsys):
    before, start = memory("RssAnon"), time.perf_counter()
    family = families.load(true_file, dtype=torch.bfloat16)
    loaded = time.perf_counter() - start
    own = memory("RssAnon") - before
    assert own < 2 * GIB  # 6.9 GB of weights stay mapped; the VAE's fp32 copy and the probe's work are its own
    assert family.schedule.prediction == "epsilon"
    assert family.resolution == 1024

    configs = write_configs(tmp_path, {CONFIG_NAME[part]: shipped(CONFIG_NAME[part]) for part in keys.PARTS})
    where = {"config": str(configs), "local_files_only": True}
    assert_same(family.vae, AutoencoderKL.from_single_file(true_file, subfolder="vae", **where))
    unet = UNet2DConditionModel.from_single_file(true_file, subfolder="unet", torch_dtype=torch.bfloat16, **where)
    assert_same(family.unet, unet)
    del unet
    none = dict.fromkeys(("tokenizer", "tokenizer_2"))
    pipe = StableDiffusionXLPipeline.from_single_file(
        true_file, unet=family.unet, vae=family.vae, torch_dtype=torch.bfloat16, **none, **where
    )
    assert_same(family.text_encoders[0], pipe.text_encoder)
    assert_same(family.text_encoders[1], pipe.text_encoder_2)
    del pipe

    start = time.perf_counter()
    parameters = with_low_rank(family.unet, family.module_names("unet"))
    assert len(parameters) == 1444
    assert math.isfinite(train(family, parameters))
    ups = parameters[1::2]
    assert all(up.isfinite().all() and up.any() for up in ups)  # each of the 722 layers got a gradient and a step
    peak = memory("VmHWM")
    assert peak < 24 * GIB
    with capsys.disabled():
        print(f"\ntrue size: loaded in {loaded:.0f} s with {own / GIB:.1f} GiB of its own; one step "
              f"{time.perf_counter() - start:.0f} s; peak {peak / GIB:.1f} GiB, mapped file included")  # fmt: skip


def train(family, parameters) -> float:
    """The loss of one AdamW step on one 128-pixel latent and one caption."""
    rng = torch.Generator().manual_seed(1)
    latent, noise = torch.randn(2, 1, 4, 16, 16, generator=rng)
    size = Size(128, 128)
    with torch.no_grad():
        text = family.encode_text(family.tokenize(["a photo of a cat"]))
    time_ids, timestep = family.conditioning([Crop(size, size, 0, 0, size)]), torch.tensor([500])
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    noised = family.schedule.add_noise(latent, noise, timestep)
    loss = torch.nn.functional.mse_loss(family.predict(noised, timestep, text, time_ids), noise)
    loss.backward()
    optimizer.step()
    return loss.item()
