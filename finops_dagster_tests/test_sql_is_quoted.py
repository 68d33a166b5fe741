"""What is put into a statement is quoted, and every other value is bound.

`Sql` is a text that may be put into a statement. mypy holds what is annotated with it; here it is
held what is called so, and what is run: constants, numbers and `Sql`, also by way of variables.
"""

from __future__ import annotations

import ast
import re
from collections import ChainMap, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import finops_dagster

# What runs the text that it is given first; of the project's own, what has a parameter `sql`.
RUNS = {"execute", "sql", "query", "project", "execute_sql", "execute_query"}
QUOTES = {"quoted", "literal", "in_backticks", "in_quotes"}
QUOTES_OF_DLT = {"escape_column_name", "make_qualified_table_name"}
HARMLESS = {"Sql", "SqlType", "ColumnType", "int", "len"}
AS_IT_IS = {
    "cli/event_log.py: text(sql)": "one of the constants above it",
    "cli/lake.py: statements[0]": "what the person asked, in a database that can only read",
    "demo/bill.py": "constants alone: neither settings nor a bill reach it",
    "warehouses/bigquery/columns.py": "names in backticks, texts as JSON, its types",
    "warehouses/sql/columns.py": "the statements above, and names that are quoted",
    "warehouses/postgresql/month.py: re.sub(on_table, '', definition)": "PostgreSQL says",
    "warehouses/snowflake/warehouse.py: self.stage": "held to a pattern by its settings",
}


@dataclass(frozen=True)
class Each:
    """What a loop gives to a name: one after the other of what is in a collection."""

    of: ast.expr


Given = ast.expr | Each | str  # str: an annotation
Names = ChainMap[str, list[Given]]


def unsafe(sources: dict[str, str]) -> list[str]:
    """What these modules, by path, run or call `Sql` with something in it that nobody quoted."""
    trees = {path: ast.parse(text) for path, text in sources.items()}
    public, constants = Annotated(), defaultdict[str, list[Given]](list)
    everywhere: dict[str, int] = {}
    for tree in trees.values():
        public.add(tree, private=False)
        everywhere |= {name: at for name, at in _places(tree).items() if name not in RUNS}
        for name, given in _names(tree).items():
            constants[name] += given if name.isupper() else []
    found = []
    for path, tree in trees.items():
        annotated = Annotated({name: set(all_of) for name, all_of in public.items()})
        annotated.add(tree, private=True)
        for text, names in _run(tree, ChainMap({}, constants), everywhere | _places(tree)):
            told = f"{path}: {ast.unparse(text)}"
            if not annotated.is_sql(text, names) and not {path, told} & AS_IT_IS.keys():
                found.append(told)
    return found


class Annotated(dict[str, set[str]]):
    """The annotations that each attribute and function of a name has. Of a private one, those in
    its own module count."""

    def add(self, tree: ast.Module, *, private: bool) -> None:
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name, returns=annotation) | ast.AnnAssign(
                    ast.Name(name), annotation
                ) if name.startswith("_") == private:
                    self.setdefault(name, set()).add(_annotation(annotation))

    def is_sql(self, given: Given, names: Names) -> bool:
        """Whether this text may be put into a statement."""

        def all_sql(*parts: Given) -> bool:
            return all(self.is_sql(part, names) for part in parts)

        match given:
            case str() as annotation:
                return annotation in HARMLESS
            case Each(of) | ast.Subscript(of) | ast.Starred(of):
                return self.has_sql(of, names)
            case ast.FormattedValue(value):
                return all_sql(value)
            case ast.JoinedStr(parts) | ast.BoolOp(values=parts) | ast.Dict(_, parts):
                return all_sql(*parts)
            case ast.IfExp(_, one, other) | ast.BinOp(one, _, other):
                return all_sql(one, other)
            case ast.Name(name) if name in names:
                inside = names.new_child({name: []})
                return all(self.is_sql(each, inside) for each in names[name])
            case ast.Attribute(of, name):
                return _name(of) in HARMLESS or self._is_annotated(name)
            case ast.Call():
                return self._gives_sql(given, names)
        return isinstance(given, ast.Constant)

    def _gives_sql(self, call: ast.Call, names: Names) -> bool:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        match call.func, given:
            case ast.Attribute(separator, "join"), [parts]:
                return self.is_sql(separator, names) and self.has_sql(parts, names)
            case ast.Attribute(mapping, "get"), [_, *parts]:
                return self.has_sql(mapping, names) and all(self.is_sql(p, names) for p in parts)
            case ast.Attribute(template, "format"), parts:
                return all(self.is_sql(part, names) for part in (template, *parts))
            case ast.Name("min"), parts:
                return all(self.is_sql(part, names) for part in parts)
        name = _name(call.func)
        return name in QUOTES | QUOTES_OF_DLT | HARMLESS or self._is_annotated(name)

    def has_sql(self, of: Given, names: Names) -> bool:
        """Whether all that is in a collection may be put into a statement; of a mapping, its
        values."""
        match of:
            case str() as annotation:
                held = re.search(r"(\w+)\]$", annotation)
                return held is not None and held[1] in HARMLESS
            case ast.List(parts) | ast.Tuple(parts) | ast.Dict(_, parts):
                return all(self.is_sql(part, names) for part in parts)
            case ast.ListComp(part) | ast.GeneratorExp(part) | ast.DictComp(_, part):
                return self.is_sql(part, names)
            case ast.Name(name) if name in names:
                inside = names.new_child({name: []})
                return all(self.has_sql(each, inside) for each in names[name])
            case ast.Call(ast.Name("map"), [function, *_]):
                return self.is_sql(ast.Call(function, [], []), names)
            case ast.Subscript(of) | ast.Call(ast.Attribute(of, "items" | "values")):
                return self.has_sql(of, names)
            case (
                ast.Attribute(_, name) | ast.Call(ast.Attribute(_, name)) | ast.Call(ast.Name(name))
            ) if name in self:
                return all(self.has_sql(annotation, names) for annotation in self[name])
        return isinstance(of, ast.Call) and _name(of.func) == "range"

    def _is_annotated(self, name: str) -> bool:
        return name in self and self[name] <= HARMLESS


def _run(scope: ast.AST, outer: Names, places: dict[str, int]) -> Iterator[tuple[ast.expr, Names]]:
    """Each text that is run, or called `Sql`, with the names that it sees."""
    names = outer.new_child(_names(scope))
    for node in _own(scope):
        if isinstance(node, ast.FunctionDef) and node.name not in QUOTES:
            yield from _run(node, names, places)
        elif isinstance(node, ast.Call):
            place = places.get(_name(node.func), len(node.args))
            yield from ((text, names) for text in node.args[place : place + 1])


def _places(tree: ast.Module) -> dict[str, int]:
    """Where among its arguments a function has the text that it runs."""
    places = dict.fromkeys(RUNS | {"Sql"}, 0)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            parameters = [each.arg for each in node.args.args if each.arg != "self"]
            if "sql" in parameters:
                places[node.name] = parameters.index("sql")
    return places


def _names(scope: ast.AST) -> dict[str, list[Given]]:
    """What each name of a function or module is given. Who calls a function with a parameter `sql`
    is looked at in its place."""
    names: dict[str, list[Given]] = defaultdict(list)
    for node in _own(scope):
        for name, given in _given(node):
            names[name].append(given)
    return names


def _given(node: ast.AST) -> Iterator[tuple[str, Given]]:
    match node:
        case ast.arg(name, annotation):
            yield name, "Sql" if name == "sql" else _annotation(annotation)
        case ast.Assign([ast.Subscript(ast.Name(name))], value) | ast.Call(
            ast.Attribute(ast.Name(name), "append"), [value]
        ):
            yield name, ast.List([value])
        case ast.Call(ast.Attribute(ast.Name(name), "extend" | "insert" | "update")):
            yield name, "of unknown content"
        case ast.Assign(targets, value):
            for target in targets:
                yield from _unpacked(target, value)
        case ast.AnnAssign(ast.Name(name), annotation, value):
            said = _annotation(annotation)
            yield name, said if "Sql" in said or value is None else value
        case ast.AugAssign(target, _, value):
            yield _name(target), value
        case ast.For(target, of) | ast.comprehension(target, of):
            yield from _unpacked(target, Each(of))


def _unpacked(target: ast.expr, value: Given) -> Iterator[tuple[str, Given]]:
    match target, value:
        case ast.Tuple(targets), ast.Tuple(values):
            yield from zip(map(_name, targets), values, strict=True)
        case ast.Tuple([key, inner]), Each(ast.Call(ast.Attribute(_, "items"))):
            yield from ((_name(key), "of unknown content"), (_name(inner), value))
        case ast.Tuple(targets), _:
            yield from ((_name(each), "of unknown content") for each in targets)
        case _:
            yield _name(target), value


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module without those of the functions in it."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, ast.FunctionDef):
            yield from _own(node)


def _annotation(node: ast.expr | None) -> str:
    return ast.unparse(node).removesuffix(" | None") if node else ""


def _name(node: ast.expr) -> str:
    return getattr(node, "attr", None) or getattr(node, "id", "")


def module_of(body: str) -> dict[str, str]:
    """A module with the body in a function, and one that runs what it is given."""
    module = f"""
def _ask(run, sql: str):
    run.execute(sql)
def of(run, table: str, tables: list[str], most: int, whole: Sql):
    {body}
"""
    return {"module.py": module}


def test_what_is_run_is_made_of_constants_and_of_what_was_quoted() -> None:
    folder = Path(finops_dagster.__file__).parent
    sources = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}
    assert unsafe(sources) == []


@pytest.mark.parametrize(
    "body",
    [
        """run.execute(f"FROM {table}")""",
        """run.execute("FROM " + table)""",
        """run.execute("FROM {}".format(table))""",
        """run.sql("FROM %s" % table)""",
        """run.execute(" UNION ".join(f"FROM {each}" for each in [table]))""",
        """name = quoted(table)\n    name = table\n    run.execute(f"FROM {name}")""",
        """parts = []\n    parts.append(table)\n    run.execute(" ".join(parts))""",
        """parts = {}\n    parts[0] = table\n    run.execute(" ".join(parts.values()))""",
        """return Sql(table)""",
        """_ask(run, f"FROM {table}")""",
    ],
)
def test_what_nobody_quoted_is_found(body: str) -> None:
    assert len(unsafe(module_of(body))) == 1


@pytest.mark.parametrize(
    "body",
    [
        """run.execute("FROM bills WHERE month = ?", [table])""",
        """run.execute(f"FROM {quoted(table)} LIMIT {most}")""",
        """parts = [quoted(each) for each in tables]\n    run.execute(" ".join(parts))""",
        """_ask(run, f"FROM {whole}")""",
    ],
)
def test_what_was_quoted_is_not(body: str) -> None:
    assert unsafe(module_of(body)) == []
