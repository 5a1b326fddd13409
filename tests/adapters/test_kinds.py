"""One battery over the table of adapters: files, merging, stacking, half precision, dropout, and LyCORIS's files."""

import pytest
import torch
from torch import nn

from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import read
from lorakiln.adapters.files.write import write
from lorakiln.adapters.inject import inject, inject_file
from lorakiln.adapters.lokr import split
from lorakiln.adapters.spec import AdapterSpec, RankRule
from lorakiln.base.errors import UserError
from tests.adapters.models import on_layer, predict, stir, tiny_unet, unet_names

COMMON = {"rank": 4, "alpha": 2.0, "conv_rank": 2, "conv_alpha": 1.0}
TABLE = {
    "lora": AdapterSpec(**COMMON),
    "lora per block": AdapterSpec(**COMMON, ranks=(RankRule("*middle*", 2, 3.0), RankRule("*attn1*", 6))),
    "lora rank-stabilised": AdapterSpec(**COMMON, rank_stabilised=True),
    "lora tucker": AdapterSpec(**COMMON, tucker=True),
    "loha": AdapterSpec(kind="loha", **COMMON),
    "loha tucker": AdapterSpec(kind="loha", **COMMON, tucker=True),
    "lokr": AdapterSpec(kind="lokr", **COMMON),
    "lokr full matrix": AdapterSpec(kind="lokr", **COMMON, full_matrix=True),
    "lokr tucker": AdapterSpec(kind="lokr", **COMMON | {"rank": 2}, tucker=True, factor=2),
    "lokr decomposed": AdapterSpec(kind="lokr", **COMMON | {"rank": 1, "conv_rank": 1}, decompose_both=True),
    "dora": AdapterSpec(**COMMON, dora=True),
    "dora tucker": AdapterSpec(**COMMON, dora=True, tucker=True),
    "dora loha": AdapterSpec(kind="loha", **COMMON, dora=True),
    "dora lokr": AdapterSpec(kind="lokr", **COMMON, dora=True, factor=4),
}


@pytest.fixture(params=TABLE)
def spec(request):
    return TABLE[request.param]


@pytest.fixture
def network(spec):
    made = stir(inject({"unet": tiny_unet()}, unet_names(), spec, 0), std=0.1)
    yield made
    made.remove()


def test_a_fresh_adapter_changes_nothing_and_then_learns(spec):
    with torch.no_grad():
        before = predict(tiny_unet())
    network = inject({"unet": tiny_unet()}, unet_names(), spec, 0)
    after = predict(tiny_unet())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    after.square().sum().backward()
    moved = {trained.module for trained in network.trained() if trained.parameter.grad.abs().sum() > 0}
    assert len(moved) == len(network.adapters), "every layer has a tensor that can leave its start"
    assert all(trained.parameter.abs().sum() == 0 for trained in network.trained() if trained.fast)
    assert any(trained.fast for trained in network.trained())
    network.remove()


@torch.no_grad()
def test_the_file_is_the_network(network, tmp_path):
    before = predict(tiny_unet())
    network.remove()
    write(tmp_path / "x.safetensors", network.state_dict(), {}, "fp32")
    tensors = to_kohya(read(tmp_path / "x.safetensors"), unet_names())
    loaded = inject_file({"unet": tiny_unet()}, unet_names(), tensors)
    torch.testing.assert_close(predict(tiny_unet()), before, rtol=1e-5, atol=1e-5)
    widths = [{a.place.name: (type(a), a.width.scale) for a in each.adapters} for each in (network, loaded)]
    assert widths[0].keys() == widths[1].keys()
    for name, (kind, scale) in widths[0].items():
        assert widths[1][name][0] is kind and widths[1][name][1] == pytest.approx(scale)
    loaded.remove()


@torch.no_grad()
def test_merged_equals_unmerged(network):
    network.strength = 0.8
    live = predict(tiny_unet())
    network.merge()
    torch.testing.assert_close(predict(tiny_unet()), live, rtol=2e-3, atol=2e-4)
    network.unmerge()
    assert torch.equal(predict(tiny_unet()), live)


@torch.no_grad()
def test_a_plain_lora_on_top_adds_its_change(network):
    base_and_one = predict(tiny_unet())
    second = stir(inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2), 1), seed=2)
    both = predict(tiny_unet())
    second.strength = 0
    assert torch.equal(predict(tiny_unet()), base_and_one)
    second.strength = 1
    for one, two in zip(network.adapters, _on_the_same_layers(network, second), strict=True):
        if two is not None and not one.place.is_conv:
            x = torch.randn(2, one.place.weight.shape[1])
            expected = one.place.product(
                x, one.place.weight + one.weight_change() + two.weight_change(), one.place.layer.bias
            )
            torch.testing.assert_close(one.place.layer(x), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(both, base_and_one)
    second.remove()


def _on_the_same_layers(first, second):
    by_name = {adapter.place.name: adapter for adapter in second.adapters}
    return [by_name.get(adapter.place.name) for adapter in first.adapters]


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name].dora])
def test_a_half_precision_base_hears_changes_below_its_rounding(name):
    """Weights of one and inputs that cancel: all of the output is the change, and 1 + change rounds to 1 in bf16.

    Not of DoRA, whose magnitude scales the base itself, in the base's precision.
    """
    spec = TABLE[name]
    layer = nn.Linear(32, 24, bias=False).bfloat16()
    nn.init.ones_(layer.weight)
    holder, network = on_layer(layer, AdapterSpec(**{**_fields(spec), "targets": ("*",)}))
    (adapter,) = network.adapters
    network.strength = 1e-3 / adapter.weight_change().abs().max().item()
    half = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    x = torch.cat([half, -half], 1)
    expected = x.float() @ adapter.weight_change().detach().t()
    torch.testing.assert_close(holder.layer(x).float(), expected, rtol=0, atol=0.03 * expected.abs().max().item())


def _fields(spec):
    return {name: getattr(spec, name) for name in spec.__slots__ if name != "ranks"}


def test_loading_another_kind_says_so(network):
    other = AdapterSpec(kind="loha" if network.spec.kind != "loha" else "lora", rank=4)
    second = inject({"unet": tiny_unet()}, unet_names(), other, 0)
    with pytest.raises(UserError, match="another kind"):
        second.load_state_dict(network.state_dict())
    second.remove()


@pytest.mark.parametrize(("size", "factor", "expected"), [
    (127, -1, (1, 127)), (128, -1, (8, 16)), (128, 2, (2, 64)), (250, 4, (2, 125)), (250, 8, (5, 50)),
    (250, -1, (10, 25)),
    (360, 8, (8, 45)), (512, 16, (16, 32)), (1024, -1, (32, 32)), (640, -1, (20, 32)), (12, 6, (2, 6)),
])  # fmt: skip
def test_lokr_splits_sizes_as_lycoris_documents(size, factor, expected):
    assert split(size, factor) == expected


def test_lokr_splits_sizes_as_lycoris_does():
    from lycoris.functional.general import factorization

    for size in (*range(1, 80), 320, 640, 1280, 2048, 2816):
        for factor in (-1, 2, 3, 4, 5, 8, 16, 100):
            assert split(size, factor) == factorization(size, factor), (size, factor)


# LyCORIS's preset and arguments, and the same as a spec of ours
ATTENTION, CONVOLUTIONS = "attn-mlp", "unet-convblock-only"
WIDTH = {"rank": 4, "alpha": 2.0, "conv_rank": 2, "conv_alpha": 1.0}
LYCORIS = {
    "lora": (ATTENTION, {"algo": "locon"}, AdapterSpec(rank=4, alpha=2)),
    "locon": (CONVOLUTIONS, {"algo": "locon"}, AdapterSpec(**WIDTH)),
    # LyCORIS cannot read the (1, in) that it writes for this: it always builds the other axis
    "dora": (ATTENTION, {"algo": "locon", "dora_wd": "True", "wd_on_output": "False"}, None),
    "dora on outputs": (
        CONVOLUTIONS,
        {"algo": "locon", "dora_wd": "True"},
        AdapterSpec(**WIDTH, dora=True, dora_axis="output"),
    ),
    "loha": (ATTENTION, {"algo": "loha"}, AdapterSpec(kind="loha", **WIDTH)),
    "tucker loha": (
        CONVOLUTIONS,
        {"algo": "loha", "use_tucker": "True"},
        AdapterSpec(kind="loha", **WIDTH, tucker=True),
    ),
    "lokr": (CONVOLUTIONS, {"algo": "lokr", "factor": "4"}, AdapterSpec(kind="lokr", **WIDTH, factor=4)),
    "tucker locon": (CONVOLUTIONS, {"algo": "locon", "use_tucker": "True"}, AdapterSpec(**WIDTH, tucker=True)),
    # nor these two: it takes the rank, and the factor of a convolution, from the wrong dimensions
    "tucker lokr": (CONVOLUTIONS, {"algo": "lokr", "use_tucker": "True", "factor": "2"}, None),
    "decomposed lokr": (CONVOLUTIONS, {"algo": "lokr", "decompose_both": "True", "factor": "16"}, None),
    "whole lokr": (
        CONVOLUTIONS,
        {"algo": "lokr", "full_matrix": "True"},
        AdapterSpec(kind="lokr", **WIDTH, full_matrix=True),
    ),
    "dora loha": (
        CONVOLUTIONS,
        {"algo": "loha", "dora_wd": "True"},
        AdapterSpec(kind="loha", **WIDTH, dora=True, dora_axis="output"),
    ),
    "dora lokr": (
        CONVOLUTIONS,
        {"algo": "lokr", "dora_wd": "True", "factor": "4"},
        AdapterSpec(kind="lokr", **WIDTH, factor=4, dora=True, dora_axis="output"),
    ),
}


@pytest.fixture
def silent_lycoris(monkeypatch):
    """LyCORIS's network on the tiny UNet, made by its kohya front, taken off afterwards."""
    import lycoris.kohya as kohya

    made = []

    def create(preset, arguments):
        widths = {"conv_dim": 2, "conv_alpha": 1, "preset": preset}
        network = kohya.create_network(1.0, 4, 2.0, None, [], tiny_unet(), **widths, **arguments)
        network.apply_to([], tiny_unet(), False, True)
        network.eval()
        made.append(network)
        return network

    yield create
    for network in made:
        network.restore()
    clean()


def clean():
    """LyCORIS leaves a forward on each module that it was taken off."""
    for module in tiny_unet().modules():
        module.__dict__.pop("forward", None)


@pytest.mark.filterwarnings("ignore:adapter.dora_axis")
@pytest.mark.parametrize("name", LYCORIS)
def test_files_of_lycoris_load_here_and_the_other_way_round(name, silent_lycoris, tmp_path):
    preset, arguments, spec = LYCORIS[name]
    theirs = silent_lycoris(preset, arguments)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += torch.randn(parameter.shape, generator=rng) * 0.05
        expected = predict(tiny_unet())
        theirs.save_weights(str(tmp_path / "theirs.safetensors"), torch.float32, {})
        theirs.restore()
        file = read(tmp_path / "theirs.safetensors")
        names = {"unet": _all_names()}
        ours = inject_file({"unet": tiny_unet()}, names, to_kohya(file, names))
        torch.testing.assert_close(predict(tiny_unet()), expected, rtol=1e-3, atol=1e-4)
        ours.remove()
        if spec is None:
            return
        # and back: our file under diffusers' paths, which LyCORIS uses for a diffusers UNet
        paths = {path: "lora_unet_" + path.replace(".", "_") for path in unet_names()["unet"]}
        own = stir(inject({"unet": tiny_unet()}, {"unet": paths}, spec, 3), std=0.1)
        expected = predict(tiny_unet())
        own.remove()
        write(tmp_path / "ours.safetensors", own.state_dict(), {}, "fp32")
    _loads_in_lycoris(tmp_path / "ours.safetensors", expected)


def _all_names():
    """kohya's names of the default layers; LyCORIS also adapts the first and last ones, here by their path."""
    paths = {path for path, module in tiny_unet().named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    return {path: "lora_unet_" + path.replace(".", "_") for path in paths} | unet_names()["unet"]


@torch.no_grad()
def _loads_in_lycoris(path, expected):
    import lycoris.kohya as kohya

    network, weights = kohya.create_network_from_weights(1.0, str(path), None, [], tiny_unet())
    network.apply_to([], tiny_unet(), False, True)
    try:
        network.load_state_dict(weights, strict=False)
        network.eval()
        torch.testing.assert_close(predict(tiny_unet()), expected, rtol=1e-3, atol=1e-4)
    finally:
        network.restore()
        clean()


def test_lokr_takes_an_input_whose_rows_are_not_contiguous():
    """A transposed view, as attention hands it over, gives what its contiguous copy gives, backward too."""
    root = nn.Sequential(nn.Linear(12, 8)).requires_grad_(False)
    spec = AdapterSpec(kind="lokr", rank=1, alpha=1.0, factor=2, targets=("*",))
    network = inject({"unet": root}, {"unet": {"0": "lora_unet_0"}}, spec, seed=0)
    for tensor in network.parameters_by_part()["unet"]:
        tensor.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    strided = torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(2)).transpose(1, 2).requires_grad_()
    outputs = [root(strided), root(strided.detach().contiguous().requires_grad_())]
    torch.testing.assert_close(outputs[0], outputs[1])
    gradients = []
    for output in outputs:
        network.parameters_by_part()["unet"][0].grad = None
        output.transpose(1, 2).square().sum().backward()
        gradients.append(network.parameters_by_part()["unet"][0].grad.clone())
    torch.testing.assert_close(*gradients)
