"""Errors that a user can mend: one line that names what is wrong, and the remedy."""

from __future__ import annotations

import errno
import re

MEMORY = (
    "not enough memory",
    "close other programs, or write a smaller microbatch_size, gradient_checkpointing: true or more"
    " gpus_per_model in params.yaml",
)
SHORT = (  # PyTorch's, where it is no OutOfMemoryError
    "can't allocate memory",  # a CPU's
    "Storage size calculation overflowed",  # what no machine has
    "CUDA error: out of memory",  # a GPU that others fill, before PyTorch has any of it
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
LONGEST = 600  # characters: what a file holds may be quoted, and be of any length


class UserError(Exception):
    """A mistake or a lack that the user can mend. Its message is one line, whatever it quotes."""

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
        )  # no escape codes for the terminal
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


class ArgumentError(UserError, ValueError):
    """An argument of a public function that does not fit. The message names it and the remedy."""


def refusal(error: BaseException | None) -> UserError | None:
    """Translates an error that means that the machine refused something, such as disk or memory.

    Libraries have many names for this, so the causes of the error are looked at too.

    Returns:
        The line for the user; None if the error means something else.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if (
            isinstance(error, MemoryError)
            or type(error).__name__ == "OutOfMemoryError"
            or any(sign in str(error) for sign in SHORT)
        ):
            number = errno.ENOMEM
        elif found := re.search(r"\(os error (\d+)\)", str(error)):  # of what is written in Rust
            number = int(found[1])
        if number in REFUSALS:
            what, remedy = REFUSALS[number]
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            return UserError(
                f"{where}{what}; {remedy} and run the same command again: what is finished is kept"
            )
        error = error.__cause__ or error.__context__
    return None
