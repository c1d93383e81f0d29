"""Prepares a 4-bit model for chains that move all its weights, while w* stays packed in 4 bits.

For each weight, a chain needs 2 bytes in bfloat16, and 0.56 bytes for its w* (4 bits, and a share
of the float32 scale of 64 weights). A gradient is freed as soon as its weights have moved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replicate.sampling.storage import NF4

FORMATS = {  # formats of w* in 4 bits whose weights all move, and the dtype in which they move
    "dequantised": torch.bfloat16,
    "dequantised-float32": torch.float32,
}


def dense(parameter: nn.Parameter) -> Tensor:
    """Returns a parameter's values, dequantised if they are in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.data
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, state)


def dequantise(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, NF4]:
    """Replaces a 4-bit model's matrices by dequantised ones, which have gradients.

    Args:
        model: a model that bitsandbytes quantised to 4 bits; it is changed in place.
        dtype: the dtype of all parameters afterwards.

    Returns:
        The packed matrices by parameter name: w* in 4 bits.
    """
    from bitsandbytes.functional import dequantize_blockwise
    from bitsandbytes.nn.modules import Linear4bit

    anchors = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            state = getattr(module.weight, "quant_state")  # noqa: B009 - unknown to torch's types
            packed, code, scales = module.weight.data.reshape(-1), state.code.float(), state.absmax
            if state.nested:  # the file has the scales in 8 bits
                scales = (dequantize_blockwise(scales, state.state2) + state.offset).float()
            anchor = NF4(packed, scales, code, state.blocksize, torch.Size(state.shape), dtype)
            full = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            full.weight, full.bias = nn.Parameter(anchor.dense()), module.bias
            model.set_submodule(name, full)
            anchors[f"{name}.weight"] = anchor
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return anchors
