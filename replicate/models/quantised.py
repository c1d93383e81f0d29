"""Prepares a 4-bit model for chains that move all its weights, while w* stays packed in 4 bits.

For each weight, a chain needs 2 bytes in bfloat16, and 0.56 bytes for its w* (4 bits, and a share
of the float32 scale of 64 weights). A gradient is freed as soon as its weights have moved.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from replicate.sampling.storage import NF4

FORMATS = {  # formats of w* in 4 bits whose weights all move, and the dtype in which they move
    "dequantised": torch.bfloat16,
    "dequantised-float32": torch.float32,
}


def dense(parameter: Tensor) -> Tensor:
    """Returns a parameter's values, dequantised if they are in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return parameter.data if state is None else packed(parameter, state.dtype).dense()


def packed(parameter: Tensor, dtype: torch.dtype) -> NF4:
    """Returns a parameter in 4 bits as the samplers hold it; `dtype` is that of unpacked values."""
    from bitsandbytes.functional import dequantize_blockwise

    state = getattr(parameter, "quant_state")  # noqa: B009 - unknown to torch's types
    scales = state.absmax
    if state.nested:  # the file has the scales in 8 bits
        scales = (dequantize_blockwise(scales, state.state2) + state.offset).float()
    shape = torch.Size(state.shape)
    return NF4(
        parameter.data.reshape(-1), scales, state.code.float(), state.blocksize, shape, dtype
    )


def decode_here(model: nn.Module) -> None:
    """Lets matrices be decoded here that bitsandbytes decodes wrongly.

    Its kernel for CPUs takes each row to begin with a new scale (seen in 0.50.2). So the values are
    wrong where a row is not a multiple of the weights that share one.
    """
    from bitsandbytes.nn.modules import Linear4bit

    def forward(module: Linear4bit, x: Tensor) -> Tensor:
        dtype = module.compute_dtype or x.dtype
        bias = None if module.bias is None else module.bias.to(dtype)
        return functional.linear(x.to(dtype), dense(module.weight).to(dtype), bias).to(x.dtype)

    for module in model.modules():
        if isinstance(module, Linear4bit) and module.weight.device.type == "cpu":
            state = getattr(module.weight, "quant_state")  # noqa: B009
            if module.in_features % state.blocksize:
                module.forward = partial(forward, module)


def dequantise(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, NF4]:
    """Replaces a 4-bit model's matrices by dequantised ones, which have gradients.

    Args:
        model: a model that bitsandbytes quantised to 4 bits; it is changed in place.
        dtype: the dtype of all parameters afterwards.

    Returns:
        The packed matrices by parameter name: w* in 4 bits.
    """
    from bitsandbytes.nn.modules import Linear4bit

    anchors = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            anchor = packed(module.weight, dtype)
            full = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            full.weight, full.bias = nn.Parameter(anchor.dense()), module.bias
            model.set_submodule(name, full)
            anchors[f"{name}.weight"] = anchor
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return anchors
