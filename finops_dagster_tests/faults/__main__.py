"""`make faults`: every fault, many times, in a time that is given, and a table of what was lost.

python -m finops_dagster_tests.faults --minutes 10 --seed 7 --kills 200 --only disk,s3
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from finops_dagster_tests.faults.bigquery import bigquery
from finops_dagster_tests.faults.disk import disk
from finops_dagster_tests.faults.kills import kills
from finops_dagster_tests.faults.s3 import s3
from finops_dagster_tests.faults.together import together, with_the_daemon

Fault = Callable[[Path, Random], Iterator[str]]

# Each injects for as long as it is asked, and says of every fault that held what it was.
FAULTS: dict[str, Fault] = {"kills": kills, "together": together, "daemon": with_the_daemon, "disk": disk, "s3": s3, "bigquery": bigquery}
_SHARES = Counter(FAULTS.keys()) + Counter(kills=3)


def main(
    minutes: Annotated[float, typer.Option(help="For all faults together.")] = 10,
    seed: Annotated[int | None, typer.Option(help="As printed, to have the same again.")] = None,
    kills: Annotated[int, typer.Option(help="This many, however long that takes.")] = 0,
    only: Annotated[str, typer.Option(help="Some of: " + ", ".join(FAULTS))] = "",
) -> None:
    """Inject the faults one kind after the other; exit code 1 where anything was lost."""
    seed = Random().randrange(10**6) if seed is None else seed
    chosen = {name: FAULTS[name] for name in (only.split(",") if only else FAULTS)}
    share = minutes * 60 / sum(_SHARES[name] for name in chosen)
    console, table = Console(), Table("fault", "injected", "seed", "seconds", "lost")
    lost = False
    for name, fault in chosen.items():
        folder, began = Path(mkdtemp(prefix=f"faults-{name}-")), time.monotonic()
        console.print(f"{name}, seed {seed}, in {folder}")
        injected: Counter[str] = Counter()
        problem = "nothing"
        try:
            for what in fault(folder, Random(f"{seed} {name}")):
                injected[what] += 1
                enough = injected.total() >= kills if name == "kills" and kills else None
                if enough or (enough is None and time.monotonic() - began > share * _SHARES[name]):
                    break
        except Exception as error:
            lost, problem = True, f"{type(error).__name__}: {error}"
            console.print(traceback.format_exc(), markup=False)
        told = "\n".join(f"{count} x {what}" for what, count in injected.items())
        table.add_row(name, told, str(seed), f"{time.monotonic() - began:.0f}", problem)
    console.print(table)
    raise typer.Exit(lost)


if __name__ == "__main__":
    typer.run(main)
