"""`python -m benchmarks.parts`: what a step of GPT-2 consists of, and what its parts cost here with
other code.

`products`: floating-point operations per second of one core, by torch's own kernel and by oneDNN.
`seconds_per_weight`: on all threads, of torch's normal numbers alone, and of a whole update of our
SGLD with its noise. `step`: shares of a step's processor time.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import ours, results
from benchmarks.limit import fastest
from benchmarks.work import LOCALIZATION, LR, NBETA, WORKS, save
from replicate.models import last_token
from replicate.sampling import SamplerConfig
from replicate.sampling.samplers import sampler

CONFIG = SamplerConfig("sgld", LR, localization=LOCALIZATION)
ROWS, INNER, OUTER, WEIGHTS, SHOWN = 995, 768, 3072, 2**25, 8


@click.command
def main() -> None:
    """Measures and adds it to results.json."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {"products": products()}
    torch.set_num_threads(threads)
    found["seconds_per_weight"] = {"torch_normal": noise(), "update": update()}
    results.add(parts=found | {"step": {name: step(name) for name in ("gpt2", "mini-34k")}})


def products() -> dict[str, float]:
    """Returns operations per second of a matrix product."""
    x, w = torch.randn(ROWS, INNER), torch.randn(OUTER, INNER)
    calls = {
        "torch": lambda: torch.mm(x, w.t()),
        "onednn": lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""),
    }
    return {name: 2 * ROWS * INNER * OUTER / fastest(call) for name, call in calls.items()}


def noise() -> float:
    """Returns the seconds of a normal number of torch's."""
    return fastest(torch.empty(WEIGHTS).normal_) / WEIGHTS


def update() -> float:
    """Returns the seconds in which SGLD moves a weight."""
    w = nn.Parameter(torch.zeros(WEIGHTS))
    moving = sampler([w], [torch.zeros(WEIGHTS)], CONFIG, nbeta=NBETA, seed=0)
    gradient = torch.zeros(WEIGHTS)

    def one() -> None:
        w.grad = gradient
        moving.on_gradient(0, w)

    return fastest(one) / WEIGHTS


def step(name: str) -> dict[str, float]:
    """Returns the seconds of a step, and the shares of its largest parts; weights are moved in
    `torch::autograd::AccumulateGrad`.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = replace(WORKS[name], folder=Path(folder))
        save(work, Path(folder))
        model = ours.model(work)
    parameters = list(model.parameters())
    anchor = [parameter.detach().clone() for parameter in parameters]
    moving = sampler(parameters, anchor, CONFIG, nbeta=NBETA, seed=0)
    tokens = torch.randint(work.vocabulary, (work.batch, work.length))

    def one() -> None:
        last_token.losses(model, tokens).mean().backward()
        moving.step()

    with moving.attached():
        for _ in range(3):
            one()
        start = time.perf_counter()
        one()
        seconds = time.perf_counter() - start
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            one()
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: event.self_cpu_time_total / total for event in events[:SHOWN]}
    return {"seconds": seconds} | shares


if __name__ == "__main__":
    main()
