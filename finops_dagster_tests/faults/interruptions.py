"""Faults during a run: kill -9, a newer version, another run, a folder that vanishes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster.demo.export import Layout
from finops_dagster_tests.faults.project import FaultProject
from finops_dagster_tests.warehouses.adapters import running_adapter

_OUTPUTS = {
    "data/staging": "",
    "data/parquet": "Parquet",
    "data/finops.duckdb": "DuckDB",
    "home": "",
}


def kills(folder: Path, random: Random) -> Iterator[str]:
    """Kill runs with -9 at any moment, while they load restated months.

    Half of them end in a DuckDB warehouse, half in PostgreSQL. Sometimes the run that recovers is
    killed too; a later run must then recover without help.
    """
    with running_adapter("postgresql") as postgresql:
        projects = [
            FaultProject(folder / "duckdb", random, layout=Layout(overwrite=True)),
            FaultProject(folder / "postgresql", random, postgresql),
        ]
        for project in projects:
            project.deliver()
        while True:
            for project in projects:
                project.deliver_some()
                for _ in range(random.randint(1, 3)):
                    dagster = random.random() < 0.25
                    month = project.month_command(random.choice(project.months), dagster=True)
                    process, is_late = project.start_and_interrupt(*(month if dagster else ()))
                    process.kill()
                    project.assert_whole()
                    if not is_late:
                        yield f"{'dagster' if dagster else 'finops'}, {project.folder.name}"
                project.recover()


def manifests(folder: Path, random: Random) -> Iterator[str]:
    """Deliver the next version at a random moment of a run.

    The run ends on one version, or with the reason why it cannot; the next run loads the newer one.
    """
    layouts = {"versioned": Layout(), "overwritten": Layout(overwrite=True)}
    projects = [FaultProject(folder / name, random, layout=layouts[name]) for name in layouts]
    while True:
        for project in projects:
            project.deliver()
            command, is_late = project.start_and_interrupt()
            project.deliver()
            code, output = command.end()
            assert code == 0 or "failed: " in output, output
            project.assert_whole()
            project.recover()
            if not is_late:
                yield f"{project.folder.name}, {'reported' if code else 'one version'}"


def together(folder: Path, random: Random) -> Iterator[str]:
    """Run eight months at once, then one month three times at once.

    All of them end well, and every version of every month is loaded once.
    """
    eight = tuple(f"2024-{number:02}" for number in range(1, 9))
    project = FaultProject(folder, random, months=eight)
    while True:
        project.deliver()
        month = random.choice(eight)
        of_one = [project.month_command(month, dagster=random.random() < 0.3) for _ in range(3)]
        for shells in (list(map(project.month_command, eight)), of_one):
            for code, output in [command.end() for command in [project.start(*s) for s in shells]]:
                assert code == 0, output
            project.assert_newest()
            project.assert_loaded_once()
            yield f"{len(shells)} runs of {len(set(map(tuple, shells)))} months"
            project.deliver(month)


def vanishing(folder: Path, random: Random) -> Iterator[str]:
    """Delete an output, also during a run; the next run makes it again from the other ones."""
    project = FaultProject(folder, random)
    project.deliver()
    project.run()
    while True:
        for path, output in _OUTPUTS.items():
            project.deliver_some()
            command = project.start_and_interrupt()[0] if random.random() < 0.5 else None
            deleted = project.folder / path
            if deleted.is_dir():
                shutil.rmtree(deleted, ignore_errors=True)
            else:
                deleted.unlink(missing_ok=True)
            if command is not None:
                command.end()
            project.expect_lost(output)
            project.recover()
            yield f"{path} deleted{' during a run' if command else ''}"
