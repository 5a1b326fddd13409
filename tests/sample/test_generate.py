"""A drawn picture is diffusers' picture, and depends on its own request alone."""

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from lorakiln.base.errors import UserError
from lorakiln.diffusion.schedule import Schedule
from lorakiln.families.sdxl import text
from lorakiln.sample import generate
from lorakiln.sample.generate import Request, decode, draw, draw_latents, to_picture
from tests.tiny import tiny_family

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = Request("a red fox, snow", "lowres, blurry", 64, 32, steps=5, cfg=4.0, seed=7)
LONG = ", ".join(f"tag {number}" for number in range(40))  # more than 75 tokens


@pytest.fixture(scope="module")
def family():
    return tiny_family()


@pytest.fixture(scope="module")
def velocity_family():
    family = tiny_family()
    family.schedule = Schedule.scaled_linear(prediction="v", ztsnr=True)
    return family


def pipeline(family):
    """diffusers' own pipeline on the same modules."""
    from transformers import CLIPTokenizer

    files = {"vocab": str(text.FOLDER / "vocab.json"), "merges": str(text.FOLDER / "merges.txt")}
    tokenizers = [CLIPTokenizer(**files, model_max_length=77, pad_token=pad) for pad in ("<|endoftext|>", "!")]
    schedule = family.schedule
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="trailing" if schedule.ztsnr else "leading",
        rescale_betas_zero_snr=schedule.ztsnr,
        prediction_type="v_prediction" if schedule.prediction == "v" else "epsilon",
    )
    pipe = diffusers.StableDiffusionXLPipeline(
        family.vae,
        *family.text_encoders,
        *tokenizers,
        family.unet,
        scheduler,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(family, request, lora=None):
    """diffusers' latent for a request, with a LoRA file loaded by its own `load_lora_weights`."""
    pipe = pipeline(family)
    if lora:
        pipe.load_lora_weights(str(lora.parent), weight_name=lora.name)
    return pipe(
        request.prompt,
        negative_prompt=request.negative,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.cfg,
        guidance_rescale=request.rescale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
    ).images


@pytest.mark.parametrize("changes", [{}, {"cfg": 1.0}, {"negative": "", "seed": 1, "width": 96, "height": 96}])
def test_the_same_seed_is_diffusers_picture(family, changes):
    request = replace(SMALL, **changes)
    torch.testing.assert_close(draw_latents(family, [request]), theirs(family, request), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_a_v_prediction_model_with_zero_terminal_snr_is_diffusers_too(velocity_family, rescale):
    request = replace(SMALL, rescale=rescale)
    ours, expected = draw_latents(velocity_family, [request]), theirs(velocity_family, request)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_pixels_are_diffusers(family):
    image = pipeline(family)(
        SMALL.prompt,
        negative_prompt=SMALL.negative,
        width=64,
        height=32,
        num_inference_steps=5,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    (ours,) = draw(family, [SMALL])
    assert ours.size == image.size == (64, 32)
    assert np.abs(np.asarray(ours, int) - np.asarray(image, int)).max() <= 1


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m"])
def test_a_picture_does_not_depend_on_its_batch(family, sampler):
    wanted = [
        replace(SMALL, sampler=sampler),
        replace(SMALL, sampler=sampler, seed=8, cfg=7.0, rescale=0.5),
        replace(SMALL, sampler=sampler, prompt="a blue boat", negative="", seed=9),
    ]
    together = draw_latents(family, wanted)
    alone = torch.cat([draw_latents(family, [request]) for request in wanted])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_order_and_sizes_survive_batching(family):
    wanted = [
        SMALL,
        replace(SMALL, width=32),
        replace(SMALL, seed=8),
        replace(SMALL, prompt=LONG),
        replace(SMALL, cfg=1.0),
        replace(SMALL, sampler="euler_a"),
    ]
    seen = []
    pictures = draw(family, wanted, batch=4, on_step=lambda done, total: seen.append((done, total)))
    assert [picture.size for picture in pictures] == [(64, 32), (32, 32), *[(64, 32)] * 4]
    for request, picture in zip(wanted, pictures, strict=True):
        (alone,) = draw(family, [request])
        assert np.abs(np.asarray(alone, int) - np.asarray(picture, int)).max() <= 1
    assert seen == [
        (step, 25) for step in range(1, 26)
    ]  # five batches: of one size, sampler, length, with or without guidance


def test_a_prompt_of_more_than_75_tokens_is_heard_to_its_end(family):
    one, other = (draw_latents(family, [replace(SMALL, prompt=LONG + end)]) for end in (", a fox", ", a boat"))
    assert (one - other).abs().max() > 1e-4


def test_cfg_of_one_asks_the_unet_once_a_picture_and_ignores_the_negative(family, monkeypatch):
    sizes = []
    predict = family.predict
    monkeypatch.setattr(family, "predict", lambda x, *rest: sizes.append(len(x)) or predict(x, *rest), raising=True)
    draw_latents(family, [SMALL])
    draw_latents(family, [replace(SMALL, cfg=1.0)])
    assert sizes == [2] * 5 + [1] * 5


def test_time_ids_say_the_picture_is_whole(family, monkeypatch):
    seen = []
    predict = family.predict
    monkeypatch.setattr(family, "predict", lambda x, t, c, ids: seen.append(ids) or predict(x, t, c, ids))
    draw_latents(family, [replace(SMALL, steps=1)])
    assert seen[0].tolist() == [[32, 64, 0, 0, 32, 64]] * 2


def test_no_gradient_is_kept_though_an_adapter_wants_one():
    family = tiny_family()
    family.unet.conv_in.weight.requires_grad_(True)
    assert not draw_latents(family, [replace(SMALL, steps=1)]).requires_grad


def test_fresh_noise_is_another_each_step_and_the_requests_own(family, monkeypatch):
    drawn = []

    def record(denoise, x, sigmas, draw):
        drawn.append([draw(0), draw(1)])
        return x

    monkeypatch.setattr(generate, "samplers", {"euler": record})
    draw_latents(family, [SMALL, replace(SMALL, seed=8)])
    draw_latents(family, [replace(SMALL, seed=8)])
    (first, second), (alone, _) = drawn
    assert (first - second).abs().max() > 1 and (first[0] - first[1]).abs().max() > 1
    assert torch.equal(first[1:], alone)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"width": 60}, "width = 60: must be a positive multiple of 8"),
        ({"height": 0}, "height = 0: must be a positive"),
        ({"cfg": -1.0}, "cfg = -1"),
        ({"rescale": 1.5}, "rescale = 1.5: must be from 0 to 1"),
        ({"steps": 0}, "steps = 0: must be from 1 to 999"),
        ({"sampler": "ddim"}, "unknown sampler 'ddim'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_drawn(family, changes, match):
    with pytest.raises(UserError, match=match):
        draw(family, [SMALL, replace(SMALL, **changes)], on_step=lambda done, total: pytest.fail("drew something"))


def test_a_nan_latent_is_an_error_not_a_black_picture(family):
    with pytest.raises(UserError, match="NaN"):
        decode(family, torch.full((1, 4, 4, 4), float("nan")))


def test_pixels_to_bytes_by_hand():
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).expand(3, 1, 5)
    assert [to_picture(pixels).getpixel((x, 0)) for x in range(5)] == [(v, v, v) for v in (0, 0, 128, 255, 255)]
