"""Write the parts of docs/focus.md that are made: the tables, and the questions with answers.

python -m finops_dagster_tests.focus.page --tables

Without `--tables` it also answers the questions, from the months that `make demo` has loaded here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType

from finops_dagster import focus
from finops_dagster.focus import repairs
from finops_dagster.focus.mapping import Charge, Expression, FocusMapping, Kind
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.focus.named_questions import NamedQuestion, named_questions
from finops_dagster.focus.native import OLDER_NAMES, NativeMapping
from finops_dagster.focus.repairs import Repair
from finops_dagster.focus.specification import Specification
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.project import ROOT

PAGE = ROOT / "docs" / "focus.md"
_FORMATS = {
    ("aws", "cur1"): "AWS CUR v1",
    ("aws", "cur2"): "AWS CUR 2.0",
    ("aws", "focus"): "AWS FOCUS",
    ("azure", "actual"): "Azure's actual with its amortized costs",
    ("azure", "focus"): "Azure FOCUS",
    ("focus-files", "focus"): "FOCUS files",
}
_LONGEST_SQL = 120
_ORDER = """
top-services amortized-against-billed effective-savings-rate commitments untagged marketplace
tax-and-credits month-against-month by-account by-tag
""".split()


def questions() -> list[NamedQuestion]:
    """Return the questions, in the order of the page."""
    known = named_questions()
    assert known.keys() == set(_ORDER)
    return [known[name] for name in _ORDER]


def command(question: NamedQuestion) -> str:
    """Return the command that answers a question."""
    return f'finops query "\n{question.sql}"'


def session(question: NamedQuestion) -> str:
    """Run the command of a question, and return it with what it prints."""
    arguments = [*FINOPS, "query", f"\n{question.sql}"]
    environment = {**os.environ, "COLUMNS": "115", "FINOPS_CONFIG": "data/demo/finops.toml"}
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(arguments, stdout=pipe, stderr=both, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stdout)
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    shown = f"```console\n$ {command(question)}\n{printed}\n```\n"
    return f"### {question.text}\n\n{introduction(question)}\n\n{shown}"


def introduction(question: NamedQuestion) -> str:
    """Return what stands between a question and its SQL."""
    text = f"{question.remarks} By name: `finops query --named {question.name}`".strip()
    return textwrap.fill(text, 119, break_on_hyphens=False)


def columns_table() -> str:
    """Return the table of the columns of FOCUS."""
    rows = (
        [
            f"`{column.name}`",
            column.type,
            column.level if column.nullable else f"{column.level}, never null",
            column.description + _values(column.allowed_values),
        ]
        for column in Specification.load("1.2").columns
    )
    return _table(["column", "type", "level", "what it is"], rows)


def mapping_tables() -> str:
    """Return the tables of all mappings."""
    formats: dict[str, list[str]] = {}
    # In the order of their names, as tests that set mappings for themselves put them in another.
    by_format = {key: MAPPINGS[key] for key in sorted(MAPPINGS)}
    mappings = {mapping.name: mapping for mapping in by_format.values()}
    for key, mapping in by_format.items():
        formats.setdefault(mapping.name, []).append(_FORMATS[key])
    parts = [
        f"### {' and '.join(formats[name])}\n\n"
        f"In `{_module_of(mapping).__name__.replace('.', '/')}.py`.\n\n{MappingTables.of(mapping)}"
        for name, mapping in mappings.items()
    ]
    shared = MappingTables(next(iter(mappings.values())), _short_names(vars(repairs)), None)
    return "\n".join(
        [
            *parts,
            "### All exports that are FOCUS already\n\nIn `finops_dagster/focus/repairs.py`.\n",
            _table(["column", "SQL", "why"], shared.expressions(repairs.DERIVED)),
            shared.repairs(repairs.REPAIRS),
            _other_names(OLDER_NAMES),
        ]
    )


def with_part(page: str, name: str, text: str) -> str:
    """Return the page with another text between the two comments that name a part of it."""
    pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
    changed, count = re.subn(
        pattern, lambda match: f"{match[1]}\n{text}\n{match[2]}", page, flags=re.DOTALL
    )
    assert count == 1, f"{PAGE} has no part {name}"
    return changed


@dataclass(frozen=True)
class MappingTables:
    """The tables of a mapping. `names` are short names for long SQL that it repeats.

    `native` is what the mapping is made of, where the export is FOCUS already.
    """

    mapping: FocusMapping
    names: Mapping[str, str]
    native: NativeMapping | None

    @classmethod
    def of(cls, mapping: FocusMapping) -> MappingTables:
        """Return the tables, with the names that the mapping's own file gives to its SQL."""
        file = vars(_module_of(mapping))
        natives = (value for value in file.values() if isinstance(value, NativeMapping))
        native = next((native for native in natives if native.name == mapping.name), None)
        return cls(mapping, _short_names(file), native)

    def __str__(self) -> str:
        tables = [
            _table(["kind of line items", "which", "charges", "differs"], self._kinds()),
            "".join(f"{number}. {why}\n" for number, why in enumerate(self._moves, 1)),
        ]
        if self.native:
            tables += [
                _table(["column", "SQL", "why"], self.expressions(self.native.derived)),
                self.repairs(self.native.repairs),
                _other_names(self.native.names),
            ]
        else:
            tables.append(_table(["column", "SQL", "why"], self._columns()))
        lookups = [
            [f"`{lookup.name}_...`", f"`{lookup.file}`", ", ".join(map(self._code, lookup.keys))]
            for lookup in self.mapping.lookups
        ]
        tables.append(_table(["what they look up", "file", "found by"], lookups))
        names = [*self._steps(), *self._used_names("".join(tables))]
        tables.insert(-1, _table(["what they read", "SQL"], names))
        return "\n".join(filter(None, tables))

    @cached_property
    def _moves(self) -> list[str]:
        return list(dict.fromkeys(kind.moved for kind in self.mapping.kinds if kind.moved))

    def expressions(self, expressions: Mapping[str, Expression]) -> Iterator[list[str]]:
        """Yield the table's row of each column: its name, its SQL, and why, sorted by name."""
        for name, expression in sorted(expressions.items()):
            yield [f"`{name}`", self._code(expression.sql), _escaped(expression.why)]

    def repairs(self, found: Iterable[Repair]) -> str:
        """Return the table of repairs; those that differ in nothing but the column are one row."""
        columns: dict[tuple[str, ...], list[str]] = {}
        for repair in found:
            own = re.compile(rf"(?<![{{\w]){repair.column}\b")
            when, value = (own.sub("column", sql or "") for sql in (repair.when, repair.value))
            columns.setdefault((repair.code, when, value, repair.why), []).append(repair.column)
        rows = (
            [
                ", ".join(f"`{name}`" for name in names),
                code,
                self._code(when),
                self._code(value) if value else "as it is",
                _escaped(why),
            ]
            for (code, when, value, why), names in columns.items()
        )
        return _table(["column", "repair", "where", "becomes", "why"], rows)

    def _kinds(self) -> Iterator[list[str]]:
        for kind in self.mapping.kinds:
            charges = "<br>".join(self._charge(charge) for charge in kind.charges) or "none"
            moved = str(self._moves.index(kind.moved) + 1) if kind.moved else ""
            yield [kind.name, self._condition(kind), charges, moved]

    def _condition(self, kind: Kind) -> str:
        if kind.is_extra:
            return "made of several line items"
        return "all others" if kind.when == "true" else self._code(kind.when)

    def _charge(self, charge: Charge) -> str:
        condition = "" if charge.when == "true" else f" where {self._code(charge.when)}"
        return f"`{charge.rule}`{condition}"

    def _columns(self) -> Iterator[list[str]]:
        charges = [charge for kind in self.mapping.kinds for charge in kind.charges]
        expressions = {**self.mapping.columns, **self.mapping.derived}
        defined = [column.name for column in Specification.load("1.2").columns]
        order = [name for name in defined if name in expressions]
        for name in [*order, *(name for name in expressions if name not in defined)]:
            others: dict[str, list[str]] = {}
            for charge in charges:
                if charge.columns.get(name, expressions[name].sql) != expressions[name].sql:
                    others.setdefault(charge.columns[name], []).append(charge.rule)
            cells = [
                f"{_rules(rules, charges)}: {self._code(sql)}" for sql, rules in others.items()
            ]
            if len(charges) > sum(map(len, others.values())):
                cells.insert(0, self._code(expressions[name].sql))
            yield [f"`{name}`", "<br>".join(cells), _escaped(expressions[name].why)]

    def _steps(self) -> Iterator[list[str]]:
        """Yield what is computed of a line item before its columns."""
        for column in self.mapping.inputs:
            if isinstance(column.build, partial):
                yield [f"`{column.name}`", self._code(column.build.args[0])]
            elif column.build is not None:
                yield [f"`{column.name}`", (column.build.__doc__ or "").splitlines()[0]]
        for step in () if self.native else self.mapping.steps:
            yield from ([f"`{name}`", self._code(sql)] for name, sql in step.items())

    def _used_names(self, text: str) -> Iterator[list[str]]:
        """Yield the short names in the text, and those in their own SQL."""
        shown = dict[str, str]()
        for _ in self.names:
            for name, sql in self.names.items():
                if name not in shown and re.search(rf"\b{name}\b", text):
                    shown[name] = self._code(sql, name)
                    text += shown[name]
        yield from ([f"`{name}`", shown[name]] for name in sorted(shown))

    def _code(self, sql: str, own_name: str = "") -> str:
        """Return SQL for a cell of a table, in one line, with the short names.

        Instead of long SQL, it says what that reads.
        """
        sql = re.sub(r"\bnew_(\w+)", r"{\1}", _one_line(sql))
        for name, text in self.names.items():
            if name != own_name:
                sql = re.sub(rf"\({re.escape(text)}\)|(?<!\w){re.escape(text)}(?!\w)", name, sql)
        if len(sql) <= _LONGEST_SQL:
            return f"`{_escaped(sql)}`"
        words = re.findall(r"\w+", re.sub("'[^']*'", "", sql))
        read = dict.fromkeys(word for word in words if self._is_name(word) and word != own_name)
        return f"of {', '.join(f'`{name}`' for name in read)}" if read else "in the file"

    def _is_name(self, word: str) -> bool:
        """Return whether a word of SQL is the name of a value, and not SQL's own."""
        mapping = self.mapping
        names = {"column", *self.names, *mapping.columns, *(i.name for i in mapping.inputs)}
        names |= {name for step in mapping.steps for name in step}
        lookups = tuple(f"{lookup.name}_" for lookup in mapping.lookups)
        return word in names or word.startswith(lookups or "-")


def _module_of(mapping: FocusMapping) -> ModuleType:
    """Return the module that defines a mapping."""
    modules = (module for name, module in sys.modules.items() if focus.__name__ in name)
    return next(
        module
        for module in modules
        if mapping in vars(module).values() and "MAPPINGS" not in vars(module)
    )


def _rules(rules: Sequence[str], charges: Sequence[Charge]) -> str:
    """Return the names of rules; if they are most of them, those of the others."""
    others = [charge.rule for charge in charges if charge.rule not in rules]
    return f"all but {', '.join(others)}" if len(others) < len(rules) / 2 else ", ".join(rules)


def _other_names(names: Mapping[str, Sequence[str]]) -> str:
    rows = ([f"`{name}`", ", ".join(f"`{n}`" for n in others)] for name, others in names.items())
    return _table(["column", "is also read under the names"], rows)


def _table(headings: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table, or nothing where it has no rows."""
    lines = [headings, ["---"] * len(headings), *rows]
    if len(lines) == 2:
        return ""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _values(values: Sequence[str]) -> str:
    return f" One of: {', '.join(values)}." if values else ""


def _short_names(file: Mapping[str, object]) -> dict[str, str]:
    """Return the SQL that a file of code gives a name to, the longest first."""
    constants = {
        name.lstrip("_"): _one_line(value)
        for name, value in file.items()
        if re.fullmatch("_?[A-Z][A-Z_]+", name) and isinstance(value, str) and _is_long(value)
    }
    return dict(sorted(constants.items(), key=lambda item: -len(item[1])))


def _is_long(sql: str) -> bool:
    """Return whether SQL deserves a short name; the beginning of a CASE, or of an id, does not."""
    is_whole = sql.endswith("END") if sql.startswith("CASE") else not sql.startswith("/")
    return len(sql) > 30 and is_whole


def _one_line(sql: str) -> str:
    return " ".join(sql.split())


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def with_tables(page: str) -> str:
    """Return the page with the tables as they are now."""
    page = with_part(page, "columns", columns_table())
    return with_part(page, "mappings", mapping_tables())


if __name__ == "__main__":
    page = with_tables(PAGE.read_text(encoding="utf-8"))
    if "--tables" not in sys.argv:
        page = with_part(page, "questions", "\n".join(map(session, questions())))
    PAGE.write_text(page, encoding="utf-8")
