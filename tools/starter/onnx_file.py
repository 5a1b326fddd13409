"""Writes a small torch module as an ONNX file, without the `onnx` package."""

import warnings
from pathlib import Path

import torch
from torch import nn
from torch.onnx._internal.torchscript_exporter import onnx_proto_utils


def write(module: nn.Module, example: torch.Tensor, path: Path, any_batch: bool = True) -> None:
    """Save `module` as ONNX with one input and one output; the batch is free unless `any_batch` is off.

    torch asks for the `onnx` package only to look for functions of its own domain, of which there are none here.
    """
    asked = onnx_proto_utils._add_onnxscript_fn
    onnx_proto_utils._add_onnxscript_fn = lambda model, _: model
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if any_batch else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                module.eval(), (example,), str(path), dynamo=False, dynamic_axes=axes,
                input_names=["input"], output_names=["output"], opset_version=17,
            )  # fmt: skip
    finally:
        onnx_proto_utils._add_onnxscript_fn = asked
