"""`python -m benchmarks.gradients`: relative error of the gradients that chains of the demo's
quantised models see, by weight format.

Over the parameters that both have gradients of, on the first 256 windows; needs what `dvc repro
demo` leaves in data/.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from replicate.data import windows
from replicate.data.json_io import rounded
from replicate.models import last_token as label
from replicate.models import loading as models
from replicate.models import quantised as dequantised
from replicate.pipeline.config import load

CPU = torch.device("cpu")


def main() -> None:
    family = load().studies["demo"].quantised
    tokens_BxL = torch.from_numpy(
        windows.load(Path("data", family, "windows", "windows.safetensors")).tokens_NxL[:256]
    ).long()
    found = {}
    for name in load().models_of(family):
        folder = Path("data", family, "models", name)
        plain, nf4, int8 = (
            gradients(models.load(folder, weights, CPU), tokens_BxL)
            for weights in ("float32", "nf4", "int8")
        )
        full, brief = (
            gradients(in_full(folder, dtype), tokens_BxL)
            for dtype in (torch.float32, torch.bfloat16)
        )
        found[name] = {
            "nf4 against dequantised": error(nf4, full),
            "int8 against dequantised": error(int8, gradients(from_int8(folder), tokens_BxL)),
            "bfloat16 chain against float32": error(brief, full),
            "nf4 against float32 before quantisation": error(nf4, plain),
        }
    print(json.dumps(rounded(found), indent=1))


def in_full(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    model = models.load(folder, "nf4", CPU)
    dequantised.dequantise(model, dtype)
    return model


def from_int8(folder: Path) -> PreTrainedModel:
    """The full-precision model with the values that 8 bits stand for: each row's integers times its
    scale over 127.
    """
    model, packed = models.load(folder, "float32", CPU), models.load(folder, "int8", CPU)
    for name, parameter in packed.named_parameters():
        if parameter.dtype == torch.int8:
            scale: Tensor = getattr(parameter, "SCB")  # noqa: B009 - bitsandbytes' own
            model.get_parameter(name).data.copy_(
                parameter.data.float() * scale.float()[:, None] / 127
            )
    return model


def gradients(model: PreTrainedModel, tokens_BxL: Tensor) -> dict[str, Tensor]:
    label.losses(model, tokens_BxL).mean().backward()
    return {
        name: parameter.grad.double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def error(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """‖found − reference‖ / ‖reference‖ over the parameters that both have."""
    both = found.keys() & reference.keys()
    apart, size = (
        sum(float(x.norm() ** 2) for x in xs)
        for xs in ([found[k] - reference[k] for k in both], [reference[k] for k in both])
    )
    return (apart / size) ** 0.5


if __name__ == "__main__":
    main()
