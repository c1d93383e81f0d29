"""The same reviews come out of every format, and a file that cannot serve is told in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from replicate.data import corpora
from replicate.errors import UserError

TEXTS = ['A "fine" film,\nin two lines.', "Ünïcode, and <br /> too.", "Short."]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"reviews{suffix}"
    table = pa.table({"label": [0, 1, 1], "text": TEXTS})
    lines = "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in TEXTS)
    match suffix:
        case ".jsonl":
            path.write_text(lines)
        case ".jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case ".csv":
            csv.write_csv(table, path)
        case ".parquet":
            parquet.write_table(table, path)
        case "tree":
            path = folder / "aclImdb"
            for name, text in zip(("neg/2_1", "neg/10_3", "pos/0_9"), TEXTS, strict=True):
                file = path / "train" / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".parquet", "tree"])
def test_every_format_gives_the_same_reviews(tmp_path: Path, suffix: str) -> None:
    assert corpora.read(written(tmp_path, suffix)) == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("reviews.txt", b"x", "unknown format"),
        ("reviews.jsonl", b'{"review": "x"}\n', "no column 'text' among review"),
        ("reviews.jsonl", b'{"text": "x"}\n{"text": null}\n', "row 2 has no text"),
        ("reviews.jsonl", b'{"text": 3}\n', "row 1 has no text"),
        ("reviews.jsonl", b"not json\n", "cannot be read"),
        ("reviews.jsonl.gz", b"\x1f\x8bcut off", "cannot be read"),
        ("reviews.parquet", b"PAR1 and no more", "cannot be read"),
        ("reviews.csv", b"text\na,b,c\n", "cannot be read"),
    ],
)
def test_a_file_that_cannot_serve_is_told_in_one_line(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as error:
        corpora.read(tmp_path / name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_another_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; put it there"):
        corpora.read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="give the folder aclImdb"):
        corpora.read(tmp_path)


def test_the_imdb_reviews_are_25000(imdb: Path) -> None:
    assert len(corpora.read(imdb)) == 25_000
