"""Describes what a computation runs on: the device, and the packages that results depend on."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("bitsandbytes", "numba", "numpy", "torch", "transformers")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Returns packages' versions without importing them; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """Returns the name of the CPU's model."""
    file = Path("/proc/cpuinfo")
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def device() -> str:
    """Returns the device that the process has used: the GPU if torch used one, else the CPU."""
    torch = sys.modules.get("torch")
    return (
        torch.cuda.get_device_name()
        if torch is not None and torch.cuda.is_initialized()
        else processor()
    )


def sampling() -> dict[str, Any]:
    """Returns the device, threads and versions with which this process runs chains.

    Every trace has them as an attribute. They are the same for all chains on one machine.
    """
    import torch

    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else processor()
    return {
        "device": name,
        "threads": None if cuda else torch.get_num_threads(),
        "versions": versions(),
    }
