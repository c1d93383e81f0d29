"""Reads a corpus of texts from a file or a folder.

Texts are read exactly as they are written. A row without text is an error, and so is a row of CSV
with more or fewer fields than the first. `datasets` reads Parquet, the format of the hub, in which
each column has a type. In JSON and CSV, `datasets` would change texts such as 3 or 2020-01-01 and
fill short rows. These formats are therefore read by pyarrow, which is told that the column is text.
Other columns are ignored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyarrow import csv, parquet
from pyarrow import json as jsonl

from replicate.data import lfs
from replicate.errors import UserError

BLOCK = 1 << 26  # bytes read at a time; each row must be shorter
TEXTS = {"string", "large_string", "string_view", "binary", "large_binary", "binary_view"}


def _read_jsonl(content: bytes, column: str) -> pa.Table:
    schema = pa.schema({column: pa.string()})
    options = jsonl.ParseOptions(schema, unexpected_field_behavior="ignore")
    table = jsonl.read_json(pa.BufferReader(content), jsonl.ReadOptions(block_size=BLOCK), options)
    if table[column].null_count < len(table):
        return table
    first = json.loads(content.lstrip().partition(b"\n")[0])
    return table if column in first else pa.table({name: [] for name in first})


def _read_csv(content: bytes, column: str) -> pa.Table:
    if content.count(b'"') % 2:  # pyarrow would read everything after it as one text
        raise pa.ArrowInvalid("a quote is not closed")
    options = (
        csv.ReadOptions(block_size=BLOCK),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
    )
    with csv.open_csv(pa.BufferReader(content), *options) as first:
        names = first.schema.names
    if names.count(column) != 1:
        return pa.Table.from_arrays([pa.array([])] * len(names), names)
    conversion = csv.ConvertOptions(
        column_types=pa.schema({column: pa.string()}), include_columns=[column]
    )
    return csv.read_csv(pa.BufferReader(content), *options, conversion)


def _read_parquet(path: Path, column: str) -> pa.Table:
    found = parquet.ParquetFile(path)
    schema = found.schema_arrow
    if schema.names.count(column) != 1 or not found.metadata.num_rows:
        return schema.empty_table()
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if str(kind) not in TEXTS:
        raise pa.ArrowInvalid(f"its column {column!r} holds {kind}")
    import datasets
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    features = datasets.Features({column: datasets.Value("string")})
    given = {"features": features, "columns": [column], "keep_in_memory": True}
    try:
        with TemporaryDirectory() as cache:
            found = datasets.Dataset.from_parquet(str(path), cache_dir=cache, **given)
    except DatasetGenerationError as error:
        raise error.__cause__ or error from None
    return found.data.table  # pyright: ignore[reportAttributeAccessIssue]


def _read_txt(content: bytes, column: str) -> pa.Table:
    return pa.table({column: [content.decode("utf-8-sig")]})


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".txt": _read_txt}


def _unpacked(path: Path) -> bytes:
    """Returns the bytes of a text file, decompressed if it is gzipped.

    Raises:
        UserError: the text is UTF-16 or UTF-32.
    """
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = pa.input_stream(pa.BufferReader(content), compression="gzip").read()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4]:
        raise UserError(f"{path}: UTF-16 or UTF-32; save it as UTF-8")
    return content


def read(path: Path, column: str = "text") -> list[str]:
    """Reads all texts of a corpus, in the order of the file or folder.

    Args:
        path: a jsonl, csv (both may be gzipped) or parquet file; a txt file, which is one text; or
            the unpacked folder `aclImdb`.
        column: the name of the column that holds the texts; unused for a txt file or a folder.

    Returns:
        One text for each row of the file, or for each review of the folder.

    Raises:
        UserError: the file is missing, damaged or of another format, it has no such column, or a
            row has no text.
    """
    if path.is_dir():
        return read_tree(path)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in (*READERS, ".parquet"):
        raise UserError(
            f"{path}: unknown format; give a file ending in {', '.join(READERS)}, .parquet (or "
            ".jsonl.gz, .csv.gz), or the folder aclImdb"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file; put it there or correct the path")
    lfs.check(path)
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, column)
        else:
            table = READERS[suffix](_unpacked(path), column)
        names = table.column_names
        texts = table.column(column).to_pylist() if names.count(column) == 1 else None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
        cause = f"cannot be read ({str(error)[:120]})"
        raise UserError(f"{path}: {cause}; correct it, or replace it by a whole one") from None
    if texts is None:
        has = f"{'several columns' if column in names else 'no column'} {column!r} among"
        raise UserError(
            f"{path}: {has} {', '.join(names) or 'none'}; name the one that holds the texts "
            "(`column`), or rename it"
        )
    if not texts:
        raise UserError(f"{path}: has no row; replace it by a whole one")
    for row, text in enumerate(texts, 1):
        if not text:
            raise UserError(f"{path}: row {row} has no text; remove it")
    return texts


def read_tree(path: Path) -> list[str]:
    """Reads one split of the IMDB archive (Maas et al. 2011).

    Args:
        path: the folder `aclImdb`, or a split in it, such as `train`. If it is `aclImdb`, its split
            `train` is read. If there is no `train`, `test` is read, and a line on standard error
            says so.

    Returns:
        The texts of the files `neg/ID_RATING.txt`, then those of `pos`, both in order of ID.

    Raises:
        UserError: the folder has no such files, or a review is empty or cannot be read.
    """
    for split in (path, path / "train", path / "test"):
        files = sorted(
            [*split.glob("neg/[0-9]*_*.txt"), *split.glob("pos/[0-9]*_*.txt")],
            key=lambda file: (file.parent.name, len(file.stem.split("_")[0]), file.name),
        )
        if files:
            break
    else:
        raise UserError(
            f"{path}: has no train/neg/*.txt and train/pos/*.txt; give the unpacked folder aclImdb"
        )
    if split == path / "test":
        print(f"{path}: has no split train; its split test is read", file=sys.stderr)
    return [text for file in files for text in read(file)]
