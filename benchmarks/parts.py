"""`python -m benchmarks.parts`: what a step of GPT-2 is made of, and what its parts cost here with
other code.

products: floating-point operations per second of one core, by torch's own kernel and by oneDNN.
noise, move: seconds per weight, on all threads: torch's normal numbers alone, and a whole step of
our SGLD, its noise included. step: shares of a step's processor time.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import ours, results
from benchmarks.limit import fastest
from benchmarks.machine import describe
from benchmarks.work import LOCALIZATION, LR, NBETA, WORKS, save
from replicate.data.json_io import rounded, write_json
from replicate.models import last_token as label
from replicate.sampling import Setting, samplers

HERE = Path(__file__).parent
SETTING = Setting("sgld", LR, localization=LOCALIZATION)
ROWS, INNER, OUTER, WEIGHTS, SHOWN = 995, 768, 3072, 2**25, 8


@click.command
def main() -> None:
    """Measures and adds it to results.json."""
    machine = describe()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {"products": products()}
    torch.set_num_threads(threads)
    found |= {
        "seconds_per_weight": {"torch_normal": noise(), "move": move()},
        "step": {name: step(name) for name in ("gpt2", "mini-34k")},
    }
    report = {"machine": asdict(machine), "works": {}, "parts": found}
    write_json(
        HERE / "results.json",
        results.merged(results.read(HERE / "results.json"), machine.name, report),
    )
    print(json.dumps(rounded(found), indent=1))


def products() -> dict[str, float]:
    x, w = torch.randn(ROWS, INNER), torch.randn(OUTER, INNER)
    calls = {
        "torch": lambda: torch.mm(x, w.t()),
        "onednn": lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""),
    }
    return {name: 2 * ROWS * INNER * OUTER / fastest(call) for name, call in calls.items()}


def noise() -> float:
    x = torch.empty(WEIGHTS)
    return fastest(x.normal_) / WEIGHTS


def move() -> float:
    w = nn.Parameter(torch.zeros(WEIGHTS))
    sampler = samplers.sampler([w], [torch.zeros(WEIGHTS)], SETTING, nbeta=NBETA, seed=0)
    gradient = torch.zeros(WEIGHTS)

    def one() -> None:
        w.grad = gradient
        sampler.receive(0, w)

    return fastest(one) / WEIGHTS


def step(name: str) -> dict[str, float]:
    """Seconds of a step, and the shares of its largest parts; `torch::autograd::AccumulateGrad` is
    where the weights are moved.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = replace(WORKS[name], folder=Path(folder))
        save(work, Path(folder))
        model = ours.model(work)
    parameters = list(model.parameters())
    sampler = samplers.sampler(
        parameters, [p.detach().clone() for p in parameters], SETTING, nbeta=NBETA, seed=0
    )
    tokens = torch.randint(work.vocabulary, (work.batch, work.length))

    def one() -> None:
        label.losses(model, tokens).mean().backward()
        sampler.step()

    with sampler.attached():
        for _ in range(3):
            one()
        start = time.perf_counter()
        one()
        seconds = time.perf_counter() - start
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            one()
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {"seconds": seconds} | {
        event.key: event.self_cpu_time_total / total for event in events[:SHOWN]
    }


if __name__ == "__main__":
    main()
