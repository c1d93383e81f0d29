"""How work ends before its time: at once, with one line, since whatever is finished is on disk
already and nothing there is half done.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

STDERR = 2
RESUME = "what is finished is kept; run the same command again to go on"
last_words: list[Callable[[], None]] = []  # what is still to be noted then
ending = threading.Event()  # what fails from then on, as its children are gone, is not worth a word
REASONS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to stop",
    signal.SIGHUP: "its terminal is gone",
}


def watch() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end this process and those that it started, whatever
    they are doing; so does the end of DVC where DVC started it.

    A thread waits for the signal's number in a pipe: a handler in Python would wait for the kernel
    that is running.
    """
    out, into = os.pipe()
    os.set_blocking(into, False)
    signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    for code in REASONS:
        if signal.getsignal(code) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(code, _nothing)

    def wait() -> None:
        while (code := os.read(out, 1)[0]) not in list(REASONS):
            continue
        end(REASONS[signal.Signals(code)], 128 + code)

    threading.Thread(target=wait, daemon=True).start()
    if "DVC_STAGE" in os.environ and "RANK" not in os.environ:
        end_with_dvc()


def end_with_dvc() -> None:
    """Ends this process when the DVC that started it is gone, or was before this began. Between the
    two may be the shell that runs the stage's command, which dash does not give its place to. All
    that DVC starts is in its process group; who adopts an orphan is not.
    """
    import psutil

    child = psutil.Process()
    with suppress(psutil.Error):
        shell = child.parent()
        if shell and "".join(shell.cmdline()[-1:]).startswith("python -m replicate "):
            child = shell

    def wait() -> None:
        with suppress(psutil.Error, OSError):
            dvc = child.ppid()
            while child.ppid() == dvc and os.getpgid(dvc) == os.getpgrp():
                time.sleep(0.5)
        end("DVC, which started it, is gone", 1)

    threading.Thread(target=wait, daemon=True).start()


def _nothing(code: int, frame: FrameType | None) -> None:
    pass


def end(why: str, code: int) -> None:
    """The first of several processes says the line. Its children end last: what works on meanwhile
    would miss them, or start others.
    """
    import psutil

    ending.set()
    try:
        for note in last_words:
            note()
    finally:  # whatever a note meets, as where a module is just being imported
        if os.environ.get("RANK", "0") == "0":
            clear = (
                "\r\x1b[K\x1b[?25h" if os.isatty(STDERR) else ""
            )  # the bar's line, and the cursor that it hid
            os.write(STDERR, f"{clear}stopped ({why}): {RESUME}\n".encode())
        for child in psutil.Process().children(recursive=True):
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        os._exit(code)


def end_with(parent: int) -> None:
    """Ends this process without a word when `parent` is gone, however that went."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
