"""Tables fit the terminal, and are plain lines without one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column, Table
from tests.conftest import ROOT

TABLE = Table(
    "title",
    [
        Column("name", least=6),
        Column("λ̂", right=True),
        Column("rare", rank=2),
        Column("empty"),
        Column("note", rank=1),
    ],
    [
        ["a", "26.82 ± 0.43", "x" * 30, "", Cell("fine", "green")],
        ["b long name", "1", "y", "", "two\nlines"],
    ],
)
SHOW = "from tests.test_terminal import TABLE; from replicate import terminal; terminal.show(TABLE); terminal.say('word ' * 30)"


def on_a_terminal(columns: int, **environment: str) -> str:
    """What a terminal of so many columns gets."""
    ours, theirs = pty.openpty()
    variables = {
        key: value
        for key, value in os.environ.items()
        if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    variables |= {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm-256color"} | environment
    with subprocess.Popen(
        [sys.executable, "-c", SHOW],
        cwd=ROOT,
        env=variables,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            seen += piece
        assert process.wait() == 0
    os.close(ours)
    return seen.decode()


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("columns", [20, 40, 80, 120])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    lines = bare(on_a_terminal(columns)).splitlines()
    assert max(map(terminal.width, lines)) <= columns
    assert "26.82 ± 0.43" in "\n".join(lines)


def test_columns_are_left_out_by_their_rank_and_named() -> None:
    assert [terminal.fitted(TABLE.columns, rows(), room) for room in (80, 40, 20)] == [
        [0, 1, 2, 4],
        [0, 1, 4],
        [0, 1],
    ]
    assert "no room for rare: " in bare(on_a_terminal(40))
    assert "no room" not in bare(on_a_terminal(80))


def test_colour_is_for_terminals_that_want_it() -> None:
    green = "\x1b[32m"
    assert green in on_a_terminal(80)
    assert green not in on_a_terminal(80, NO_COLOR="1")


def test_plain_lines_have_every_column_whole_and_two_spaces_between(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.show(TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r" {2,}", line.strip()) for line in lines] == [
        ["name", "λ̂", "rare", "empty", "note"],
        ["a", "26.82 ± 0.43", "x" * 30, "–", "fine"],
        ["b long name", "1", "y", "–", "two lines"],
    ]
    assert (
        len({line.index(text) for line, text in zip(lines, ("rare", "xxx", "y "), strict=True)})
        <= 2
    )  # an accent takes no cell


def test_a_sentence_is_one_line_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_json_has_no_number_that_json_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.dump({"a": [float("nan"), float("inf"), 1.5]})
    assert capsys.readouterr().out.split() == ["{", '"a":', "[", "null,", "null,", "1.5", "]", "}"]


def rows() -> list[list[Cell]]:
    return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in TABLE.rows]
