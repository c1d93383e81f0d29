"""Traces on disk: xarray datasets in Zarr. Seconds differ from run to run and go to the run log, so that the traces do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import xarray as xr

from replicate.errors import UserError


def save(trace: xr.Dataset, path: Path, log: Path) -> None:
    """`seconds` to `log`, all else to `path`; what stands there is replaced."""
    for dataset, where in ((trace[["seconds"]], log), (trace.drop_vars("seconds"), path)):
        shutil.rmtree(where, ignore_errors=True)
        where.parent.mkdir(parents=True, exist_ok=True)
        dataset.to_zarr(where, zarr_format=3, consolidated=False)


def load(path: Path) -> xr.Dataset:
    """Raises:
    UserError: there is no whole trace at `path`.
    """
    try:
        return xr.open_zarr(path, consolidated=False, chunks=None).load()
    except Exception as error:  # Zarr's many ways to say that a store is missing or damaged
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); delete it and run dvc repro again") from None
