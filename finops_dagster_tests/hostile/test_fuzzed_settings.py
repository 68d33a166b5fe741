"""Fuzzed settings files: they build the definitions, or raise a SettingsError of one line."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finops_dagster.pipeline.build import build_definitions
from finops_dagster.settings import load_settings
from finops_dagster.settings_table import SettingsError
from finops_dagster_tests.hostile.reading import one_line
from finops_dagster_tests.test_settings import EXPORT

SETTINGS = f"""\
[storage]
max_inflation = 300
[database]
backend = "bigquery"
[database.bigquery]
project_id = "acme"
[database.duckdb]
database_path = "data/{{export}}-{{month}}.duckdb"
memory_limit = "2GB"
threads = 2
lock_wait_seconds = 60
{EXPORT}column_names = "athena"
endpoint_url = "http://127.0.0.1:5000"
sensor = false
"""
WORDS = SETTINGS.replace("\n", " \n ").split(" ")
PIECES = [
    *("", "\n", "=", "[", "]", "{", "}", '"', "'", ".", "#", "\0", "\ud800", "\ufeff", "é"),
    *("inf", "-inf", "nan", "1e400", "-1", "0", "9" * 60, "9" * 5000, "true", "[1]", "{a = 1}"),
    *('""', '"\\u0000"', '"a\\nb"', '".."', '"/"', '"0000-00"', '"9999-12"', '"1000-01"'),
    *('"{x}"', '"s3://"', '"file://x"', '"cur2"', f'"{"x" * 5000}"', "1979-05-27T07:32:00Z"),
    *("[[exports]]", "[database.sql]", "[database.oracle]", '"a\\nb" = 1', "[" * 5000),
]


@st.composite
def fuzzed_settings(draw: st.DrawFn) -> bytes:
    """Draw a settings file with some words replaced or left out."""
    words = WORDS.copy()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(words) - 1))
        words[place] = draw(st.sampled_from(PIECES) | st.sampled_from(WORDS) | st.text(max_size=9))
    return " ".join(words).encode(errors="surrogatepass")


@example(body=SETTINGS.replace("2024-01", "x" * 5000).encode())
@given(body=fuzzed_settings() | st.binary(max_size=100))
def test_fuzzed_settings_and_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "finops.toml"
    file.write_text(SETTINGS)
    assert load_settings(file).exports
    file.write_bytes(body)
    try:
        settings = load_settings(file)
    except SettingsError as error:
        assert one_line(error).startswith(f"{file}: ")
        return
    build_definitions(settings)
    assert all(export.months() for export in settings.exports)
