"""What a target costs before it is run: parameters, operations, memory, download and time, stage by
stage, from configurations alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise

import psutil
import torch

from replicate.errors import UserError
from replicate.models import loading as models
from replicate.pipeline import parallel as processes
from replicate.pipeline.config import Params
from replicate.pipeline.planning.footprint import Footprint
from replicate.pipeline.stages import clock, workload
from replicate.pipeline.stages.fit import Counts, Line, Machine, described, here, short
from replicate.pipeline.stages.workload import Task
from replicate.progress import progress
from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column, Table, spell

STYLES = {
    "done": "green",
    "fits": "",
    "does not fit": "bold red",
    "needs a GPU": "yellow",
    "unknown": "yellow",
}
GATHERING = (
    2.3  # measured: what several processes take to start and find each other, over what one takes
)


def run(
    params: Params, targets: Sequence[str], device: str | None, measure: bool, as_json: bool
) -> None:
    """Prints the plan of DVC targets (none: all)."""
    with terminal.waiting("plan: asking DVC for the stages"):
        wanted = ancestors(targets)
    lines = plan(params, wanted, device, measure)
    machine = here(params, device, 1)
    if as_json:
        terminal.dump({"machine": machine.name, "lines": [asdict(line) for line in lines]})
        return
    terminal.show(table(lines, machine))
    terminal.say(summary(lines, machine, measure))


def plan(params: Params, wanted: Sequence[str], device: str | None, measure: bool) -> list[Line]:
    with terminal.waiting("plan: asking DVC what is done"):
        done = finished(wanted)
    tasks = [task for task in workload.tasks(params) if task.stage in wanted]
    left = [task for task in tasks if task.stage not in done]
    counts, footprints = Counts(params), dict[Task, Footprint | None]()
    with progress("plan: counting", len(tasks)) as advance:
        for task in tasks:
            footprints[task] = counts(task)
            advance()
    paces = (
        paced(params, [task for task in left if footprints[task]], device)
        if measure and device is None
        else {}
    )
    base, start = (
        float(psutil.Process().memory_info().rss),
        startup() if measure and left and device is None else 0.0,
    )
    lines: list[Line] = []
    for stage in wanted:
        mine = [task for task in tasks if task.stage == stage]
        overhead = start if measure and device is None else None
        if stage in done or not mine:
            seconds = 0.0 if stage in done else alone(params, stage, overhead)
            known = [described(params, task, footprints[task], base, device) for task in mine] or [
                Line(stage, seconds=seconds)
            ]
            lines += [
                replace(line, fit="done", seconds=0.0, download=0.0, disk=0.0)
                if stage in done
                else line
                for line in known
            ]
            continue
        for i, task in enumerate(mine):
            line = described(params, task, footprints[task], base, device)
            seconds = spent(params, task, footprints[task], paces.get(task), device)
            if seconds is not None and i == 0 and overhead is not None:
                seconds += overhead * (
                    GATHERING if task.steps and here(params, None, 1).processes > 1 else 1.0
                )
            lines.append(replace(line, seconds=seconds if line.fit == "fits" else None))
    return lines


def ancestors(targets: Sequence[str]) -> list[str]:
    """The stages that targets need, in order.

    Raises:
        UserError: DVC knows no such target.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # slow to import, and `refuse` has no need of it

    try:
        repo = Repo(".")
        found = (
            repo.index.stages
            if not targets
            else [s for t in targets for s in repo.stage.collect(t, with_deps=True)]
        )
    except DvcException as error:
        raise UserError(
            f"plan: {' '.join(str(error).split())}; `dvc stage list` lists the targets"
        ) from None
    names = {str(getattr(stage, "name", stage.addressing)) for stage in found}
    return [
        name
        for stage in repo.index.stages
        if (name := str(getattr(stage, "name", stage.addressing))) in names
    ]  # dvc.yaml's order


def finished(wanted: Sequence[str]) -> set[str]:
    """The stages that `dvc repro` would skip, if what is before them comes out as it was."""
    from dvc.repo import Repo

    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return set()
    changed = set(json.loads(done.stdout))
    again = True
    graph = Repo(".").index.graph  # from a stage to those that it needs
    names = {stage: str(getattr(stage, "name", "")) for stage in graph}
    while again:
        more = {
            names[stage]
            for stage in graph
            if any(names[needed] in changed for needed in graph.successors(stage))
        } - changed
        changed |= more
        again = bool(more)
    return set(wanted) - changed


# Time


def paced(params: Params, tasks: Sequence[Task], device: str | None) -> dict[Task, clock.Pace]:
    """Measured, each kind of chain once, on as many processes at a time as the work will have."""
    machine = here(params, device, 1)
    kinds: dict[tuple[str, str], Task] = {}
    for task in tasks:
        family = params.families[params.models[task.model].family]
        if task.fetches:
            continue
        if family.device != "cuda" or machine.cuda:
            kinds.setdefault(
                (task.model, str(task.chain) if not task.training else "training"), task
            )
    found: dict[tuple[str, str], clock.Pace] = {}
    with (
        progress("plan: measuring steps", len(kinds)) as advance,
        processes.pool(machine.processes) as pool,
    ):
        for key, task in kinds.items():
            count = 1 if task.training else machine.processes
            jobs = [pool.submit(timed, params, task) for _ in range(count)]
            each = [job.result() for job in jobs]
            found[key] = clock.Pace(
                *(
                    sum(column) / count
                    for column in zip(*(vars(pace).values() for pace in each), strict=True)
                )
            )
            advance()
    keys = {
        task: (task.model, str(task.chain) if not task.training else "training") for task in tasks
    }
    return {task: found[key] for task, key in keys.items() if key in found}


def timed(params: Params, task: Task) -> clock.Pace:
    config = workload.configuration(params, task.model)
    assert config is not None
    models.device("any", task.model)
    if task.training:
        torch.set_num_threads(processes.count("auto"))
        step = clock.training(config, task.chain.batch_size, task.chain.length)
        torch.set_num_threads(1)
        return clock.Pace(step, 0.0, 0.0)
    return clock.pace(params, task.model, config, task.chain)


def spent(
    params: Params, task: Task, found: Footprint | None, pace: clock.Pace | None, device: str | None
) -> float | None:
    """Seconds of a task."""
    if found is None:
        return None
    family = params.families[params.models[task.model].family]
    machine = here(params, device, family.cards)
    if machine.named is not None:
        products = (
            "bfloat16" if task.chain.weights in ("bfloat16", "dequantised") else task.chain.products
        )
        step = machine.named.seconds(found.step, found.moved, products)
        return step * (task.steps + task.training) + machine.named.seconds(
            found.example * task.examples, 0.0, products
        )
    if pace is None:
        return None
    shared = task.stage.startswith("quantisation")  # whose processes have a format each
    threads = (
        machine.processes if shared else processes.count("auto") * 0.8
    )  # others look at w* on one process, on all threads
    return pace.step * (
        task.steps / machine.processes + task.training
    ) + pace.example * task.examples / max(threads, 1.0)


def startup() -> float:
    """Seconds that a stage takes to begin: its imports, and DVC's own work before and after."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import replicate.stages.estimate"], capture_output=True, check=False
    )
    return 1.3 * (time.perf_counter() - start)


def alone(params: Params, stage: str, overhead: float | None) -> float | None:
    """Seconds of a stage that samples no model."""
    if overhead is None:
        return None
    if stage != "calibrate":
        return overhead
    from replicate.validation import calibration

    jobs = calibration.jobs(params.calibration.repeats)
    sample = sorted(jobs, key=lambda job: job.cost)[len(jobs) // 2]
    start = time.perf_counter()
    calibration.measure(sample, params.seed, 2, 1, lambda steps=1, note="": None)
    rate = (time.perf_counter() - start) / (2 * sample.cost)
    each = params.calibration.groups * params.calibration.chains
    return overhead + rate * each * sum(job.cost for job in jobs) / processes.count(
        params.machine.processes
    )


# Print


def table(lines: Sequence[Line], machine: Machine) -> Table:
    """In plain lines a stage has its whole name; on a terminal its kind stands once, and beside it
    what it works on.
    """
    seen = terminal.seen()
    several = {line.stage for before, line in pairwise(lines) if before.stage == line.stage}
    columns = [
        Column("stage"),
        Column("of" if seen else "model"),
        Column("weights", rank=1, least=11),
        Column("parameters", right=True, rank=4),
    ]
    columns += [
        Column("sampled", right=True, rank=5),
        Column("operations", right=True, rank=3),
        Column("memory", right=True),
    ]
    columns += [Column("download", right=True, rank=2), Column("time", right=True), Column("fit")]
    found = Table(f"plan on {machine.name}, {short(machine.memory)}B free", columns, grouped=True)
    for line in lines:
        kind, _, key = line.stage.partition("@")
        head = (
            (kind, line.model or "" if line.stage in several else key)
            if seen
            else (line.stage, line.model or "")
        )
        seconds = (
            ""
            if line.seconds is None or line.fit == "done"
            else ("≤ " if line.bound else "") + spell(line.seconds)
        )
        counts = [short(value) for value in (line.parameters, line.sampled, line.operations)]
        room = [short(value) + "B" if value else "" for value in (line.memory, line.download)]
        fit = Cell("" if seen and line.fit == "fits" else line.fit, STYLES[line.fit])
        found.rows.append([*head, line.weights or "", *counts, *room, seconds, fit])
    return found


def summary(lines: Sequence[Line], machine: Machine, measure: bool) -> str:
    """Totals in a few sentences."""
    done = len({line.stage for line in lines if line.fit == "done"})
    unfit = [f"{line.stage} ({line.fit})" for line in lines if line.fit not in ("done", "fits")]
    seconds = sum(line.seconds or 0.0 for line in lines)
    download, disk = sum(line.download for line in lines), sum(line.disk for line in lines)
    most = max((line.memory or 0.0 for line in lines if line.fit != "done"), default=0.0)
    how = (
        "by measured steps"
        if machine.named is None
        else "by its maker's figures, at 40 % of the peak"
    )
    words = [
        f"{len({line.stage for line in lines})} stages, {done} done."
        if done
        else f"{len({line.stage for line in lines})} stages."
    ]
    if measure or machine.named:
        words.append(f"Time {spell(seconds)} {how}.")
    words.append(
        f"Memory {short(most)}B at most, download {short(download) or '0 '}B, disk {short(disk) or '0 '}B."
    )
    if unfit:
        words.append(f"Cannot run: {', '.join(dict.fromkeys(unfit))}.")
    return " ".join(words)
