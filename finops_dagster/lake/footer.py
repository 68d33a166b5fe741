"""The footer of a month's file: the texts that record its load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finops_dagster.billing.version import Load, LoadedVersion

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# Footer keys with texts, and their defaults: the first files have no `format` and no `run_id`.
_TEXTS = {"manifest_id": "", "total_cost": "", "format": "cur1", "run_id": ""}
# Row fields stored as JSON, and their footer keys. The footer's "files" is a number.
_JSON = {"file_count": "files", "byte_count": "bytes", "files": "source_files"} | {
    name: name for name in ("decimals_rounded", "money_sums", "cost_by_currency", "delivery")
}
LOADED_AT = "loaded_at"
# Statistics may have only the beginning of a text that is longer than some limit.
_LONG_TEXT = 100


def footer_texts(path: Path) -> dict[str, str] | None:
    """Return the texts in a file's footer by key; None if the file is missing or damaged.

    The number of rows is added as `row_count`.
    """
    try:
        metadata = _metadata(path)
    except (OSError, ValueError):  # a file that is no Parquet file is a ValueError of pyarrow
        return None
    texts = {key.decode(): text.decode() for key, text in (metadata.metadata or {}).items()}
    return {**texts, "row_count": str(metadata.num_rows)}


def _metadata(path: Path) -> pq.FileMetaData:
    import pyarrow.parquet as pq

    return pq.read_metadata(path)


def null_columns(path: Path) -> set[str]:
    """Return the columns that are NULL in every row of a Parquet file.

    Only the footer is read. Maps and lists, and columns without statistics, are not returned.
    Raises OSError or pyarrow's errors if it cannot be read.
    """
    metadata = _metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return {
        metadata.schema.column(number).path
        for number in range(metadata.num_columns)
        if metadata.schema.column(number).max_repetition_level == 0
        and all(_is_empty(group.column(number)) for group in groups)
    }


def _is_empty(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.is_stats_set and chunk.statistics.null_count == chunk.num_values)


def distinct_values_in_footer(path: Path) -> dict[str, set[str]]:
    """Return the values of text columns that have at most two in each row group, by column.

    They are the minimum and the maximum in the footer's statistics: no rows are read. NULL does not
    count. Left out are columns without these statistics or without any value, and columns with a
    text that is unprintable or has 100 or more characters. Raises as `null_columns`.
    """
    metadata = _metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = {}
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.converted_type == "UTF8" and column.max_repetition_level == 0:
            chunks = [group.column(number) for group in groups]
            texts = [_texts_of(chunk) for chunk in chunks if not _is_empty(chunk)]
            if texts and all(texts):
                columns[column.path] = set().union(*texts)
    return columns


def _texts_of(chunk: pq.ColumnChunkMetaData) -> set[str]:
    """Return the one or two texts of a column's row group; empty if its statistics lack any."""
    statistics = chunk.statistics
    if not chunk.is_stats_set or statistics.distinct_count not in (1, 2):
        return set()
    texts = {statistics.min, statistics.max} if statistics.has_min_max else set()
    if len(texts) != statistics.distinct_count:
        return set()
    # The writer may have cut a long text.
    return texts if all(t.isprintable() and len(t) < _LONG_TEXT for t in texts) else set()


def version_of_footer(texts: Mapping[str, str]) -> LoadedVersion | None:
    """Return the version that a footer records; None if it is not that of a month's file.

    `texts` are those of `footer_texts`. Fields that files of earlier releases lack get their
    defaults.
    """
    if "manifest_id" not in texts or "total_cost" not in texts:
        return None
    texts = {**_TEXTS, "files": "0", "bytes": "0", **texts}
    row = {name: json.loads(texts.get(key, "null")) for name, key in _JSON.items()}
    row |= {name: texts[name] for name in _TEXTS}
    return LoadedVersion.from_row({**row, "row_count": int(texts["row_count"])})


def footer_texts_of_version(version: LoadedVersion) -> dict[str, str]:
    """Return the footer texts that record a version, for `version_of_footer` to read."""
    row = version.to_row()
    return {
        **{name: row[name] for name in _TEXTS},
        **{key: json.dumps(row[name]) for name, key in _JSON.items()},
    }


def footer_texts_of_loaded_at(load: Load) -> dict[str, str]:
    """Return the footer text with the time at which a load was recorded; empty if it has none."""
    # The time of the file is not enough: a copy or a restored backup has another one.
    return {} if load.loaded_at is None else {LOADED_AT: load.loaded_at.isoformat()}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
