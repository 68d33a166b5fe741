"""Builds the page of the bill: one HTML file that needs no other file and makes no request."""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template

# Joined in this order into one script: what a file uses stands before it.
SCRIPTS = (
    "amounts.js",
    "bill.js",
    "choice.js",
    "elements.js",
    "charts/base.js",
    "charts/months.js",
    "charts/running.js",
    "charts/tiny.js",
    "charts/bars.js",
    "charts/tree.js",
    "panels/how_much.js",
    "panels/where.js",
    "panels/moved.js",
    "panels/budgets.js",
    "panels/restated.js",
    "panels/saved.js",
    "panels/who_pays.js",
    "panels/not_usage.js",
    "panels/exact.js",
    "page.js",
)
# Each with its licence, which has to go wherever a copy goes.
LIBRARIES = {"vendor/d3.min.js": "vendor/LICENSE-d3", "vendor/plot.min.js": "vendor/LICENSE-plot"}


def page_html(bill: Mapping[str, object]) -> str:
    """Return the HTML page of a report's document, whose form `reports/document.py` describes.

    Its amounts must be whole numbers or their texts, as `scaled_document` returns them.
    All of the document is in the page, compressed, so that no text of a bill can become markup.
    """
    return Template(_file("page.html").decode()).substitute(
        _fixed_parts(), bill=_compressed(json.dumps(_smaller(bill), separators=(",", ":")).encode())
    )


@cache
def _fixed_parts() -> dict[str, str]:
    """Return the parts of the page that are the same for every bill."""
    style = _file("page.css").decode()
    font = base64.b64encode(_file("vendor/inter-latin.woff2")).decode()
    libraries = "\n".join(
        f"/*\n{_file(licence).decode()}*/\n{_file(library).decode()}"
        for library, licence in LIBRARIES.items()
    )
    scripts = "\n".join(_file(name).decode() for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{scripts}}})();\n'
    loader = _file("start.js").decode()
    return {
        "style": style.replace("FONT", f"data:font/woff2;base64,{font}"),
        "libraries": _compressed(libraries.encode()),
        "script": _compressed(script.encode()),
        "loader": loader,
        # Only these three scripts may run, whatever text a name in the bill has.
        "scripts": " ".join(map(_hash, (libraries, script, loader))),
    }


def _file(name: str) -> bytes:
    return files(__package__).joinpath("page", *name.split("/")).read_bytes()


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _compressed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _smaller(bill: Mapping[str, object]) -> dict[str, object]:
    """Return the document with effective costs as differences from billed ones, most of them 0."""
    return {name: _differences(table) for name, table in bill.items()}


def _differences(table: object) -> object:
    if not isinstance(table, Mapping) or not {"billed", "effective"} <= table.keys():
        return table
    pairs = zip(table["billed"], table["effective"], strict=True)
    differences = [int(effective) - int(billed) for billed, effective in pairs]
    columns = {name: column for name, column in table.items() if name != "effective"}
    return columns | {"effective_less_billed": [_number(d) for d in differences]}


def _number(amount: int) -> int | str:
    """Return an amount for JSON: text where a double would lose digits."""
    return amount if abs(amount) < 2**53 else str(amount)
