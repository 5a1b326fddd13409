"""True SDXL's size, with random weights: loaded as diffusers loads it, and trained one step, on an ordinary machine."""

import json
import math
import struct
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel

from lorakiln import families
from lorakiln.adapters.inject import inject
from lorakiln.adapters.network import Network
from lorakiln.adapters.spec import make_spec
from lorakiln.base.records import Crop, Size
from lorakiln.data.loader import Batch
from lorakiln.diffusion.objective import Objective
from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.load import build
from lorakiln.families.sdxl.source import CONFIG_NAME, shipped
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from lorakiln.runs.text import live
from lorakiln.train.learner import Learner
from lorakiln.train.step import Step
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
    loss, network = train(family)
    assert math.isfinite(loss)
    ups = [tensor for name, tensor in network.state_dict().items() if name.endswith("lora_up.weight")]
    assert len(ups) == 722
    assert all(up.isfinite().all() and up.any() for up in ups)  # each layer got a gradient and a step
    peak = memory("VmHWM")
    assert peak < 24 * GIB
    with capsys.disabled():
        print(f"\ntrue size: loaded in {loaded:.0f} s with {own / GIB:.1f} GiB of its own; one step "
              f"{time.perf_counter() - start:.0f} s; peak {peak / GIB:.1f} GiB, mapped file included")  # fmt: skip


def train(family) -> tuple[float, Network]:
    """(loss, the LoRA of rank 16 after it) of one step on one 128-pixel latent and one caption, as a run takes it."""
    spec = make_spec("lora", {"rank": 16, "alpha": 16.0})
    network = inject({"unet": family.unet}, {"unet": family.module_names("unet")}, spec, seed=1)
    flat = FlatParameters({"unet": [one.parameter for one in network.trained()]})
    learner = Learner(network, flat, optimizers["adamw"](flat), lambda step: {"unet": 1e-4}, clip=1.0)
    step = Step(family, Objective(family.schedule), partial(live, family), seed=1)
    latent, size = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)), Size(128, 128)
    batch = Batch(latent, ["a photo of a cat"], [Crop(size, size, 0, 0, size)], [0], ["cat"], [1.0])
    network.begin(1)
    loss = step.losses(batch, 1).sum()
    learner.backward(loss)
    assert math.isfinite(learner.update(1).norm)
    return loss.item(), network
