"""`make faults`: every fault, many times, in a time that is given, and a table of what was lost.

python -m finops_dagster_tests.faults --minutes 10 --seed 7 --kills 200 --only disk,s3
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from finops_dagster_tests.faults.bigquery import bigquery
from finops_dagster_tests.faults.database import database, read_only
from finops_dagster_tests.faults.disk import disk
from finops_dagster_tests.faults.kills import kills
from finops_dagster_tests.faults.manifests import manifests
from finops_dagster_tests.faults.namespace import NotHere
from finops_dagster_tests.faults.s3 import s3
from finops_dagster_tests.faults.together import daemon, together
from finops_dagster_tests.faults.vanishing import clock, reboot, vanishing

Fault = Callable[[Path, Random], Iterator[str]]

# Each injects for as long as it is asked, and says of every fault that held what it was; here with
# the parts of the time that it has.
FAULTS: dict[str, tuple[Fault, int]] = {
    "kills": (kills, 4),
    "disk": (disk, 2),
    "s3": (s3, 2),
    "bigquery": (bigquery, 2),
    "database": (database, 2),
    "read_only": (read_only, 1),
    "together": (together, 2),
    "daemon": (daemon, 1),
    "clock": (clock, 1),
    "reboot": (reboot, 1),
    "vanishing": (vanishing, 1),
    "manifests": (manifests, 1),
}


def main(
    minutes: Annotated[float, typer.Option(help="For all of them together.")] = 10,
    seed: Annotated[int | None, typer.Option(help="As printed, to have the same again.")] = None,
    kills: Annotated[int, typer.Option(help="So many, however long that takes.")] = 0,
    only: Annotated[str, typer.Option(help="Some of: " + ", ".join(FAULTS))] = "",
) -> None:
    """Inject the faults, one kind after the other; exit code 1 where anything was lost."""
    seed = Random().randrange(10**6) if seed is None else seed
    chosen = {name: FAULTS[name] for name in (only.split(",") if only else FAULTS)}
    second = minutes * 60 / sum(parts for _, parts in chosen.values())
    console = Console()
    table = Table("fault", "injected", "lost", title=f"seed {seed}")
    lost = False
    for name, (fault, parts) in chosen.items():
        folder, began = Path(mkdtemp(prefix=f"faults-{name}-")), time.monotonic()
        injected: Counter[str] = Counter()
        outcome = "nothing"
        try:
            for number, what in zip(count(1), fault(folder, Random(f"{seed} {name}"))):
                injected[what] += 1
                console.print(f"{name} {number}: {what}", highlight=False)
                is_over = time.monotonic() - began > parts * second
                if number >= kills if name == "kills" and kills else is_over:
                    break
            shutil.rmtree(folder)
        except NotHere as error:
            outcome = f"not tried: {error}"
        except Exception as error:
            lost, outcome = True, f"{type(error).__name__}: {error}"[:2000] + f"\nsee {folder}"
            console.print(traceback.format_exc(), markup=False, highlight=False)
        told = "\n".join(f"{times} x {what}" for what, times in sorted(injected.items()))
        table.add_row(name, told, outcome, end_section=True)
    console.print(table)
    raise typer.Exit(lost)


if __name__ == "__main__":
    typer.run(main)
