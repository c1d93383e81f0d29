"""`python -m benchmarks.hessian`: how much of λ̂ of the control study is its harmonic part.

For the first training of each size, ½·tr[H(H + α)⁻¹] of the loss of all tokens at α = γ/nβ of two
settings of the study, from `WINDOWS` windows and, beside it, from a quarter of them. A sample of
few windows has too much negative curvature; where it is below −α, there is no harmonic part.

The weights are those in data/kept; the windows are those of the study (`dvc repro extract@sizes`).
A model is written to hessian.json as soon as it is measured, and is not measured again. `seconds`
is the processor's time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.machine import describe
from replicate.data import windows
from replicate.data.json_io import read_json, write_json
from replicate.errors import ArgumentError
from replicate.models import loading, module
from replicate.models.cpu_kernels import fast_cpu
from replicate.pipeline import config as parameters
from replicate.progress import progress
from replicate.sampling.curvature import Spectrum, spectrum, work
from replicate.seeds import derive

FILE = Path(__file__).with_suffix(".json")
FAMILY, MODELS = "sizes", ("10k-1", "34k-1", "110k-1", "350k-1")
SETTINGS = ((30.0, 300.0), (1910.0, 300.0))  # (nβ, γ)
WINDOWS, PROBES, PRODUCTS, BATCH = 4096, 4, 20, 32


def measure(model: str) -> dict[str, Any]:
    """Returns what hessian.json has of a model."""
    config = parameters.load()
    folder = config.paths.data / "kept" / FAMILY / model
    network = loading.load(folder, "float32", torch.device("cpu"))
    tokens_NxL = windows.load(config.paths.windows(FAMILY) / "windows.safetensors").tokens_NxL
    order = np.random.default_rng(derive(config.seed, "hessian")).permutation(len(tokens_NxL))
    parts, loss, _ = module.examples(
        network, torch.from_numpy(tokens_NxL[order[:WINDOWS]]), "tokens", None
    )
    begun, found = time.process_time(), {}
    with module.untouched(network), fast_cpu():
        task = module.task(network, parts, loss)
        for count in (WINDOWS // 4, WINDOWS):
            with progress(f"{model}, {count} windows", work(count, PROBES, PRODUCTS)) as advance:
                each = spectrum(
                    task,
                    torch.arange(count),
                    batch_size=BATCH,
                    probes=PROBES,
                    products=PRODUCTS,
                    seed=derive(config.seed, "hessian", model),
                    advance=advance,
                )
            found[str(count)] = told(each)
    return found | {"seconds": round(time.process_time() - begun)}


def told(each: Spectrum) -> dict[str, Any]:
    """Returns the numbers of a spectrum; the harmonic part is by nβ and γ."""
    harmonic: dict[str, list[float] | None] = {}
    for nbeta, gamma in SETTINGS:
        try:
            harmonic[f"{nbeta:g}, {gamma:g}"] = list(each.harmonic(gamma / nbeta))
        except ArgumentError:  # α is below the strongest negative curvature
            harmonic[f"{nbeta:g}, {gamma:g}"] = None
    ends = {"lowest": each.lowest, "highest": each.highest}
    return {"trace": list(each.trace), **ends, "harmonic": harmonic}


@click.command()
@click.argument("models", nargs=-1, type=click.Choice(MODELS))
def main(models: tuple[str, ...]) -> None:
    """Measures the MODELS, or all, that hessian.json lacks, and prints what it has."""
    torch.set_num_threads(1)
    for model in models or MODELS:
        if FILE.exists() and model in read_json(FILE)["models"]:
            continue
        new = {model: measure(model)}
        known = read_json(FILE)["models"] if FILE.exists() else {}
        work = f"{WINDOWS} windows, all tokens, {PROBES} random vectors, {PRODUCTS} products"
        write_json(FILE, {"machine": describe().name, "work": work, "models": known | new})
    for model, each in (read_json(FILE)["models"] if FILE.exists() else {}).items():
        print(model, each)


if __name__ == "__main__":
    main()
