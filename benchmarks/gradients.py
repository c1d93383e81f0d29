"""`python -m benchmarks.gradients`: relative error, by weight format, of the gradients that chains
of the quantised control models see.

It compares the parameters that both have gradients of, on the first 256 windows, and needs what
`dvc repro read@control` leaves in data/.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from replicate.data import windows
from replicate.data.json_io import rounded
from replicate.models import last_token, loading, quantised
from replicate.pipeline import config as parameters
from replicate.pipeline.work.plans import WINDOWS

CPU = torch.device("cpu")


def main() -> None:
    """Prints the errors as JSON."""
    config = parameters.load()
    family = config.studies["control"].quantised
    every = windows.load(config.paths.windows(family) / WINDOWS).tokens_NxL
    tokens_BxL = torch.from_numpy(every[:256]).long()
    found = {}
    for name in config.families[family].models:
        folder = config.paths.models(family) / name
        formats = {
            "full": loading.load(folder, "float32", CPU),
            "nf4": loading.load(folder, "nf4", CPU),
            "int8": loading.load(folder, "int8", CPU),
            "nf4 dequantised": dequantised(folder, torch.float32),
            "bfloat16 chain": dequantised(folder, torch.bfloat16),
            "int8 dequantised": dequantised_int8(folder),
        }
        seen = {kind: gradients(model, tokens_BxL) for kind, model in formats.items()}
        found[name] = {
            f"{kind} against {reference}": error(seen[kind], seen[reference])
            for kind, reference in (
                ("nf4", "nf4 dequantised"),
                ("int8", "int8 dequantised"),
                ("bfloat16 chain", "nf4 dequantised"),
                ("nf4", "full"),
            )
        }
    print(json.dumps(rounded(found), indent=1))


def dequantised(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Loads a model with the values that its 4 bits stand for."""
    model = loading.load(folder, "nf4", CPU)
    quantised.dequantise(model, dtype)
    return model


def dequantised_int8(folder: Path) -> PreTrainedModel:
    """Loads a model with the values that its 8 bits stand for: the integers of a row times the
    row's scale over 127.
    """
    model, packed = loading.load(folder, "float32", CPU), loading.load(folder, "int8", CPU)
    for name, parameter in packed.named_parameters():
        if parameter.dtype == torch.int8:
            scale: Tensor = getattr(parameter, "SCB")  # noqa: B009 - bitsandbytes' own
            values = parameter.data.float() * scale.float()[:, None] / 127
            model.get_parameter(name).data.copy_(values)
    return model


def gradients(model: PreTrainedModel, tokens_BxL: Tensor) -> dict[str, Tensor]:
    """Returns the gradients of the mean label loss, by parameter."""
    last_token.losses(model, tokens_BxL).mean().backward()
    return {
        name: parameter.grad.double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def error(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """Returns ‖found − reference‖ / ‖reference‖ over the parameters that both have."""
    both = found.keys() & reference.keys()
    apart = sum(float((found[key] - reference[key]).norm() ** 2) for key in both)
    return (apart / sum(float(reference[key].norm() ** 2) for key in both)) ** 0.5


if __name__ == "__main__":
    main()
