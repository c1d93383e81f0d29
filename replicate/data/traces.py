"""Traces on disk: xarray datasets in Zarr, with a hash of what is in them. Seconds differ from run
to run and go to the run log, so that the traces do not.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import xarray as xr

from replicate.data import tensors as arrays
from replicate.errors import UserError

CODECS = {"bytes", "zstd"}  # that `save` uses
MOST = 10**9  # values of a variable


def save(trace: xr.Dataset, path: Path, log: Path) -> None:
    """`seconds` to `log`, all else to `path`; what stands there is replaced."""
    for dataset, where in ((trace[["seconds"]], log), (trace.drop_vars("seconds"), path)):
        shutil.rmtree(where, ignore_errors=True)
        where.parent.mkdir(parents=True, exist_ok=True)
        dataset.assign_attrs(sha256=fingerprint(dataset)).to_zarr(
            where, zarr_format=3, consolidated=False
        )


def load(path: Path) -> xr.Dataset:
    """Raises:
    UserError: there is no whole trace at `path`.
    """
    try:
        for file in path.glob(
            "*/zarr.json"
        ):  # what to decode with, and how much, is not for a file to choose
            array = json.loads(file.read_bytes())
            if (
                not {codec["name"] for codec in array["codecs"]} <= CODECS
                or math.prod(array["shape"]) > MOST
            ):
                raise ValueError
        trace = xr.open_zarr(path, zarr_format=3, consolidated=False, chunks=None).load()
        whole = trace.attrs.pop("sha256", None) == fingerprint(trace)
    except Exception as error:  # Zarr's many ways to say that a store is missing or damaged
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}); delete it and run dvc repro again"
        ) from None
    if not whole:
        raise UserError(f"{path}: damaged, its hash is another; delete it and run dvc repro again")
    return trace


def fingerprint(trace: xr.Dataset) -> str:
    """Of values, dimensions and attributes: a chunk that is missing reads as one that was never
    written.
    """
    variables = {
        str(name): [name in trace.coords, variable.dims, variable.attrs]
        for name, variable in trace.variables.items()
    }
    shape = json.dumps([trace.attrs, variables], sort_keys=True)
    values = {str(name): variable.values for name, variable in trace.variables.items()}
    return arrays.fingerprint(values | {"": np.frombuffer(shape.encode(), np.uint8)})
