"""Inspecting, resizing, merging, extracting and converting LoRA files gives the weights that it should."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lorakiln import families
from lorakiln.adapters.files.convert import to_diffusers
from lorakiln.adapters.files.extract import extract
from lorakiln.adapters.files.inspect import inspect
from lorakiln.adapters.files.merge import into_base, targets, together
from lorakiln.adapters.files.modules import modules
from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import AdapterFile, read
from lorakiln.adapters.files.resize import low_rank, resize, smallest_rank
from lorakiln.adapters.files.write import hashes, write
from lorakiln.adapters.inject import inject, inject_file
from lorakiln.adapters.spec import AdapterSpec, RankRule
from lorakiln.base.errors import UserError
from tests.adapters.models import predict, stir, tiny_unet, unet_inputs, unet_names
from tests.adapters.test_kinds import TABLE
from tests.tiny import tiny_family, tiny_sdxl_file

LOCON = AdapterSpec(rank=4, alpha=2, conv_rank=2, conv_alpha=1)


def made(spec, seed=0, std=0.1):
    """(state dict, the tiny UNet's prediction under it)."""
    network = stir(inject({"unet": tiny_unet()}, unet_names(), spec, seed), std=std, seed=seed)
    with torch.no_grad():
        prediction = predict(tiny_unet())
    network.remove()
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}, prediction, network


@torch.no_grad()
def prediction_of(tensors):
    network = inject_file({"unet": tiny_unet()}, unet_names(), tensors)
    try:
        return predict(tiny_unet())
    finally:
        network.remove()


@pytest.mark.parametrize("name", TABLE)
def test_a_module_of_a_file_has_the_matrix_and_norm_of_its_adapter(name):
    tensors, _, network = made(TABLE[name])
    adapters = {adapter.place.name: adapter for adapter in network.adapters}
    found = modules(tensors)
    assert len(found) == len(adapters)
    for module in found:
        adapter = adapters[module.name]
        delta = adapter.delta(adapter.tensors).detach().flatten(1)
        torch.testing.assert_close(module.matrix(), delta, rtol=1e-5, atol=1e-6)
        assert module.norm() == pytest.approx(delta.norm().item(), rel=1e-4)
        assert module.width.rank == adapter.width.rank or module.kind == "lokr"
        assert module.dora == (adapter.magnitude.axis if adapter.magnitude else "")


def test_inspection_says_what_is_in_the_file(tmp_path):
    tensors, _, _ = made(AdapterSpec(**{**vars_of(LOCON), "ranks": (RankRule("*attn1*", 8, 4.0),)}))
    tags = {"10_a": {"emoji": 30, "cat": 12}, "2_b": {"emoji": 10}}
    metadata = {"ss_tag_frequency": json.dumps(tags), "lorakiln.recipe": "{}", "ss_steps": "7", "sshs_model_hash": "x"}
    write(tmp_path / "x.safetensors", tensors, metadata, "bf16")
    file = read(tmp_path / "x.safetensors")
    found = inspect(file, to_kohya(file, unet_names()))
    assert found.kinds == {"lora": len(modules(tensors))} and found.parts == {"unet": len(modules(tensors))}
    assert set(found.ranks) == {2, 4, 8} and found.alphas.keys() == {1.0, 2.0, 4.0}
    assert found.tags == (("emoji", 1.0), ("cat", 0.3))
    assert found.recipe == "{}" and found.training["steps"] == "7"
    assert found.hash_matches is True and found.dtypes["bfloat16"] == 2 * len(modules(tensors))
    assert {"input_blocks_3", "middle_block_1", "output_blocks_0"} <= set(found.norms)
    square = sum(module.matrix().square().sum() for module in modules(file.tensors) if module.block == "middle_block_1")
    assert found.norms["middle_block_1"] == pytest.approx(square.sqrt().item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_inspection_reads_eight_bit_floats(dtype, tmp_path):
    tensors, _, _ = made(AdapterSpec(rank=4, targets=("*attn1*",)))
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, tmp_path / "x.safetensors")
    file = read(tmp_path / "x.safetensors")
    found = inspect(file, to_kohya(file, unet_names()))
    assert set(found.dtypes) == {str(dtype).removeprefix("torch.")} and set(found.ranks) == {4}
    assert all(norm > 0 for norm in found.norms.values())


def vars_of(spec):
    return {name: getattr(spec, name) for name in spec.__slots__}


def test_inspection_notices_other_weights_than_were_written():
    tensors, _, _ = made(LOCON)
    metadata = hashes(tensors, {})
    assert inspect(AdapterFile(tensors, metadata), tensors).hash_matches is True
    tensors[next(iter(sorted(tensors)))] += 1
    assert inspect(AdapterFile(tensors, metadata), tensors).hash_matches is False
    assert inspect(AdapterFile(tensors, {}), tensors).hash_matches is None


def test_blocks_are_named_as_kohya_numbers_them():
    names = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": "input_blocks_4",
        "lora_unet_middle_block_1_proj_in": "middle_block_1",
        "lora_te2_text_model_encoder_layers_31_mlp_fc1": "te2_layers_31",
    }
    held = {"lora_down.weight": torch.zeros(2, 3), "lora_up.weight": torch.zeros(4, 2)}
    for name, block in names.items():
        (module,) = modules({f"{name}.{suffix}": tensor for suffix, tensor in held.items()})
        assert module.block == block


def test_resizing_to_its_own_rank_changes_nothing():
    tensors, prediction, _ = made(LOCON)
    resized = resize(tensors, rank=64)
    assert all(value == pytest.approx(1) for value in resized.kept.values())
    torch.testing.assert_close(prediction_of(resized.tensors), prediction, rtol=1e-3, atol=1e-3)


def test_resizing_gives_the_best_approximation_of_its_rank():
    tensors, _, _ = made(AdapterSpec(rank=6, alpha=3, conv_rank=6, conv_alpha=3))
    resized = resize(tensors, rank=2)
    before, after = modules(tensors), modules(resized.tensors)
    for one, two in zip(before, after, strict=True):
        values = torch.linalg.svdvals(one.matrix())
        assert two.width.rank == 2 and two.width.scale == 1
        error = (one.matrix() - two.matrix()).norm()
        assert error == pytest.approx(values[2:].norm().item(), rel=1e-3)
        assert resized.kept[one.name] == pytest.approx(
            (values[:2].square().sum() / values.square().sum()).item(), rel=1e-4
        )


def test_resizing_by_energy_takes_the_least_rank_that_keeps_it():
    tensors, _, _ = made(AdapterSpec(rank=6, alpha=3))
    resized = resize(tensors, energy=0.8)
    for module in modules(tensors):
        shares = torch.linalg.svdvals(module.matrix()).square()
        shares = shares.cumsum(0) / shares.sum()
        rank = resized.ranks[module.name]
        assert shares[rank - 1] >= 0.8 - 1e-5 and (rank == 1 or shares[rank - 2] < 0.8)
    assert max(resize(tensors, rank=2, energy=0.99).ranks.values()) == 2


@pytest.mark.parametrize(("rank", "energy"), [(0, 0.0), (-1, 0.5), (4, 1.5)])
def test_resizing_wants_a_rank_or_an_energy(rank, energy):
    with pytest.raises(UserError, match="give a rank from 1"):
        resize({}, rank, energy)


def test_resizing_another_kind_is_refused():
    with pytest.raises(UserError, match="a loha cannot be resized"):
        resize(made(TABLE["loha"])[0], rank=2)


def test_smallest_rank_of_nothing_is_one():
    assert smallest_rank(torch.zeros(4), 0.9) == 1
    assert smallest_rank(torch.tensor([2.0, 1.0, 1.0]), 1.0) == 3
    assert smallest_rank(torch.tensor([2.0, 1.0, 1.0]), 4 / 6) == 1


def test_the_random_range_finder_is_as_good_as_the_exact_decomposition():
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(700, 40, generator=rng) @ torch.randn(40, 600, generator=rng)
    matrix += 0.01 * torch.randn(700, 600, generator=rng)
    left, values, right = low_rank(matrix, 16)
    exact = torch.linalg.svdvals(matrix)[:16]
    torch.testing.assert_close(values, exact, rtol=1e-2, atol=0)
    assert values.square().sum() > 0.998 * exact.square().sum()
    assert torch.equal(low_rank(matrix, 16)[1], values), "no draw that depends on anything but the seed"
    torch.testing.assert_close(left.mT @ left, torch.eye(16), rtol=0, atol=1e-4)
    assert right.shape == (16, 600)


def test_merged_loras_are_the_sum_of_their_changes():
    one, _, _ = made(LOCON, seed=1)
    two, _, _ = made(AdapterSpec(rank=3, targets=("*attn2*",)), seed=2)
    sums = {module.name: module.matrix() * 0.5 for module in modules(one)}
    for module in modules(two):
        sums[module.name] = sums[module.name] - 0.2 * module.matrix()
    for module in modules(together([(one, 0.5), (two, -0.2)])):
        torch.testing.assert_close(module.matrix(), sums[module.name], rtol=1e-4, atol=1e-5)
    assert {module.width.rank for module in modules(together([(one, 1), (two, 1)], rank=3))} == {2, 3}


@pytest.mark.parametrize("name", ["dora", "loha"])
def test_what_cannot_be_added_is_refused(name):
    with pytest.raises(UserError, match="merge it into a base instead"):
        together([(made(TABLE[name])[0], 1.0)])


PARTS = ("unet", "te1", "te2")


def whole_model(family):
    return {"unet": family.unet} | dict(zip(("te1", "te2"), family.text_encoders, strict=True))


@torch.no_grad()
def outputs(family):
    """The UNet's and both encoders' outputs of a family."""
    arguments = unet_inputs() | {"encoder_hidden_states": torch.ones(2, 7, 64) * 0.1}
    ids = torch.arange(10)[None] + 5
    encoders = [encoder(ids, output_hidden_states=True).hidden_states[-1] for encoder in family.text_encoders]
    return [family.unet(**arguments, return_dict=False)[0], *encoders]


@pytest.mark.parametrize("name", ["lora", "dora", "dora loha", "lokr"])
def test_a_lora_merged_into_a_single_file_is_the_lora(name, tmp_path):
    base = tiny_sdxl_file(tmp_path / "base.safetensors", dtype=torch.float32)
    family = families.load(base, dtype=torch.float32)
    names = {part: family.module_names(part, conv=True) for part in PARTS}
    network = stir(inject(whole_model(family), names, TABLE[name], 0), std=0.1)
    network.strength = 0.7
    expected = outputs(family)
    count = into_base(base, [(network.state_dict(), 0.7)], tmp_path / "merged.safetensors")
    assert count == len(network.adapters)
    network.remove()
    merged = families.load(tmp_path / "merged.safetensors", dtype=torch.float32)
    for mine, right, before in zip(outputs(merged), expected, outputs(family), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(before, right, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_of_several_doras_is_reckoned_from_the_bases_own_weight(dtype, tmp_path):
    base = tiny_sdxl_file(tmp_path / "base.safetensors", dtype=dtype)
    family = families.load(base, dtype=torch.float32)
    unet, names = {"unet": family.unet}, {"unet": family.module_names("unet", conv=True)}
    spec = AdapterSpec(rank=2, dora=True, targets=("*attn1*",))
    first, second = (stir(inject(unet, names, spec, seed), std=0.2, seed=seed) for seed in (1, 2))
    second.strength = 0.5
    with torch.no_grad():
        pairs = zip(first.adapters, second.adapters, strict=True)
        right = {one.place.name: one.place.weight + one.weight_change() + two.weight_change() for one, two in pairs}
    loras = [(first.state_dict(), 1.0), (second.state_dict(), 0.5)]
    assert into_base(base, loras, tmp_path / "merged.safetensors") == 2 * len(right)
    merged = load_file(tmp_path / "merged.safetensors")
    found = {name: merged[key] for key in merged for name, _ in targets(key) if name in right}
    assert found.keys() == right.keys()
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-6}
    for name, weight in right.items():
        torch.testing.assert_close(found[name].float(), weight, **near)


def test_a_sum_that_the_base_cannot_hold_is_refused(tmp_path):
    base = tiny_sdxl_file(tmp_path / "base.safetensors", dtype=torch.float16)
    name = "lora_unet_middle_block_1_proj_in"
    tensors = {f"{name}.lora_down.weight": torch.ones(1, 64), f"{name}.lora_up.weight": torch.full((64, 1), 1e5)}
    with pytest.raises(UserError, match=r"middle_block\.1\.proj_in\.weight: .* too large for the base's float16"):
        into_base(base, [(tensors, 1.0)], tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["base.safetensors"]


def test_merging_says_what_is_wrong(tmp_path):
    base = tiny_sdxl_file(tmp_path / "base.safetensors")
    tensors = {
        "lora_unet_nowhere.lora_down.weight": torch.ones(1, 4),
        "lora_unet_nowhere.lora_up.weight": torch.ones(4, 1),
    }
    with pytest.raises(UserError, match="has no layer lora_unet_nowhere"):
        into_base(base, [(tensors, 1.0)], tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["base.safetensors"]
    (tmp_path / "half.safetensors").write_bytes(base.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a whole safetensors"):
        into_base(tmp_path / "half.safetensors", [(tensors, 1.0)], tmp_path / "out.safetensors")


def test_every_layer_that_kohya_trains_has_its_place_in_a_single_file(tmp_path):
    base = load_file(tiny_sdxl_file(tmp_path / "base.safetensors"))
    found = {name for key in base for name, _ in targets(key)}
    family = tiny_family()
    assert {name for part in PARTS for name in family.module_names(part, conv=True).values()} <= found


def test_a_lora_extracted_from_two_files_is_the_difference(tmp_path):
    base = tiny_sdxl_file(tmp_path / "base.safetensors", dtype=torch.float32)
    family = tiny_family()
    names = {part: family.module_names(part, conv=True) for part in PARTS}
    network = stir(inject(whole_model(family), names, AdapterSpec(rank=3, alpha=6, conv_rank=2), 0), std=0.1)
    network.remove()
    into_base(base, [(network.state_dict(), 1.0)], tmp_path / "tuned.safetensors")
    wanted = {adapter.place.name: adapter.delta(adapter.tensors).detach().flatten(1) for adapter in network.adapters}
    found = extract(base, tmp_path / "tuned.safetensors", wanted, rank=3, conv_rank=2)
    assert min(found.kept.values()) > 0.9999
    for module in modules(found.tensors):
        torch.testing.assert_close(module.matrix(), wanted[module.name], rtol=1e-3, atol=1e-4)
    assert len(modules(found.tensors)) == len(wanted)
    few = extract(base, tmp_path / "tuned.safetensors", wanted, rank=3, energy=0.6)
    assert all(share >= 0.6 - 1e-3 for share in few.kept.values())
    assert len(few.tensors) < len(found.tensors), "without conv_rank the 3x3 kernels are left out"
    assert not extract(base, base, wanted, rank=3).tensors
    with pytest.raises(UserError, match="has no layer nowhere"):
        extract(base, base, ["nowhere"], rank=3)


@pytest.fixture
def fresh_unet():
    """A UNet of its own, since peft changes the modules of the one it is put on."""
    return copy.deepcopy(tiny_unet())


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=str)
@pytest.mark.parametrize("prefix", ["unet.", ""])
@torch.no_grad()
def test_files_of_diffusers_load_here(options, prefix, fresh_unet, tmp_path):
    from peft import LoraConfig, get_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=2, target_modules=["to_q", "to_k", "ff.net.2", "conv1"], **options)
    fresh_unet.add_adapter(config)
    rng = torch.Generator().manual_seed(0)
    for name, parameter in fresh_unet.named_parameters():
        if "lora_" in name:
            parameter += torch.randn(parameter.shape, generator=rng) * 0.1
    expected = predict(fresh_unet)
    state = {prefix + name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(fresh_unet).items()}
    told = {prefix + key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    save_file(state, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(told, default=str)})
    tensors = to_kohya(read(tmp_path / "x.safetensors"), unet_names())
    torch.testing.assert_close(prediction_of(tensors), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("part", ["unet", "te1", "te2"])
@torch.no_grad()
def test_what_peft_saves_loads_here_at_its_scale(part, tmp_path):
    from peft import LoraConfig, get_peft_model

    family = tiny_family()
    model, names = family.parts[part], {each: family.module_names(each, conv=True) for each in PARTS}

    def output():
        if part == "unet":
            return family.unet(**unet_inputs() | {"encoder_hidden_states": torch.ones(2, 7, 64) * 0.1}).sample
        return model(torch.arange(10)[None] + 5, output_hidden_states=True).hidden_states[-1]

    others = {"attn2.to_q|1.self_attn.q_proj": 6}
    names_of = ["to_q", "q_proj", "fc1"]
    config = LoraConfig(r=4, lora_alpha=32, alpha_pattern=others, target_modules=names_of, use_rslora=True)
    peer = get_peft_model(model, config)
    rng = torch.Generator().manual_seed(0)
    for name, parameter in peer.named_parameters():
        if "lora_" in name:
            parameter += torch.randn(parameter.shape, generator=rng) * 0.05
    expected = output()
    peer.save_pretrained(tmp_path)
    peer.unload()
    tensors = to_kohya(read(tmp_path / "adapter_model.safetensors"), names)
    inject_file(family.parts, names, tensors)
    torch.testing.assert_close(output(), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_files_converted_for_diffusers_load_there_and_come_back(fresh_unet, tmp_path):
    spec = AdapterSpec(rank=4, alpha=2, conv_rank=2, conv_alpha=1, ranks=(RankRule("*attn1*", 6, 9.0),))
    tensors, expected, _ = made(spec)
    converted, metadata = to_diffusers(tensors, unet_names())
    save_file(converted, tmp_path / "x.safetensors", metadata)
    file = read(tmp_path / "x.safetensors")
    torch.testing.assert_close(prediction_of(to_kohya(file, unet_names())), expected, rtol=1e-3, atol=1e-3)
    told = json.loads(file.metadata["lora_adapter_metadata"])
    fresh_unet.load_lora_adapter(dict(file.tensors), prefix="unet", metadata=told)
    torch.testing.assert_close(predict(fresh_unet), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"), [("loha", "no loha"), ("lora tucker", "Tucker"), ("dora", "output axis only")]
)
def test_what_diffusers_cannot_express_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        to_diffusers(made(TABLE[name])[0], unet_names())


@pytest.mark.filterwarnings("ignore:adapter.dora_axis")
def test_dora_over_outputs_converts():
    tensors, _, _ = made(AdapterSpec(rank=2, dora=True, dora_axis="output"))
    converted, metadata = to_diffusers(tensors, unet_names())
    back = to_kohya(AdapterFile(converted, metadata), unet_names())
    for name, tensor in tensors.items():
        if name.endswith("dora_scale"):
            assert torch.equal(back[name], tensor)


def test_a_layer_that_was_never_adapted_has_no_forward_of_its_own():
    assert not any("forward" in module.__dict__ for module in tiny_unet().modules() if isinstance(module, nn.Module))
