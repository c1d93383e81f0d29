"""Reads and writes traces: xarray datasets in Zarr, with a hash of their content.

The attributes of a trace (plain JSON values) say how it was computed, and the hash covers them. The
variable `seconds` is not written, because it differs from run to run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import xarray as xr

from replicate.data import tensors
from replicate.data.json_io import AGAIN
from replicate.errors import UserError


def save(trace: xr.Dataset, path: Path) -> None:
    """Writes a trace without its variable `seconds`, and replaces what is at `path`.

    If the write is interrupted, the store is incomplete, and `load` refuses it.

    Args:
        trace: a trace that `sampling.sample` returned, with attributes.
        path: the folder of the Zarr store.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    lasting = trace.drop_vars("seconds", errors="ignore")
    lasting.assign_attrs(sha256=fingerprint(lasting)).to_zarr(
        path, zarr_format=3, consolidated=False
    )


def load(path: Path) -> xr.Dataset:
    """Reads the trace that `save` wrote, with its attributes.

    Raises:
        UserError: the trace is missing or damaged.
    """
    try:
        trace = xr.open_zarr(path, zarr_format=3, consolidated=False, chunks=None).load()
    except Exception as error:  # Zarr has many ways to say that a store is missing or damaged
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); {AGAIN}") from None
    if trace.attrs.pop("sha256", None) != fingerprint(trace):
        raise UserError(f"{path}: damaged, its hash is another; {AGAIN}")
    return trace


def fingerprint(trace: xr.Dataset) -> str:
    """Returns the SHA-256 of the values, dimensions and attributes of a trace.

    The hash reveals a missing chunk, which Zarr reads as fill values without an error.
    """
    variables = {
        str(name): [name in trace.coords, variable.dims, variable.attrs]
        for name, variable in trace.variables.items()
    }
    shape = json.dumps([trace.attrs, variables], sort_keys=True)
    values = {str(name): variable.values for name, variable in trace.variables.items()}
    return tensors.fingerprint(values | {"": np.frombuffer(shape.encode(), np.uint8)})
