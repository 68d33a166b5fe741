"""Common questions about the charges by name: SQL over the view `focus`, a file for each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("questions")


class NamedQuestion(NamedTuple):
    """A question, with remarks on it and its SQL. `name` is that of its file."""

    name: str
    text: str
    remarks: str
    sql: str

    @classmethod
    def read(cls, path: Path) -> NamedQuestion:
        """Return the question in a file of `questions/`.

        The first comment line is the question, and the others are the remarks. All other lines are
        the SQL, without the semicolon at its end.
        """
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("-- ") for line in lines if line.startswith("--")]
        sql = "\n".join(line for line in lines if not line.startswith("--"))
        return cls(path.stem, comments[0], " ".join(comments[1:]), sql.removesuffix(";"))


def named_questions() -> dict[str, NamedQuestion]:
    """Return the questions by their names, in the order of the names."""
    files = sorted(_FOLDER.glob("*.sql"))
    return {path.stem: NamedQuestion.read(path) for path in files}
