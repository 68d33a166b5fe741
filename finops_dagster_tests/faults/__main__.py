"""`make faults`: every fault, many times, in a time that is given, and a table of what was lost.

python -m finops_dagster_tests.faults --minutes 10 --seed 7 --kills 200 --only disk,s3
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from finops_dagster_tests.faults.chain import Fault
from finops_dagster_tests.faults.database import clock, database
from finops_dagster_tests.faults.disk import NotHere, disk
from finops_dagster_tests.faults.interruptions import kills, manifests, together, vanishing
from finops_dagster_tests.faults.s3 import s3

# With its share of the time.
FAULTS: dict[str, tuple[Fault, int]] = {
    "kills": (kills, 4),
    "disk": (disk, 2),
    "s3": (s3, 2),
    "together": (together, 2),
    "manifests": (manifests, 1),
    "database": (database, 2),
    "vanishing": (vanishing, 1),
    "clock": (clock, 1),
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
    second = minutes * 60 / sum(share for _, share in chosen.values())
    console = Console()
    table = Table("fault", "injected", "lost", title=f"seed {seed}")
    lost = False
    for name, (fault, share) in chosen.items():
        folder, end = Path(mkdtemp(prefix=f"faults-{name}-")), time.monotonic() + share * second
        injected: Counter[str] = Counter()
        outcome, least = "nothing", kills if name == "kills" else 0
        try:
            for what in fault(folder, Random(f"{seed} {name}")):
                injected[what] += 1
                console.print(f"{name} {injected.total()}: {what}", highlight=False)
                if injected.total() >= least if least else time.monotonic() > end:
                    break
            shutil.rmtree(folder)
        except NotHere as error:
            outcome = f"not tried: {error}"
        except Exception as error:
            lost, outcome = True, f"{type(error).__name__}: {error}"[:2000] + f"\nsee {folder}"
            console.print(traceback.format_exc(), markup=False, highlight=False)
        counts = "\n".join(f"{times} x {what}" for what, times in sorted(injected.items()))
        table.add_row(name, counts, outcome, end_section=True)
    console.print(table)
    raise typer.Exit(lost)


if __name__ == "__main__":
    typer.run(main)
