"""Tells a file from the pointer that Git LFS leaves in its place until the file is fetched."""

from __future__ import annotations

from pathlib import Path

from replicate.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/"


def check(file: Path) -> None:
    """Refuses a pointer of Git LFS.

    Args:
        file: a file; one that is not there is no pointer.

    Raises:
        UserError: the file is a pointer.
    """
    if not file.is_file():
        return
    with file.open("rb") as stream:
        found = stream.read(len(POINTER))
    if found == POINTER:
        remedy = f"run `git lfs pull` in {file.parent}"
        raise UserError(f"{file}: is a pointer of Git LFS in place of the file; {remedy}")
