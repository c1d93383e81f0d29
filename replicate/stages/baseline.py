"""The loss of every example at w*, once per model: shared by every chain, group and trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from replicate import models
from replicate.params import Params
from replicate.progress import progress
from replicate.stages import subject as subjects
from replicate.writing import write_json


def run(params: Params, name: str, windows_in: Path, model_in: Path, out: Path) -> None:
    subject = subjects.load(params, name, windows_in, model_in)
    N = len(subject.tokens_NxL)
    with progress(f"baseline {name}", N) as advance, torch.no_grad():
        parts = []
        for index in torch.arange(N).split(params.baseline.batch_size):
            parts.append(subject(index).cpu())
            advance(len(index))
    losses = torch.cat(parts).numpy()

    halves = []
    parameters = list(models.sampled(subject.model).values())
    used = torch.from_numpy(subject.order("gradient")[: params.baseline.gradient_examples])
    for half in used.chunk(2):
        for index in half.split(subject.settings.sampling.batch_size):
            (subject(index).sum() / len(half)).backward()
        halves.append(torch.cat([parameter.grad.flatten().double() for parameter in parameters if parameter.grad is not None]))
        subject.model.zero_grad(set_to_none=True)
    first, second = halves

    out.mkdir(parents=True)
    save_file({"losses": losses}, out / "losses.safetensors")
    report = {
        "loss": float(losses.mean(dtype=np.float64)),
        "standard_error": float(losses.std(dtype=np.float64) / np.sqrt(N)),
        "gradient_norm": float(((first + second) / 2).norm()),
        "gradient_norm_squared": float(first @ second),
        "parameters": models.count(subject.model),
        "sampled_parameters": sum(parameter.numel() for parameter in parameters),
        "sampled": sorted(models.sampled(subject.model)),
        "examples": N,
    }
    write_json(out / "baseline.json", report)
    print(f"{name}: label loss {report['loss']:.4f} ± {report['standard_error']:.4f}, gradient norm {report['gradient_norm']:.4f}")
