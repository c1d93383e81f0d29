"""The file of the traces that git keeps of a model: one array for each variable, of all settings.

Most bits of a chain's losses are noise, which no method makes shorter. What the other numbers tell
is taken off first: the loss of a minibatch is the mean of its halves, up to rounding, and a
distance differs little from that one draw before. Then the first bytes of all numbers are put
together, then the second, and so on. Nothing is lost, and `write` stores a hash of each trace.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numcodecs import Zstd
from numpy.typing import NDArray

from replicate.data import lfs, traces
from replicate.errors import UserError

Bits = NDArray[np.unsignedinteger[Any]]
GROWING = ("draw", "squared_distance")
CODEC = Zstd(22)  # the level that takes longest and saves most


def write(file: Path, found: Mapping[str, xr.Dataset]) -> None:
    """Writes traces by name."""
    columns: dict[str, list[Bits]] = {}
    notes: dict[str, Any] = {}
    for which, each in sorted(found.items()):
        parts = {str(name): each.variables[name] for name in sorted(each.variables, key=str)}
        for name, bits in shortened({name: part.values for name, part in parts.items()}):
            columns.setdefault(f"{name}/{bits.itemsize}", []).append(bits.ravel())
        notes[which] = {
            "attributes": each.attrs,
            "arrays": {
                name: [part.dims, part.dtype.str, part.shape] for name, part in parts.items()
            },
            "sha256": traces.fingerprint(each),
        }
    packed = {name: squeezed(planes(np.concatenate(all_))) for name, all_ in columns.items()}
    packed["notes"] = squeezed(json.dumps(notes, sort_keys=True).encode())
    np.savez(file, allow_pickle=False, **packed)


def read(file: Path) -> dict[str, xr.Dataset]:
    """Returns the traces of a file by name; none if it does not exist.

    Raises:
        UserError: the file is damaged.
    """
    return _read(file, file.stat().st_mtime_ns) if file.exists() else {}


@cache
def _read(file: Path, written: int) -> dict[str, xr.Dataset]:
    """Reads the traces of a file that was written at a time."""
    lfs.check(file)
    found = {}
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz file")
        with np.load(file, allow_pickle=False) as stored:
            blobs = {name: bytes(CODEC.decode(stored[name])) for name in stored.files}
        notes, begun = json.loads(blobs.pop("notes")), dict.fromkeys(blobs, 0)
        columns = {name: joined(blob, int(name.split("/")[1])) for name, blob in blobs.items()}
        for which, note in notes.items():
            bits: dict[str, Bits] = {}
            for name, (_, dtype, shape) in note["arrays"].items():
                column = f"{name}/{np.dtype(dtype).itemsize}"
                first, size = begun[column], int(np.prod(shape))
                begun[column] = first + size
                bits[name] = columns[column][first : first + size].reshape(shape)
            variables = {
                name: (note["arrays"][name][0], whole.view(note["arrays"][name][1]))
                for name, whole in restored(bits)
            }
            found[which] = xr.Dataset(variables, attrs=note["attributes"])
            if (model := found[which].attrs["model"]) != file.stem:
                raise ValueError(f"it has traces of {model}")
            if traces.fingerprint(found[which]) != note["sha256"]:
                raise ValueError(f"the hash of {which} is another")
    except Exception as error:  # NumPy, zipfile and zstd have many ways to say that it is damaged
        remedy = f"restore it by `git checkout {file}`"
        raise UserError(f"{file}: cannot be read ({error}); {remedy}") from None
    return found


def shortened(values: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, Bits]]:
    """Yields each array as unsigned integers, without what the other numbers tell."""
    for name, each in values.items():
        bits = np.array(each.view(f"u{each.itemsize}"))
        if (mean := of_halves(name, values)) is not None:
            bits ^= mean
        elif name in GROWING:
            bits[..., 1:] -= bits[..., :-1].copy()
        yield name, bits


def restored(bits: Mapping[str, Bits]) -> Iterator[tuple[str, Bits]]:
    """Yields the arrays that were given to `shortened`, as unsigned integers."""
    for name, each in bits.items():
        if (mean := of_halves(name, bits)) is not None:
            yield name, each ^ mean
        elif name in GROWING:
            yield name, np.cumsum(each, axis=-1, dtype=each.dtype)
        else:
            yield name, each.copy()


def of_halves(name: str, values: Mapping[str, NDArray[Any]]) -> Bits | None:
    """Returns the bits of the mean of a minibatch's halves; None where they are not recorded."""
    if f"half_{name}" not in values:
        return None
    halves = values[f"half_{name}"].view(np.float32)
    return (np.float32(0.5) * (halves[..., 0] + halves[..., 1])).view(np.uint32)


def planes(bits: Bits) -> bytes:
    """Returns the first byte of all numbers, then the second, …"""
    return np.ascontiguousarray(bits.view(np.uint8).reshape(bits.size, -1).T).tobytes()


def joined(blob: bytes, itemsize: int) -> Bits:
    """Returns the numbers whose bytes `planes` took apart."""
    bytes_BxN = np.frombuffer(blob, np.uint8).reshape(itemsize, -1)
    return np.ascontiguousarray(bytes_BxN.T).view(f"u{itemsize}").ravel()


def squeezed(content: bytes) -> NDArray[np.uint8]:
    """Returns compressed bytes as an array."""
    return np.frombuffer(CODEC.encode(content), np.uint8)
