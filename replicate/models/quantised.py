"""Full λ̂ around quantised weights: all weights move, and w* stays packed in 4 bits.

A weight of a chain takes 2 bytes in bfloat16, and w* takes 0.56 (4 bits, and a float32 scale for 64
weights). Gradients exist for a moment each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replicate.sampling.storage import NF4

FORMATS = {  # weight formats of this kind, and the type of their chains' weights
    "dequantised": torch.bfloat16,
    "dequantised-float32": torch.float32,
}


def dense(parameter: nn.Parameter) -> Tensor | None:
    """Returns a parameter's values, those in 4 bits as what they stand for; None for int8."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(parameter.data, state)
    return parameter.data if parameter.is_floating_point() else None


def dequantise(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, NF4]:
    """Replaces a 4-bit model's matrices by full ones, which have gradients and the same values.

    Args:
        model: as bitsandbytes quantised it; it is changed in place.
        dtype: of all its parameters afterwards.

    Returns:
        The packed matrices by parameter name: w* in 4 bits.
    """
    from bitsandbytes.nn.modules import Linear4bit

    anchors = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            state = getattr(module.weight, "quant_state")  # noqa: B009 - unknown to torch's types
            packed, code = module.weight.data.reshape(-1), state.code.float()
            anchor = NF4(
                packed, state.absmax, code, state.blocksize, torch.Size(state.shape), dtype
            )
            full = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            full.weight, full.bias = nn.Parameter(anchor.dense()), module.bias
            model.set_submodule(name, full)
            anchors[f"{name}.weight"] = anchor
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return anchors
