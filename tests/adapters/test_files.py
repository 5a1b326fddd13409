"""LoRA files: equal content is equal bytes, other programs' names are understood, and bad files get one clear line."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakiln.adapters.files.metadata import Header, metadata
from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import AdapterFile, read
from lorakiln.adapters.files.write import write
from lorakiln.adapters.inject import inject, inject_file
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.errors import UserError
from lorakiln.families.header import read as read_header
from tests.adapters.models import predict, stir, tiny_unet, unet_names

TENSORS = {
    "b.lora_up.weight": torch.arange(6.0).reshape(3, 2) / 7,
    "a.lora_down.weight": torch.randn(3, 5, generator=torch.Generator().manual_seed(1)),
    "a.alpha": torch.tensor(1.1),
    "a.dora_scale": torch.tensor([[1.001, 0.999, 1.0]]),
}
HEADER = Header(
    recipe='base = "x"\n[adapter]\nrank = 4\n',
    adapter=AdapterSpec(rank=4, alpha=2),
    title="emoji",
    dataset_hash="d" * 64,
    base_name="starter",
    base_hash="b" * 64,
    steps=100,
    epoch=2,
    max_steps=200,
    num_epochs=4,
    seed=7,
    learning_rates={"unet": 1e-4},
    tag_frequency={"10_cat": {"cat": 3, "à la mode": 1}},
    trigger_phrase="emoji",
    settings={"noise_offset": 0.05, "min_snr_gamma": None},
)


@pytest.mark.parametrize(("dtype", "code"), [("fp32", "F32"), ("bf16", "BF16"), ("fp16", "F16")])
def test_a_written_file_is_read_by_safetensors_in_its_dtype(tmp_path, dtype, code):
    path = tmp_path / "x.safetensors"
    write(path, TENSORS, {"k": "v", "a": "ü"}, dtype)
    loaded = load_file(path)
    assert set(loaded) == set(TENSORS)
    for name, tensor in TENSORS.items():
        wide = name.endswith(("alpha", "dora_scale"))
        assert str(loaded[name].dtype) == "torch.float32" if wide else code in "F32 BF16 F16"
        torch.testing.assert_close(loaded[name].float(), tensor, rtol=0 if wide else 1e-2, atol=0)
        assert loaded[name].shape == tensor.shape
    with safe_open(path, "pt") as file:
        assert file.metadata()["a"] == "ü"
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert header["b.lora_up.weight"]["dtype"] == code and header["a.alpha"]["dtype"] == "F32"
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_every_tensor_starts_where_its_numbers_can_be_mapped(tmp_path):
    """An odd number of 2-byte weights before a 4-byte alpha would leave it between two numbers."""
    write(tmp_path / "x.safetensors", {"a.lora_up.weight": torch.ones(3, 1), "b.alpha": torch.tensor(2.0)}, {}, "bf16")
    content = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    sizes = {"BF16": 2, "F32": 4}
    assert all(
        held["data_offsets"][0] % sizes[held["dtype"]] == 0
        for name, held in header.items()
        if name in ("a.lora_up.weight", "b.alpha")
    )
    assert load_file(tmp_path / "x.safetensors")["b.alpha"] == 2


def test_equal_content_is_equal_bytes_whatever_the_order_or_the_process(tmp_path):
    write(tmp_path / "1.safetensors", TENSORS, {"a": "1", "b": "2", "c": "3"})
    write(tmp_path / "2.safetensors", dict(reversed(TENSORS.items())), {"c": "3", "b": "2", "a": "1"})
    script = (
        "import sys; from lorakiln.adapters.files.read import read; from lorakiln.adapters.files.write import write;"
        "f = read(sys.argv[1]); m = {k: v for k, v in f.metadata.items() if not k.startswith('sshs')};"
        "write(sys.argv[2], f.tensors, m)"
    )
    names = [str(tmp_path / "1.safetensors"), str(tmp_path / "3.safetensors")]
    environment = {**os.environ, "PYTHONHASHSEED": "12", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, *names], check=True, env=environment)
    first, second, third = ((tmp_path / f"{i}.safetensors").read_bytes() for i in (1, 2, 3))
    assert first == second == third


def test_the_hash_is_that_of_the_tensors_bytes(tmp_path):
    big = {"m.lora_down.weight": torch.randn(600, 1000)}
    write(tmp_path / "x.safetensors", big, {"ss_a": "1", "other": "2"}, "fp32")
    content = (tmp_path / "x.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    found = read(tmp_path / "x.safetensors").metadata
    assert found["sshs_model_hash"] == hashlib.sha256(content[start:]).hexdigest()
    # the older hash is of 64 KiB, 1 MiB into the file as it would be with its ss_ keys alone
    save_file(big, tmp_path / "bare.safetensors", {"ss_a": "1"})
    piece = (tmp_path / "bare.safetensors").read_bytes()[0x100000:0x110000]
    assert found["sshs_legacy_hash"] == hashlib.sha256(piece).hexdigest()[:8]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_value_that_the_dtype_cannot_hold_is_refused_and_nothing_is_left(tmp_path, value):
    with pytest.raises(UserError, match=r"m\.lora_up\.weight: a value is"):
        write(tmp_path / "x.safetensors", {"m.lora_up.weight": torch.tensor([value])}, {}, "fp16")
    assert not list(tmp_path.iterdir())


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'bf16'"):
        write(tmp_path / "x.safetensors", TENSORS, {}, "bf61")


def broken(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    write(path, TENSORS, {})
    content = path.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(content[:-3])
        case "header only":
            path.write_bytes(content[:20])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("hello, I am not a LoRA")
        case "torch pickle":
            torch.save(TENSORS, path)
        case "named .pt":
            path = path.rename(tmp_path / "x.pt")
        case "missing":
            path.unlink()
        case "folder":
            return tmp_path
    return path


NOT_WHOLE = "not a whole safetensors"
KINDS = {
    **dict.fromkeys(["truncated", "header only", "empty", "text"], NOT_WHOLE),
    **dict.fromkeys(["torch pickle", "named .pt"], "pickle"),
    "missing": "no such file",
    "folder": "is a folder",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, kind):
    path = broken(tmp_path, kind)
    with pytest.raises(UserError, match=KINDS[kind]) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# lengths of a header whose own eight bytes begin as a pickle or a zip archive does
UNLUCKY = [0x0280, 0x0380, 0x0480, 0x0580, 0x10280, 0x4B50]


@pytest.mark.parametrize("length", UNLUCKY)
def test_a_header_as_long_as_a_pickles_first_bytes_is_no_pickle(tmp_path, length):
    table = {"x.alpha": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}
    text = json.dumps(table).encode().ljust(length)
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text + torch.tensor(2.0).numpy().tobytes())
    assert read(path).tensors["x.alpha"] == 2
    assert read_header(path).entries["x.alpha"].dtype == "F32"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_another_name_is_told_by_how_it_begins(tmp_path, zipped):
    path = tmp_path / "x.safetensors"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    for reader in (read, read_header):
        with pytest.raises(UserError, match="pickle"):
            reader(path)


@pytest.mark.parametrize("text", ["{", "[1]"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_configuration_of_peft_that_cannot_be_read_is_named(tmp_path, text, beside):
    path = tmp_path / "adapter_model.safetensors"
    write(path, TENSORS, {} if beside else {"lora_adapter_metadata": text})
    if beside:
        (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(UserError, match=r"(adapter_config\.json|'lora_adapter_metadata'): (not JSON|must be a JSON)"):
        read(path)


def test_the_header_says_what_other_programs_look_for():
    found = metadata(HEADER)
    assert all(isinstance(value, str) for value in found.values())
    expected = {
        "lorakiln.recipe": HEADER.recipe, "lorakiln.dataset_hash": "d" * 64,
        "ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "2.0",
        "ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False", "ss_output_name": "emoji", "ss_steps": "100",
        "ss_epoch": "2", "ss_learning_rate": "0.0001", "ss_text_encoder_lr": "0.0", "ss_noise_offset": "0.05",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "modelspec.prediction_type": "epsilon",
        "modelspec.sai_model_spec": "1.0.1", "modelspec.trigger_phrase": "emoji", "modelspec.resolution": "1024x1024",
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert json.loads(found["ss_tag_frequency"])["10_cat"]["cat"] == 3
    assert "ss_min_snr_gamma" not in found and "ss_network_args" not in found


def test_the_header_names_no_time_host_or_path():
    forbidden = ("_at", "session", "date", "host", "version_hash", "commit")
    assert not [key for key in metadata(HEADER) if any(word in key for word in forbidden)]
    assert metadata(HEADER) == metadata(HEADER)


def test_the_header_of_other_kinds_says_how_lycoris_would_make_them():
    spec = AdapterSpec(kind="lokr", rank=4, conv_rank=2, factor=8, dora=True)
    found = metadata(replace(HEADER, adapter=spec))
    arguments = json.loads(found["ss_network_args"])
    assert found["ss_network_module"] == "lycoris.kohya"
    assert arguments["algo"] == "lokr" and arguments["factor"] == "8" and arguments["dora_wd"] == "True"
    assert arguments["conv_dim"] == "2" and arguments["wd_on_output"] == "False"


@pytest.fixture
def network():
    spec = AdapterSpec(rank=3, alpha=2, conv_rank=2, conv_alpha=1)
    made = stir(inject({"unet": tiny_unet()}, unet_names(), spec, 0))
    yield made
    made.remove()


@torch.no_grad()
def prediction_of(tensors):
    loaded = inject_file({"unet": tiny_unet()}, unet_names(), tensors)
    try:
        return predict(tiny_unet())
    finally:
        loaded.remove()


def test_a_network_survives_its_file(network, tmp_path):
    with torch.no_grad():
        before = predict(tiny_unet())
    network.remove()
    write(tmp_path / "x.safetensors", network.state_dict(), metadata(HEADER), "fp32")
    file = read(tmp_path / "x.safetensors")
    assert torch.equal(prediction_of(to_kohya(file, unet_names())), before)
    assert file.metadata["lorakiln.recipe"] == HEADER.recipe


def test_kohya_files_with_diffusers_paths_are_understood(network):
    state = network.state_dict()
    paths = {name: path for path, name in unet_names()["unet"].items()}
    renamed = {
        "lora_unet_" + paths[key.partition(".")[0]].replace(".", "_") + "." + key.partition(".")[2]: tensor
        for key, tensor in state.items()
    }
    assert set(renamed).isdisjoint(state) and any("down_blocks" in key for key in renamed)
    back = to_kohya(AdapterFile(renamed, {}), unet_names())
    assert back.keys() == state.keys() and all(
        back[key] is state[key] or torch.equal(back[key], state[key]) for key in state
    )
