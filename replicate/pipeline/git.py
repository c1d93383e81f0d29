"""What git knows of the project: the commit that stands here, whether it was changed, and files as
they were committed.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from replicate.errors import UserError

PATIENCE = 20.0  # seconds


def git(*arguments: str) -> bytes:
    """What git prints; it takes no lock, so that it can be asked while others work here.

    Raises:
        UserError: there is no git, or no repository here that it trusts, or it refuses.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            timeout=PATIENCE,
        )  # noqa: S607
    except OSError:
        raise UserError("git is not installed here; install it") from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"git gives no answer in {PATIENCE:.0f} s; see whether `git status` does"
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
    if any("dubious ownership" in line for line in said):
        raise UserError(
            f"git does not trust this folder, which is another user's; git config --global --add safe.directory {Path.cwd()}"
        )
    if any("not a git repository" in line for line in said):
        raise UserError("no git repository here; work in a clone")
    raise UserError(f"git {arguments[0]}: {said[0]}")


def state(paths: Sequence[str] = ()) -> tuple[str | None, bool]:
    """The commit that stands here, null before the first one, and whether what is tracked under
    `paths` was changed since.

    Raises:
        UserError: git cannot say.
    """
    lines = (
        git("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", *paths)
        .decode(errors="replace")
        .splitlines()
    )
    head = next(
        (line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)"
    )
    return None if head == "(initial)" else head, any(not line.startswith("#") for line in lines)


def names() -> list[str]:
    """Of branches, tags and DVC's experiments.

    Raises:
        UserError: git cannot say.
    """
    return [
        *references("refs/heads", "%(refname:short)"),
        *references("refs/tags", "%(refname:short)"),
        *dict.fromkeys(experiments()),
    ]


def references(kind: str, form: str) -> list[str]:
    return git("for-each-ref", f"--format={form}", kind).decode(errors="replace").splitlines()


def experiments() -> dict[str, list[str]]:
    """The commits of DVC's experiments by name: DVC keeps them at refs/exps/<hash of the commit
    they started from>/<name>.
    """
    found: dict[str, list[str]] = {}
    for line in references("refs/exps", "%(refname) %(objectname)"):
        name, _, commit = line.partition(" ")
        parts = name.split("/")
        if (
            len(parts) == 5
        ):  # others are DVC's own: of its stash, its queue, and of work that is under way
            found.setdefault(parts[-1], []).append(commit)
    return found


def commit(revision: str) -> str:
    """The hash of the commit that a branch, a tag, a part of a hash, or an experiment of DVC's
    names.

    Raises:
        UserError: there is none, or more than one.
    """
    git("rev-parse", "--git-dir")
    try:
        return (
            git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
            .decode()
            .strip()
        )
    except UserError:
        commits = experiments().get(revision, [])
    if not commits:
        raise UserError(f"{revision!r} is no folder, and git has no commit of that name")
    if len(commits) > 1:
        raise UserError(
            f"{revision!r} names {len(commits)} experiments; give one of the commits {', '.join(each[:9] for each in commits)}"
        )
    return commits[0]


def files(commit: str, folder: Path) -> dict[str, bytes]:
    """The files of a folder as committed, by their path within it.

    Raises:
        UserError: git cannot say; none is committed there.
    """
    with tarfile.open(
        fileobj=io.BytesIO(git("archive", "--format=tar", commit, "--", folder.as_posix()))
    ) as archive:
        read = {
            member.name: archive.extractfile(member)
            for member in archive.getmembers()
            if member.isfile()
        }
    return {
        Path(name).relative_to(folder).as_posix(): stream.read()
        for name, stream in read.items()
        if stream is not None
    }
