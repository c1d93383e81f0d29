"""Defines errors that a user can fix: one line that names the problem and the remedy."""

from __future__ import annotations

import errno
import re

MEMORY = (
    "not enough memory",
    "close other programs, or set a smaller microbatch_size, gradient_checkpointing or more"
    " gpus_per_model",
)
SHORT = (  # an error of PyTorch with such words means too little memory, as OutOfMemoryError does
    "can't allocate memory",  # on a CPU
    "Storage size calculation overflowed",  # more than any machine has
    "CUDA error: out of memory",  # other processes fill the GPU before PyTorch starts
    "CUBLAS_STATUS_ALLOC_FAILED",
)
FULL = "the disk is full", "free some space"
DENIED = "may not be written", "give write access to it"
REFUSALS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: DENIED,
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EFBIG: ("larger than a file may be here", "raise the limit (ulimit -f)"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.EIO: ("the disk fails", "go on from another"),
    errno.ENOMEM: MEMORY,
}
LONGEST = 600  # characters of a message; longer ones, which may quote a file, are cut


class UserError(Exception):
    """Reports a problem that the user can fix. Its message is always a single line."""

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
        )  # the terminal gets no escape codes
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


class ArgumentError(UserError, ValueError):
    """Reports an invalid argument of a public function. The message names it and the remedy."""


def refusal(error: BaseException | None) -> UserError | None:
    """Translates an error of the machine, such as a full disk or too little memory.

    Libraries often wrap such an error in one of their own, so its causes are examined too.

    Returns:
        An error with one line for the user; None if the machine is not the cause.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if (
            isinstance(error, MemoryError)
            or type(error).__name__ == "OutOfMemoryError"
            or any(sign in str(error) for sign in SHORT)
        ):
            number = errno.ENOMEM
        elif found := re.search(r"\(os error (\d+)\)", str(error)):  # how Rust writes it
            number = int(found[1])
        if number in REFUSALS:
            what, remedy = REFUSALS[number]
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            return UserError(
                f"{where}{what}; {remedy} and run the same command again: what is finished is kept"
            )
        error = error.__cause__ or error.__context__
    return None
