"""Units that do nothing but write a number, so that tests can watch how work is spread."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance


@dataclass(frozen=True)
class NoteUnit(CachedUnit):
    """Writes its number after a pause, or ends its process if it is `deadly`, or needs more memory
    than a GPU has if it is `too_large`.
    """

    number: int
    pause: float = 0.0
    deadly: bool = False
    too_large: bool = False

    @property
    def name(self) -> str:
        return f"note {self.number}"

    @property
    def steps(self) -> int:
        return 1

    def settings(self) -> dict[str, Any]:
        return {"number": self.number}

    def run(self, advance: Advance) -> None:
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.too_large:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        time.sleep(self.pause)
        self.write({"number": np.array([self.number])}, process=os.getpid())
        advance()
