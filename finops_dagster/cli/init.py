"""`finops init`: a first settings file, to be filled in."""

from __future__ import annotations

from pathlib import Path

from finops_dagster.billing.errors import BillError
from finops_dagster.settings import DEFAULT_CONFIGS


def write_first_settings(file: Path | None) -> Path:
    """Write the commented example to `file`, or to where `finops` looks first; return its path.
    Raises BillError where settings are there already."""
    for there in [file] if file else DEFAULT_CONFIGS:
        if there.exists():
            raise BillError(f"{there} is there already, and was left as it is")
    written = file or DEFAULT_CONFIGS[0]
    text = Path(__file__).with_name("first_settings.toml").read_text(encoding="utf-8")
    try:
        written.parent.mkdir(parents=True, exist_ok=True)
        with written.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise BillError(f"{written} cannot be written: {error.strerror}") from error
    return written
