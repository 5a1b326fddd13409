"""Prompts to text states: literal token ids, and parity with diffusers' SDXL pipeline."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from lorakiln.families.sdxl import text


def diffusers_tokenizer(pad: str) -> CLIPTokenizer:
    return CLIPTokenizer(
        vocab=str(text.FOLDER / "vocab.json"),
        merges=str(text.FOLDER / "merges.txt"),
        pad_token=pad,
        model_max_length=77,
    )


@pytest.fixture(scope="module")
def pipeline(family):
    """diffusers' pipeline around the same modules."""
    return StableDiffusionXLPipeline(
        vae=family.vae,
        text_encoder=family.text_encoders[0],
        text_encoder_2=family.text_encoders[1],
        tokenizer=diffusers_tokenizer("<|endoftext|>"),
        tokenizer_2=diffusers_tokenizer("!"),
        unet=family.unet,
        scheduler=None,
    )


def test_the_shipped_vocabulary_gives_clips_token_ids(family):
    tokens = family.tokenize(["a photo of a cat"])
    assert tokens.first_BNT.tolist() == [[[49406, 320, 1125, 539, 320, 2368, 49407] + [49407] * 70]]
    assert tokens.second_BNT.tolist() == [[[49406, 320, 1125, 539, 320, 2368, 49407] + [0] * 70]]


def test_capitals_spaces_and_marks_are_read_as_clip_reads_them(family):
    plain, odd = family.tokenize(["1girl, solo (cat:1.2) <lora:x>", "1girl,  SOLO (cat:1.2)   <lora:x> "]).first_BNT
    assert torch.equal(plain, odd)


def test_a_long_prompt_becomes_chunks_of_75_and_a_short_one_beside_it_gets_empty_chunks(family):
    tokens = family.tokenize(["cat " * 76, "cat " * 75, ""])
    assert tokens.first_BNT.shape == tokens.second_BNT.shape == (3, 2, 77)
    full = [49406, *[2368] * 75, 49407]
    empty = [49406, 49407, *[49407] * 75]
    assert tokens.first_BNT[0].tolist() == [full, [49406, 2368, 49407, *[49407] * 74]]
    assert tokens.first_BNT[1].tolist() == [full, empty]
    assert tokens.first_BNT[2].tolist() == [empty, empty]
    assert tokens.second_BNT[2, 1].tolist() == [49406, 49407, *[0] * 75]


def test_no_prompt_at_all_is_an_empty_batch(family):
    assert family.tokenize([]).first_BNT.shape == (0, 1, 77)


def test_rows_of_tokens_can_be_taken(family):
    tokens = family.tokenize(["a", "b", "c"])
    assert len(tokens) == 3
    assert torch.equal(tokens[1:].first_BNT, family.tokenize(["b", "c"]).first_BNT)


def test_states_equal_diffusers_encode_prompt(family, pipeline):
    prompts = ["a photo of a cat", "", "1girl, solo, masterpiece " * 3]
    with torch.no_grad():
        states = family.encode_text(family.tokenize(prompts))
        context, _, pooled, _ = pipeline.encode_prompt(
            prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    assert states.context_BTC.shape == (3, 77, 64)
    torch.testing.assert_close(states.context_BTC, context, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(states.pooled_BC, pooled, atol=1e-6, rtol=1e-5)


def test_a_long_prompt_is_its_chunks_joined_and_pools_the_first(family):
    first, second = "cat " * 75, "a red dog"
    with torch.no_grad():
        long = family.encode_text(family.tokenize([first + second]))
        apart = family.encode_text(family.tokenize([first, second]))
    assert long.context_BTC.shape == (1, 154, 64)
    torch.testing.assert_close(long.context_BTC[0], apart.context_BTC.reshape(154, 64))
    torch.testing.assert_close(long.pooled_BC[0], apart.pooled_BC[0])


def test_the_penultimate_layer_is_read_and_not_the_last(family):
    ids = family.tokenize(["a cat"])
    with torch.no_grad():
        states = family.encode_text(ids)
        hidden = family.text_encoders[0](ids.first_BNT[0], output_hidden_states=True).hidden_states
    assert torch.equal(states.context_BTC[..., :24], hidden[-2])
    assert not torch.allclose(states.context_BTC[..., :24], hidden[-1])


def test_gradients_reach_what_is_put_inside_the_encoders(family):
    extra = torch.zeros(24, requires_grad=True)
    layer = family.text_encoders[0].encoder.layers[0].mlp.fc2
    hook = layer.register_forward_hook(lambda module, args, out: out + extra)
    family.encode_text(family.tokenize(["a cat"])).context_BTC.square().sum().backward()
    hook.remove()
    assert extra.grad is not None
    assert extra.grad.abs().sum() > 0
