"""A full λ̂ around quantised weights: all weights have gradients, and w* is what the 4 bits stand
for and stays packed.

A chain's weight takes 2 bytes in bfloat16 and w* 0.56 (4 bits, and a float32 scale for 64);
gradients live for a moment each.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from replicate.sampling.storage import NF4

FORMATS = {
    "dequantised": torch.bfloat16,
    "dequantised-float32": torch.float32,
}  # and what their chains' weights are in


def dequantise(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, NF4]:
    """Puts a 4-bit model's matrices back in full, with gradients and the values that they stand
    for, and all of it in `dtype`: w* of a full λ̂ around a quantised model.

    Returns:
        By parameter name what they were: w* in 4 bits.
    """
    from bitsandbytes.nn.modules import Linear4bit

    anchors = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            state = getattr(module.weight, "quant_state")  # noqa: B009 - unknown to torch's types
            packed, code = module.weight.data.reshape(-1), state.code.float()
            anchors[f"{name}.weight"] = NF4(
                packed, state.absmax, code, state.blocksize, torch.Size(state.shape), dtype
            )
            full = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            full.weight, full.bias = nn.Parameter(anchors[f"{name}.weight"].dense()), module.bias
            model.set_submodule(name, full)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return anchors
