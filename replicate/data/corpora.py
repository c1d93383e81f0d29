"""Reads a corpus of texts from a file or a folder.

Texts are read exactly as they are written. A row without text, or with more or fewer fields than
the first row, is an error. pyarrow reads all formats. The library `datasets` would change texts
such as 3 or 2020-01-01 in JSON and CSV, and fill short rows.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import csv, json, parquet

from replicate.errors import UserError

TEXT = pa.schema({"text": pa.string()})
BLOCK = 1 << 26  # bytes read at a time; each row must be shorter


def _read_jsonl(path: Path) -> pa.Table:
    options = json.ParseOptions(TEXT, unexpected_field_behavior="ignore")
    return json.read_json(path, json.ReadOptions(block_size=BLOCK), options)


def _read_csv(path: Path) -> pa.Table:
    content = pa.input_stream(path).read()
    if content.count(b'"') % 2:  # pyarrow would read everything after it as one text
        raise pa.ArrowInvalid("a quote is not closed")
    return csv.read_csv(
        pa.BufferReader(content),
        csv.ReadOptions(block_size=BLOCK),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=TEXT),
    )


def _read_parquet(path: Path) -> pa.Table:
    file = parquet.ParquetFile(path)
    schema = file.schema_arrow
    if schema.names.count("text") != 1:
        return schema.empty_table()
    if schema.field("text").type not in (pa.string(), pa.large_string()):
        raise pa.ArrowInvalid(f"its column `text` holds {schema.field('text').type}")
    return file.read(["text"])


def _read_txt(path: Path) -> pa.Table:
    return pa.table({"text": [pa.input_stream(path).read().decode("utf-8")]})


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet, ".txt": _read_txt}


def read(path: Path) -> list[str]:
    """Reads all texts of a corpus, in the order of the file or folder.

    Args:
        path: a jsonl, csv (both may be gzipped) or parquet file with a column `text`; a txt file,
            which is one text; or the unpacked folder `aclImdb`.

    Returns:
        One text for each row of the file, or for each review of the folder.

    Raises:
        UserError: the file is missing, damaged or of another format, it has no column `text`, or
            a row has no text.
    """
    if path.is_dir():
        return read_tree(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in READERS:
        raise UserError(
            f"{path}: unknown format; give a file ending in {', '.join(READERS)} (or .jsonl.gz, "
            ".csv.gz), or the folder aclImdb"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file; put it there or correct the path in params.yaml")
    try:
        table = READERS[suffix](path)
        names = table.column_names
        texts = table.column("text").to_pylist() if names.count("text") == 1 else None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        cause = f"cannot be read ({str(error)[:120]})"
        raise UserError(f"{path}: {cause}; replace it by a whole one") from None
    if texts is None:
        raise UserError(
            f"{path}: needs one column `text`, and has {', '.join(names) or 'none'}; rename the "
            "one that holds the texts"
        )
    for row, text in enumerate(texts, 1):
        if not text:
            raise UserError(f"{path}: row {row} has no text; remove it")
    return texts


def read_tree(path: Path) -> list[str]:
    """Reads the training reviews of the IMDB archive (Maas et al. 2011).

    Args:
        path: the folder `aclImdb`, or its folder `train`.

    Returns:
        The texts of `train/neg/ID_RATING.txt`, then those of `train/pos`, both in order of ID.

    Raises:
        UserError: the folder has no such files, or a review is empty or cannot be read.
    """
    train = path if path.name == "train" else path / "train"
    files = sorted(
        [*train.glob("neg/[0-9]*_*.txt"), *train.glob("pos/[0-9]*_*.txt")],
        key=lambda file: (file.parent.name, len(file.stem.split("_")[0]), file.name),
    )
    if not files:
        raise UserError(
            f"{path}: has no train/neg/*.txt and train/pos/*.txt; give the unpacked folder aclImdb"
        )
    return [text for file in files for text in read(file)]
