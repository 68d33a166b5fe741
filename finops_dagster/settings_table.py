"""The base class of the settings' tables: no unknown keys, no secrets, errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from finops_dagster.billing.errors import CONTROL_CHARACTER, excerpt, excerpts

# Also what DuckDB takes for a database elsewhere: `md:` and `motherduck:` have no slash.
URL = re.compile(r"\s*([a-z][a-z0-9+.-]+:(/|$)|(ducklake|md|motherduck):)", re.I)
_PROBLEMS_SHOWN = 8
_SECRET_KEY = re.compile(r"passw|passphrase|secret|token|(private|api|access|account)_?key$", re.I)
_SECRET_VALUE = re.compile(
    r"://[^/@]*:[^/@]+@|(passw\w*|pwd|secret|token|key|[?&]sig)(=|%3d)", re.I
)
_SECRETS_ADVICE = "docs/security.md says where secrets belong"
_IS_NUMBER, _IS_WHOLE, _IS_TABLE = "must be a number", "must be a whole number", "must be a table"
_IS_EMPTY, _IS_BOOLEAN = (
    "must not be empty; set a value, or remove the key",
    "must be true or false",
)
# What the user reads for pydantic's types of errors. The messages of all others say themselves what
# a value should be.
_MESSAGES = {
    "bool_parsing": _IS_BOOLEAN,
    "bool_type": _IS_BOOLEAN,
    "byte_size": "must be a size, such as 2GB",
    "decimal_parsing": _IS_NUMBER,
    "decimal_type": _IS_NUMBER,
    "dict_type": _IS_TABLE,
    "extra_forbidden": "unknown key",
    "float_parsing": _IS_NUMBER,
    "float_type": _IS_NUMBER,
    "int_from_float": _IS_WHOLE,
    "int_parsing": _IS_WHOLE,
    "int_type": _IS_WHOLE,
    "missing": "missing value; set it",
    "model_type": _IS_TABLE,
    "string_too_short": _IS_EMPTY,
    "string_type": "must be a text, in quotes",
    "too_short": _IS_EMPTY,
    "tuple_type": 'must be a list, such as ["a", "b"]',
}
_UNKNOWN_KEY_ADVICE = "correct its name, or remove it"
# Keys of other tools and of earlier specifications, and what to write instead.
_REPLACEMENTS = {
    "aws": 'write each export as [[exports]] with vendor = "aws"; finops init writes an example',
    "state_db": "remove it: state is kept with the data, and runs in DAGSTER_HOME",
    "webhook": "set webhook_env to the name of an environment variable that has the URL",
    "state_manager": "remove it: Dagster keeps runs and their state in DAGSTER_HOME",
}


class SettingsError(Exception):
    """An invalid setting; the message is one line with file, key and problem."""


def _is_secret(name: str, value: object) -> bool:
    """Return whether a setting looks like a secret, by its name or by its value.

    A name that ends with `_env` does not: such a setting names an environment variable. A value
    does if it is a URL with a password, or has text such as `password=` or `token=`.
    """
    is_named = _SECRET_KEY.search(name) and not name.endswith("_env")
    return bool(is_named or _SECRET_VALUE.search(str(value)))


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost` or a loopback address; names are not resolved."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def flat_settings(table: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each single value in nested dicts and lists.

    Names are such as `duckdb.memory_limit` and `exports[0].name`. They begin with `name`, the name
    of `table` itself, unless it is empty. Empty dicts and lists yield nothing.
    """
    if isinstance(table, dict):
        for key, value in table.items():
            yield from flat_settings(value, f"{name}.{key}" if name else key)
    elif isinstance(table, list | tuple):
        for number, value in enumerate(table):
            yield from flat_settings(value, f"{name}[{number}]")
    else:
        yield name, table


def _checked_path(path: object) -> object:
    """Return the path. Raises ValueError for a URL, which would become a folder of that name."""
    if isinstance(path, str) and URL.match(path):
        raise ValueError("is a URL; it must be a path on this machine")
    return path


LocalPath = Annotated[Path, BeforeValidator(_checked_path)]
"""A path on this machine, which need not exist; a URL is refused."""
LocalPathText = Annotated[str, BeforeValidator(_checked_path)]
"""A `LocalPath` that stays text, as it was written."""


def pattern_validator(pattern: str, problem: str) -> AfterValidator:
    """Return the validator of a text that must match a pattern as a whole.

    `problem` is the message for any other text: what the text must be.
    """

    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return AfterValidator(checked)


class SettingsTable(BaseModel):
    """A table of the settings file.

    Unknown keys and secrets are refused, so that messages and metadata may show every value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _refuse_secrets(self) -> Self:
        for name, value in flat_settings(self.model_dump()):
            if _is_secret(name, value):
                raise ValueError(f"{name} holds a secret; {self._secret_advice(name)}")
        return self

    def _secret_advice(self, _name: str) -> str:
        """Return the advice for a secret under this name."""
        return _SECRETS_ADVICE

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_control_characters(cls, value: object) -> object:
        if isinstance(value, str) and CONTROL_CHARACTER.search(value):
            text = "a secret" if _is_secret("", value) else excerpt(value)
            raise ValueError(f"{text} has a line end or another control character; remove it")
        return value


def problems_line(location: str, error: ValidationError) -> str:
    """Return the first eight problems of a validation in one line, and the number of the others.

    Each begins with the place and the key. The place is the environment variable of the key if that
    is set, else `location`, which is the settings file.
    """
    lines = [_problem_line(location, problem) for problem in error.errors()]
    more = f"; and {len(lines) - _PROBLEMS_SHOWN} more" if len(lines) > _PROBLEMS_SHOWN else ""
    return "; ".join(lines[:_PROBLEMS_SHOWN]) + more


def _problem_line(location: str, problem: ErrorDetails) -> str:
    path = problem["loc"]
    key = "".join(
        f"[{part}]" if isinstance(part, int) else f".{excerpts([part], 1)}" for part in path
    ).removeprefix(".")
    variable = "FINOPS_" + "__".join(str(part).upper() for part in path)
    if variable in os.environ:
        location = f"environment variable {variable}"
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    message = _MESSAGES.get(problem["type"], text)
    if problem["type"] == "extra_forbidden":
        advice = _SECRETS_ADVICE if _is_secret(key, "") else _UNKNOWN_KEY_ADVICE
        message += f"; {_REPLACEMENTS.get(str(path[-1]), advice)}"
    return ": ".join(filter(None, (location, key, message)))
