"""A tiny model and its windows on disk, as the stages leave them, and the task that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from replicate.data import windows
from replicate.models import loading
from replicate.models.config import TaskConfig


def task_config(folder: Path = Path(), **other: Any) -> TaskConfig:
    """Returns the task of the model and windows in a folder, all of it in float32."""
    given: dict[str, Any] = {
        "family": "small",
        "model": "small",
        "folder": folder / "model",
        "windows": folder / "windows.safetensors",
        "weights": "float32",
        "compute_dtype": "float32",
        "restriction": ("all",),
        "device": "any",
        "gradient_checkpointing": False,
        "gpus_per_model": 1,
        "hashes": ("of the windows", "of the model"),
    }
    return TaskConfig(**given | other)


def build(architecture: str = "gpt2", **shape: int) -> Any:
    """Builds a model for windows of 9 tokens of 12 kinds; the same each time."""
    torch.manual_seed(0)
    small = {"layers": 1, "width": 16, "heads": 2, "vocabulary": 12, "length": 9}
    return loading.build(architecture, **small | shape)


def save_windows(folder: Path, tokens_NxL: NDArray[np.int32]) -> None:
    """Writes windows."""
    N = len(tokens_NxL)
    numbers, padded = np.arange(N, dtype=np.int32), np.zeros(N, bool)
    text = windows.Windows(tokens_NxL, numbers, padded, None, {})
    text.save(folder / "windows.safetensors")
