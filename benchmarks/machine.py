"""The machine that is measured, in words and numbers that are the same in every run."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """`cores`: those that this process may use; `memory`: GiB; `gpu`: None without one."""

    processor: str
    cores: int
    memory: int
    torch: str
    threads: int
    python: str
    gpu: str | None

    @property
    def name(self) -> str:
        return self.gpu or f"{self.processor}, {self.cores} cores"


def describe() -> Machine:
    return Machine(
        processor=f"{processor()} ({torch.backends.cpu.get_cpu_capability()})",
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [
            line.split(":", 1)[1].strip()
            for line in information.read_text().splitlines()
            if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
