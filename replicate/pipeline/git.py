"""Reads from git the current commit, the commit that a name stands for, and committed files."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from replicate.errors import UserError


def state(paths: Sequence[str] = ()) -> tuple[str | None, bool]:
    """Returns the current commit (None before the first one), and whether tracked files changed.

    Args:
        paths: the files and folders that are checked for changes; all if it is empty.

    Raises:
        UserError: git is not installed, or it fails.
    """
    arguments = ("--porcelain=v2", "--branch", "--untracked-files=no", "--", *paths)
    lines = _git("status", *arguments).decode(errors="replace").splitlines()
    (head,) = (line.split()[-1] for line in lines if line.startswith("# branch.oid "))
    return None if head == "(initial)" else head, any(not line.startswith("#") for line in lines)


def commit(revision: str) -> str:
    """Returns the hash of the commit that a branch, tag, hash or DVC experiment names.

    Raises:
        UserError: there is no such commit, or several experiments have that name.
    """
    named = f"{revision}^{{commit}}"
    _git("rev-parse", "--git-dir")  # if there is no repository, the error says so
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", named).decode().strip()
    except UserError:
        found = _experiments(revision)
    if not found:
        raise UserError(f"{revision!r} names no branch, tag, commit or DVC experiment")
    if len(found) > 1:
        commits = ", ".join(each[:9] for each in found)
        raise UserError(f"{revision!r} names {len(found)} experiments; give one of {commits}")
    return found[0]


def setting(key: str) -> str:
    """Returns a setting of git, such as `user.name`; "" if it is not set.

    Raises:
        UserError: git is not installed, or it fails.
    """
    return _git("config", "--default", "", "--get", key).decode(errors="replace").strip()


def files(commit: str, folder: Path) -> dict[str, bytes]:
    """Returns the bytes of a folder's files in a commit, by their path in the folder.

    Raises:
        UserError: git is not installed, or the commit has no such folder.
    """
    archive = io.BytesIO(_git("archive", "--format=tar", commit, "--", folder.as_posix()))
    found = {}
    with tarfile.open(fileobj=archive) as members:
        for member in members:
            if (stream := members.extractfile(member)) is not None:
                found[Path(member.name).relative_to(folder).as_posix()] = stream.read()
    return found


def _experiments(name: str) -> list[str]:
    """Returns the commits of all DVC experiments of that name.

    DVC stores an experiment at refs/exps/ab/cdef…/<name>, where abcdef… is its parent commit.
    """
    form = "--format=%(objectname) %(refname)"
    lines = _git("for-each-ref", form, "refs/exps").decode(errors="replace").splitlines()
    found = (line.split(" ", 1) for line in lines)
    return [commit for commit, ref in found if ref.split("/")[4:] == [name]]


def _git(*arguments: str) -> bytes:
    """Runs git without its optional locks, so that it disturbs no other process in the folder."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], env=environment, capture_output=True)  # noqa: S607
    except FileNotFoundError:
        raise UserError("git is not installed; install it") from None
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
