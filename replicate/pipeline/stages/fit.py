"""Whether a stage's models fit where it is to run: one line a model, from its configuration
alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
import torch

from replicate.errors import UserError
from replicate.models import hub
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import HubModel, Params
from replicate.pipeline.planning import configurations
from replicate.pipeline.planning.devices import DEVICES, Device
from replicate.pipeline.planning.footprint import Footprint, footprint
from replicate.pipeline.stages import workload
from replicate.pipeline.stages.workload import Task

Fit = Literal["done", "fits", "does not fit", "needs a GPU", "unknown"]
UNITS = "kMGTPE"


@dataclass(frozen=True)
class Line:
    """One model in one stage, or a stage without a model. memory, disk, download: bytes; memory of
    all processes of the stage together. operations: of all its steps. seconds: null where nothing
    is known. `bound`: whether they are the most it can take.
    """

    stage: str
    model: str | None = None
    weights: str | None = None
    parameters: int | None = None
    sampled: int | None = None
    operations: float | None = None
    memory: float | None = None
    disk: float = 0.0
    download: float = 0.0
    seconds: float | None = None
    bound: bool = False
    fit: Fit = "fits"


@dataclass(frozen=True)
class Machine:
    """What work is planned for: bytes that are free for a copy of a model, processes, and a named
    device or this one.
    """

    name: str
    memory: float
    processes: int
    named: Device | None
    cuda: bool


class Counts:
    """The footprint of tasks, each kind of chain of a model counted once; None where the
    configuration is not known.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self._known: dict[tuple[str, str], Footprint | None] = {}

    def __call__(self, task: Task) -> Footprint | None:
        key = (task.model, str(task.chain))
        if key not in self._known:
            config = workload.configuration(self.params, task.model)
            self._known[key] = None if config is None else footprint(config, task.chain)
        return self._known[key]


def described(
    params: Params, task: Task, found: Footprint | None, base: float, device: str | None
) -> Line:
    """A task without its time."""
    if found is None:
        return Line(task.stage, task.model, task.chain.weights, fit="unknown")
    model, family = params.models[task.model], params.families[params.models[task.model].family]
    machine = here(params, device, family.cards)
    steps = task.training or task.steps
    operations = steps * found.step + task.examples * found.example
    size = found.memory(machine.cuda) + 8 * found.parameters * bool(
        task.training
    )  # Adam keeps two numbers a weight
    shared = machine.processes if task.steps and not task.training else 1
    memory = size if machine.cuda else shared * (base + size)
    download, disk = 0.0, 4.0 * found.parameters if task.training else 0.0
    if (
        isinstance(model, HubModel)
        and task.fetches
        and not hub.cached(model.repository, model.revision)
    ):
        config = workload.configuration(params, task.model)
        assert config is not None
        download = disk = float(found.parameters * configurations.bytes_of_a_weight(config))
    fit: Fit = "fits" if task.fetches or memory <= machine.memory else "does not fit"
    if family.device == "cuda" and not machine.cuda:
        fit = "needs a GPU"
    return Line(
        stage=task.stage,
        model=task.model,
        weights=None if task.fetches else task.chain.weights,
        parameters=found.parameters,
        sampled=None if task.fetches or task.training else found.sampled,
        operations=float(operations) or None,
        memory=None if task.fetches else float(memory),
        disk=disk,
        download=download,
        bound=bool(task.training),
        fit=fit,
    )


@cache
def here_memory(cuda: bool) -> float:
    """Bytes that are free: on the GPU, or on this machine within its control group."""
    if cuda:
        return float(torch.cuda.mem_get_info()[0])
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    free = float(psutil.virtual_memory().available)
    return free if text == "max" else min(free, float(text))


def here(params: Params, device: str | None, cards: int) -> Machine:
    """This machine, or `device` with one process on one copy of a model.

    Raises:
        UserError: no such device is known.
    """
    if device is not None:
        if device not in DEVICES:
            raise UserError(
                f"plan: {device!r} is no known device; write one of {', '.join(DEVICES)}"
            )
        return Machine(
            f"one {device}" if cards == 1 else f"{cards} {device}",
            cards * DEVICES[device].memory,
            1,
            DEVICES[device],
            True,
        )
    cuda = torch.cuda.is_available()
    count = processes.count(params.machine.processes, cards)
    name = (
        torch.cuda.get_device_name()
        if cuda
        else f"this machine, {count} processes on {os.cpu_count()} cores"
    )
    return Machine(name, cards * here_memory(cuda), count, None, cuda)


def refuse(params: Params, stage: str, name: str) -> None:
    """Stops a stage that cannot fit, before anything is loaded.

    Raises:
        UserError: with the plan's line.
    """
    base, counts = float(psutil.Process().memory_info().rss), Counts(params)
    for task in workload.tasks(params):
        if task.stage != f"{stage}@{name}":
            continue
        found = counts(task)
        line = described(params, task, found, base, None)
        if found is None or line.fit != "does not fit":
            continue
        family = params.families[params.models[task.model].family]
        machine = here(params, None, family.cards)
        parts = f"weights {short(found.weights)}B, w* {short(found.anchor)}B, a step {short(found.state + found.working)}B"
        times = (
            ""
            if machine.cuda or machine.processes == 1
            else f" in each of {machine.processes} processes"
        )
        need = f"{task.model} in {task.chain.weights} needs {short(line.memory)}B of {short(machine.memory)}B free ({parts}{times})"
        last = "more cards" if machine.cuda else "machine.processes: 1"
        remedy = f"activations: recomputed, a smaller microbatch, or weights: nf4 in families.{params.models[task.model].family}, or {last}"
        raise UserError(f"{line.stage}: {need}; set {remedy}")


def short(value: float | None) -> str:
    """In three digits with a decimal prefix."""
    if not value:
        return ""
    power = min(max(0, (len(str(int(value))) - 1) // 3), len(UNITS))
    return f"{value / 1000**power:.3g} {UNITS[power - 1] if power else ''}"
