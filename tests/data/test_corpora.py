"""Every format gives the same texts, and nothing is skipped, filled in or guessed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from replicate.data import corpora
from replicate.errors import UserError

TEXTS = ['A "fine" film,\nin two lines.', "Ünïcode, and <br /> too.", "2020-01-01", "NA", "3.50"]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"reviews{suffix.removesuffix('.gz')}"
    table = pa.table({"label": range(len(TEXTS)), "text": TEXTS})
    match path.suffix:
        case ".jsonl":
            lines = (json.dumps({"text": text, "label": {"a": 1}}) + "\n" for text in TEXTS)
            path.write_text("".join(lines))
        case ".csv":
            csv.write_csv(table, path)
        case ".parquet":
            parquet.write_table(table, path)
        case _:
            names = ("neg/2_1", "neg/10_3", "pos/0_9", "pos/1_8", "pos/11_7")
            for name, text in zip(names, TEXTS, strict=True):
                file = path / "train" / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    if suffix.endswith(".gz"):
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet", "tree"])
def test_every_format_gives_the_same_texts(tmp_path: Path, suffix: str) -> None:
    assert corpora.read(written(tmp_path, suffix)) == TEXTS


def parquet_of(column: object) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": column}), sink)
    return sink.getvalue().to_pybytes()


WHOLE = parquet_of(TEXTS)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.doc", b"x", "unknown format"),
        (
            "a.jsonl",
            b'{"review": "x", "sentiment": 1}\n',
            "no column 'text' among review, sentiment",
        ),
        ("a.jsonl", b'{"text": "x"}\n{"text": null}\n', "row 2 has no text"),
        ("a.jsonl", b'{"text": "x"}\n{"label": 1}\n', "row 2 has no text"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ""}\n', "row 2 has no text"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "from string to number in row 1"),
        ("a.jsonl", b'{"text": {"a": "x"}}\n', "from string to object"),
        ("a.jsonl", b'{"text": "a", "text": "b"}\n', "specified twice"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogate"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "cut o', "cannot be read"),
        ("a.jsonl", b'{"label": ' + b"[" * 100_000, "cannot be read"),
        ("a.jsonl", b"[1, 2]\n", "cannot be read"),
        ("a.jsonl", b"", "cannot be read"),
        ("a.jsonl", '{"text": "é"}\n'.encode("latin-1"), "not UTF-8"),
        ("a.jsonl.gz", b"\x1f\x8bcut off", "cannot be read"),
        ("a.csv", b"text\na,b,c\n", "Expected 1 columns, got 3"),
        ("a.csv", b"label,text\n1,x\n2\n", "Expected 2 columns, got 1"),
        ("a.csv", b'label,text\n1,"x\n2,y\n', "a quote is not closed"),
        ("a.csv", b"text\nx\n\ny\n", "row 2 has no text"),
        ("a.csv", b"review,sentiment\na,b\n", "no column 'text' among review, sentiment"),
        ("a.csv", b"text,text\na,b\n", "several columns 'text' among text, text"),
        ("a.csv", b"a\x1b[31mb\nx\n", "no column 'text' among a\\x1b[31mb"),
        ("a.csv", "text\né\n".encode("latin-1"), "not UTF-8"),
        ("a.csv", b"text\n", "has no row"),
        ("a.csv", "text\na".encode("utf-16"), "UTF-16"),
        ("a.csv", "text\na".encode("utf-16-le"), "UTF-16"),
        ("a.jsonl", '{"text": "x"}'.encode("utf-16"), "UTF-16"),
        (
            "a.csv.gz",
            gzip.compress(b"text\n" + bytes(range(48, 91)) * 99, mtime=0)[:-20],
            "cannot be read",
        ),
        ("a.parquet", b"PAR1 and no more", "cannot be read"),
        ("a.parquet", WHOLE[:-100], "cannot be read"),
        ("a.parquet", WHOLE[:200] + b"\xff" * 20 + WHOLE[220:], "cannot be read"),
        ("a.parquet", parquet_of([1, 2]), "holds int64"),
        ("a.parquet", parquet_of([b"\xff"]), "not UTF-8"),
        ("a.parquet", parquet_of(pa.array([], pa.string())), "has no row"),
        ("a.txt", b"\xff", "not UTF-8"),
        ("a.txt", b"\xff\xfe", "UTF-16"),
        ("a.txt", b"", "row 1 has no text"),
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


@pytest.mark.fault("C10")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_no_other_column_and_no_likeness_to_another_type_refuses_a_text(
    tmp_path: Path, suffix: str
) -> None:
    """A text of 3 MB, dates, and another column whose rows have several types."""
    for texts in (["x" * 3_000_000, "y"], ["2020-01-01", "2020-01-02"], ["1", "2"]):
        path, others = tmp_path / f"a{suffix}", [1, "x"]
        if suffix == ".parquet":
            parquet.write_table(pa.table({"other": [[1], None], "text": texts}), path)
        elif suffix == ".csv":
            rows = zip(others, texts, strict=True)
            path.write_text("other,text\n" + "".join(f"{x},{text}\n" for x, text in rows))
        else:
            rows = [{"other": x, "text": t} for x, t in zip(others, texts, strict=True)]
            path.write_text("\n".join(map(json.dumps, rows)))
        assert corpora.read(path) == texts


@pytest.mark.fault("C10")
@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array([text.encode() for text in TEXTS]),
        pa.array([text.encode() for text in TEXTS], pa.large_binary()),
    ],
    ids=lambda column: str(column.type),
)
def test_parquet_may_hold_texts_of_any_type_of_text(tmp_path: Path, column: pa.Array) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(column))
    assert corpora.read(tmp_path / "a.parquet") == TEXTS


@pytest.mark.fault("C10")
def test_a_name_says_nothing_of_case_or_compression(tmp_path: Path) -> None:
    content = b"text\nx\n"
    for name in ("UPPER.CSV", "a.Csv.GZ", "a.csv", "a.csv.gz"):
        for written in (content, gzip.compress(content), b"\xef\xbb\xbf" + content):
            (tmp_path / name).write_bytes(written)
            assert corpora.read(tmp_path / name) == ["x"]


@pytest.mark.fault("C10")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_column_may_have_another_name(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix)
    if suffix == ".parquet":
        parquet.write_table(pa.table({"review": TEXTS, "text": TEXTS}), path)
    else:
        path.write_text(path.read_text().replace("text", "review", -1))
    assert corpora.read(path, "review") == TEXTS


@pytest.mark.fault("C10")
def test_a_folder_with_one_split_is_read_and_the_split_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, "tree")
    assert corpora.read(folder / "train") == TEXTS
    (folder / "train").rename(folder / "test")
    assert capsys.readouterr().err == ""
    assert corpora.read(folder) == TEXTS
    assert "its split test is read" in capsys.readouterr().err


def test_a_long_text_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * (20 << 20)}))
    assert [len(text) for text in corpora.read(tmp_path / "a.jsonl")] == [20 << 20]


def test_a_missing_file_and_another_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; put it there"):
        corpora.read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="give the unpacked folder aclImdb"):
        corpora.read(tmp_path)


def test_an_empty_review_of_the_archive_is_named(tmp_path: Path) -> None:
    file = tmp_path / "aclImdb" / "train" / "neg" / "0_1.txt"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match=r"0_1\.txt: row 1 has no text"):
        corpora.read(tmp_path / "aclImdb")


def test_the_imdb_reviews_are_25000(imdb: Path) -> None:
    assert len(corpora.read(imdb)) == 25_000
