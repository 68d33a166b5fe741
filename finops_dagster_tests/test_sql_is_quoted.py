"""Every part of a SQL statement is quoted, and every other value is bound.

mypy checks what is annotated with `Sql`. These tests read each f-string that is executed or called
`Sql`, and refuse parts that are annotated as anything else. Hostile names are tested where they
enter the program.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import finops_dagster

RUNS = {"execute", "sql", "query", "execute_sql", "execute_query", "_query", "Sql"}
QUOTES = {"quoted", "literal", "in_backticks", "in_quotes", "len", "str", "int", "Sql", "SqlType"}
Names = dict[str, ast.AST | str]


def is_text(part: ast.AST, names: Names) -> bool:
    """Return whether a part, or a value in it, is annotated as something else than Sql."""
    match part:
        case ast.Name(name) | ast.Attribute(_, name) if name in names and not name.isupper():
            kind = names[name]
            if isinstance(kind, str):
                return not re.search(r"\b(Sql|SqlType|int|date|datetime)\b", kind)
            return is_text(kind, {**names, name: "Sql"})
        case ast.ListComp(of) | ast.GeneratorExp(of) | ast.DictComp(_, of) | ast.Subscript(of):
            return is_text(of, names)
        case ast.IfExp(_, left, right):
            return is_text(left, names) or is_text(right, names)
        case ast.Call(ast.Attribute(of, "format" | "join"), parts) | ast.Call(
            ast.Attribute(of, "get"), [_, *parts]
        ):
            return any(is_text(child, names) for child in (of, *parts))
        case ast.Call(ast.Name("map"), [function, *_]):
            return is_text(ast.Call(function, [], []), names)
        case ast.Call(ast.Name(name) | ast.Attribute(_, name)) if name in QUOTES | names.keys():
            return name not in QUOTES and is_text(ast.Name(name), names)
    return any(is_text(child, names) for child in ast.iter_child_nodes(part))


def annotated(scope: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names in a module or class with their annotations."""
    for node in ast.walk(scope):
        match node:
            case ast.FunctionDef(name, returns=kind) | ast.AnnAssign(ast.Name(name), kind) if kind:
                yield name, ast.unparse(kind)


def unsafe(text: str, known: Names) -> Iterator[str]:
    """Yield each f-string that is executed, or called Sql, and has an unquoted part."""
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.FunctionDef) and function.name not in QUOTES:
            nodes, names = list(ast.walk(function)), dict(known)
            for node in nodes:
                match node:
                    case ast.arg(name, kind):
                        names[name] = ast.unparse(kind) if kind else "unknown"
                    case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(
                        ast.Name(name), value=ast.expr() as value
                    ):
                        names[name] = value
                    case ast.Assign([target]) | ast.For(target) | ast.comprehension(target):
                        names |= {n.id: "Sql" for n in ast.walk(target) if isinstance(n, ast.Name)}
            for node in nodes:
                match node:
                    case ast.Call(ast.Name(run) | ast.Attribute(_, run), [ast.JoinedStr(), *_]):
                        if run in RUNS and is_text(node.args[0], names):
                            yield ast.unparse(node.args[0])


def test_every_statement_is_made_of_constants_and_quoted_parts() -> None:
    paths = Path(finops_dagster.__file__).parent.rglob("*.py")
    modules = [path.read_text() for path in paths if path.parent.name != "demo"]
    kinds = [pair for module in modules for pair in annotated(ast.parse(module))]
    known: Names = dict(sorted(kinds, key=lambda pair: "Sql" in pair[1]))
    assert [statement for module in modules for statement in unsafe(module, known)] == []


@pytest.mark.parametrize(
    ("part", "count"),
    [("table", 1), ("table + table", 1), ("quoted(table)", 0), ("whole", 0), ("most", 0)],
)
def test_an_unquoted_part_is_found(part: str, count: int) -> None:
    module = f"def of(run, table: str, most: int, whole: Sql): run.execute(f'FROM {{{part}}}')"
    assert len(list(unsafe(module, {}))) == count
