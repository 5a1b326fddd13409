"""Memory and arithmetic counted from shapes, against real modules and against figures counted on SDXL."""

import dataclasses

import pytest

from lorakiln.advise import shapes
from lorakiln.advise.base_model import look_at, shipped
from lorakiln.advise.cards import CARDS, card, parse_line
from lorakiln.advise.estimate import (
    adapted,
    adapter_weights,
    duration,
    flops,
    largest_batch,
    memory,
    price,
    with_gradients,
)
from lorakiln.base.errors import UserError
from tests.advise.cases import base, pictures, recipe


def test_sdxls_parameters_are_counted_to_the_last_one():
    config = shipped("unet")
    assert shapes.unet_weights(config) + shapes.transformer_norms(config) == 2_567_463_684


@pytest.mark.parametrize(
    ("adapter", "text", "expected"),
    [
        ({"rank": 16}, 0.0, 42_557_440),
        ({"rank": 16, "conv_rank": 16}, 0.0, 49_187_840),
        ({"rank": 16}, 1e-5, 57_008_128),
    ],
)
def test_the_adapters_numbers_are_those_counted_on_the_real_model(adapter, text, expected):
    made = recipe(adapter=adapter, optim={"text_lr": text})
    layers = adapted(made, base(), shapes.unet(shipped("unet"), 128, 128))
    assert sum(adapter_weights(made, layer) for layer in layers) == expected


# GiB at 1024 pixels, rank 16, AdamW, with and without checkpointing: counted with fake tensors on the real UNet
COUNTED = {(1, True): 7.4, (3, True): 10.0, (4, True): 11.5, (1, False): 12.4, (3, False): 25.1, (4, False): 31.5}


@pytest.mark.parametrize(("batch", "checkpointing"), COUNTED)
def test_memory_is_within_a_tenth_of_the_counted_figures(batch, checkpointing):
    made = recipe(train={"batch": batch, "checkpointing": checkpointing})
    need = memory(made, base())
    counted = need.training - need.text - need.vae  # the figures leave out what training itself does not use
    assert counted == pytest.approx(COUNTED[batch, checkpointing], rel=0.03)


def test_what_samples_and_shuffled_captions_need_is_on_the_card_too():
    """Text encoders (817 million weights) and VAE (84 million in fp32) are never taken off it."""
    need = memory(recipe(), base())
    assert need.text == pytest.approx(1.52, abs=0.01) and need.vae == pytest.approx(0.31, abs=0.01)
    assert need.training > need.base + need.text + need.vae


def test_each_phase_is_counted_with_what_it_needs():
    made = {"train": {"checkpointing": True}, "adapter": {"rank": 64}}
    kept, anew = (memory(recipe(cache={"latents": where}, **made), base()) for where in ("disk", "off"))
    assert anew.caching - kept.caching == pytest.approx(anew.optimizer), "pictures are encoded between steps"
    assert kept.sampling == 0
    drawing = memory(recipe(sample={"prompts": ["x"], "width": 1536, "height": 1536}, **made), base())
    assert drawing.total == drawing.sampling > drawing.training, "a large sample is the fullest moment"


@pytest.mark.parametrize(("checkpointing", "counted"), [(False, 14.74e12), (True, 20.87e12)])
def test_arithmetic_is_within_a_tenth_of_the_counted_figures(checkpointing, counted):
    assert flops(recipe(train={"checkpointing": checkpointing}), base()) == pytest.approx(counted, rel=0.02)


def family_and_facts(tmp_path):
    from tests.tiny import tiny_family, tiny_sdxl_file

    return tiny_family(), look_at(str(tiny_sdxl_file(tmp_path / "tiny.safetensors")))


KINDS = [
    {"rank": 4}, {"rank": 4, "conv_rank": 2}, {"rank": 4, "kind": "loha", "conv_rank": 2}, {"rank": 4, "dora": True},
    {"rank": 4, "kind": "lokr"}, {"rank": 2, "kind": "lokr", "decompose_both": True, "factor": 4},
    {"rank": 4, "kind": "lokr", "full_matrix": True, "conv_rank": 1}, {"rank": 4, "conv_rank": 2, "tucker": True},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_every_kind_of_adapter_is_counted_as_it_is_built(options, tmp_path):
    from lorakiln.adapters.inject import inject
    from lorakiln.adapters.spec import AdapterSpec

    family, facts = family_and_facts(tmp_path)
    made = recipe(adapter=options, optim={"text_lr": 1e-5})
    spec = AdapterSpec(**options, alpha=4.0)
    names = {part: family.module_names(part, conv=bool(spec.conv_rank)) for part in family.parts}
    network = inject(family.parts, names, spec, 0)
    built = sum(one.numel() for group in network.parameters_by_part().values() for one in group)
    layers = adapted(made, facts, shapes.unet(facts.unet, 8, 8))
    assert sum(adapter_weights(made, layer) for layer in layers) == built


def test_the_tiny_models_parameters_are_counted_too(tmp_path):
    family, facts = family_and_facts(tmp_path)
    counted = shapes.unet_weights(facts.unet) + shapes.transformer_norms(facts.unet)
    assert counted == sum(one.numel() for one in family.unet.parameters())
    for config, encoder in zip(facts.text, family.text_encoders, strict=True):
        real = sum(one.numel() for one in encoder.parameters())
        assert shapes.text_weights(config) == pytest.approx(real, rel=0.02)


def test_what_the_forward_keeps_is_what_autograd_saves(tmp_path):
    """On the tiny model in fp32: every tensor that autograd saves, counted once."""
    import torch

    from lorakiln.adapters.inject import inject
    from lorakiln.adapters.spec import AdapterSpec
    from lorakiln.families.family import TextStates

    family, facts = family_and_facts(tmp_path)
    network = inject({"unet": family.unet}, {"unet": family.module_names("unet")}, AdapterSpec(rank=4, alpha=4.0), 0)
    weights = {one.data_ptr() for one in family.unet.parameters()}
    weights |= {one.data_ptr() for group in network.parameters_by_part().values() for one in group}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and tensor.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes() // tensor.element_size(), tensor)
        return tensor

    rng = torch.Generator().manual_seed(0)
    side = 32
    text = TextStates(torch.randn(1, 77, 64, generator=rng), torch.randn(1, 40, generator=rng))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        family.predict(torch.randn(1, 4, side, side, generator=rng), torch.tensor([500]), text, torch.zeros(1, 6))
    counted = sum(unit.kept for unit in with_gradients(shapes.unet(facts.unet, side, side), conv=False))
    assert counted == pytest.approx(sum(count for count, _ in kept.values()), rel=0.05)


def test_more_of_anything_needs_more():
    plain = memory(recipe(), base()).total
    for tables in ({"train": {"batch": 2}}, {"adapter": {"rank": 64}}, {"optim": {"text_lr": 1e-5}},
                   {"train": {"precision": "fp32"}}, {"optim": {"name": "prodigy"}}):  # fmt: skip
        assert memory(recipe(**tables), base()).total > plain
    assert memory(recipe(train={"checkpointing": True}), base()).training < plain
    assert memory(recipe(optim={"name": "adamw8bit"}), base()).total < plain


def test_the_largest_batch_fits_and_one_more_does_not():
    made = recipe(train={"checkpointing": True})
    for vram in (8.0, 12.0, 24.0):
        best = largest_batch(made, base(), vram)
        needs = [
            memory(recipe(train={"checkpointing": True, "batch": n}), base()).total for n in (max(1, best), best + 1)
        ]
        assert [need <= 0.95 * vram for need in needs] == [best > 0, False]
    assert largest_batch(made, base(), 6.0) == 0


def test_time_and_cost_follow_the_card_and_the_price():
    slow, fast = (duration(recipe(), base(), pictures(60), card(name)) for name in ("rtx3060", "h200"))
    assert slow.steps == fast.steps == 600 and slow.whole[0] > 5 * fast.whole[0]
    assert 0.64 <= slow.step[0] <= 0.8, "1.1 times 15 TFLOP at 25 TFLOP/s"
    low, high = price(slow, 0.5)
    assert low == pytest.approx(slow.whole[0] / 7200) and high > low
    short = duration(recipe(train={"steps": 100}), base(), pictures(60), card("rtx3060"))
    assert short.steps == 100 and short.steps * short.step[0] == pytest.approx(slow.steps * slow.step[0] / 6)


def test_samples_take_time_as_often_as_they_are_drawn():
    made = {"train": {"epochs": 10}, "sample": {"prompts": ["x", "y"], "epochs": 5}}
    base_facts, shown = base(), pictures(60)
    often = duration(recipe(**made), base_facts, shown, card("rtx3060")).samples
    rarely = duration(recipe(**made | {"sample": {"prompts": ["x", "y"]}}), base_facts, shown, card("rtx3060")).samples
    assert often[0] == pytest.approx(rarely[0] * 3 / 2), "before, in the middle, after"
    assert duration(recipe(), base_facts, shown, card("rtx3060")).samples == (0, 0)
    once = rarely[0] / 4  # one picture: 25 steps with and without the prompt, 6 TFLOP each, and decoding, at 25 TFLOP/s
    assert once == pytest.approx(1.1 * (50 * 6 + 40) / 25, rel=0.15)


def test_cards_are_found_as_people_write_them():
    assert card("RTX 4090") is card("rtx4090") is card("NVIDIA GeForce RTX 4090") is card("4090")
    with pytest.raises(UserError, match="did you mean"):
        card("rtx409")
    assert all(one.vram > 4 and one.bf16 == (one.capability >= (8, 0)) for one in CARDS.values())


def test_the_drivers_answer_is_read():
    one = parse_line("NVIDIA GeForce RTX 3060, 12288, 11000, 8.6, 550.54")
    assert (one.vram, one.capability, one.driver, one.known) == (12.0, (8, 6), "550.54", card("rtx3060"))
    assert parse_line("NVIDIA XYZ, 4096, 4000, [N/A], 1").known is None
    assert dataclasses.astuple(one)[0].startswith("NVIDIA")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "batch", "rank"), [((832, 1216), 2, 16), ((1024, 1024), 1, 64)])
def test_what_sdxl_keeps_is_what_a_trace_with_fake_tensors_keeps(size, batch, rank):
    """The whole real UNet with adapters, in bf16: every tensor that autograd would save, without computing any."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    from lorakiln.adapters.inject import inject
    from lorakiln.adapters.spec import AdapterSpec

    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16)  # fake modules cannot change theirs afterwards
        try:
            unet = UNet2DConditionModel(**shipped("unet")).requires_grad_(False)
        finally:
            torch.set_default_dtype(torch.float32)
        names = {path: f"lora_unet_{path.replace('.', '_')}" for path, _ in unet.named_modules() if path}
        network = inject({"unet": unet}, {"unet": names}, AdapterSpec(rank=rank, alpha=1.0), 0)
        trained = [one for group in network.parameters_by_part().values() for one in group]
        weights = {one.untyped_storage()._cdata for one in [*unet.parameters(), *trained]}
        kept = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if tensor.is_floating_point() and storage._cdata not in weights:
                kept[storage._cdata] = (storage.nbytes(), storage)
            return tensor

        latent = torch.randn(batch, 4, size[1] // 8, size[0] // 8, dtype=torch.bfloat16)
        added = {"text_embeds": torch.randn(batch, 1280).bfloat16(), "time_ids": torch.zeros(batch, 6).bfloat16()}
        text = torch.randn(batch, 77, 2048).bfloat16()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(latent, torch.zeros(batch).long(), text, added_cond_kwargs=added)
    made = recipe(adapter={"rank": rank}, train={"batch": batch})
    counted = memory(made, base(), size)
    assert sum(one.numel() for one in trained) == rank * 42_557_440 // 16
    assert counted.activations == pytest.approx(sum(bytes for bytes, _ in kept.values()) / 2**30, rel=0.05)
