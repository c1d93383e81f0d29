"""Describes what a computation runs on: the device, and the packages that results depend on."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("bitsandbytes", "numba", "numpy", "torch", "transformers")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Returns the packages' versions without importing them; None for a missing package."""
    found: dict[str, str | None] = dict.fromkeys(packages)
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def processor() -> str:
    """Returns the name of the CPU's model."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if named := re.search(r"^model name\s*: *(.+)$", text, re.MULTILINE):
            return named[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def device() -> str:
    """Returns the device that the process has used: the GPU if torch used one, else the CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    return processor()


def sampling() -> dict[str, Any]:
    """Returns the device, threads and versions with which this process runs chains.

    Every trace has them as an attribute. They are the same for all chains on one machine.
    """
    import torch

    name, threads = processor(), torch.get_num_threads()
    if torch.cuda.is_available():
        name, threads = torch.cuda.get_device_name(), None
    return {"device": name, "threads": threads, "versions": versions()}
