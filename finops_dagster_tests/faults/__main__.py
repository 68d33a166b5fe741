"""`make faults`: inject every fault many times, and show what was lost.

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

from finops_dagster_tests.faults.database import clock, database
from finops_dagster_tests.faults.disk import FaultUnavailable, disk
from finops_dagster_tests.faults.interruptions import kills, manifests, together, vanishing
from finops_dagster_tests.faults.pods import pods
from finops_dagster_tests.faults.project import Fault
from finops_dagster_tests.faults.s3 import s3

# Each fault with its share of the time; one without a share ends by itself.
FAULTS: dict[str, tuple[Fault, int]] = {
    "kills": (kills, 4),
    "disk": (disk, 2),
    "s3": (s3, 2),
    "together": (together, 2),
    "manifests": (manifests, 1),
    "database": (database, 2),
    "vanishing": (vanishing, 1),
    "clock": (clock, 1),
    "pods": (pods, 0),
}


def main(
    minutes: Annotated[float, typer.Option(help="Time for all faults but pods.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Seed of an earlier run, to repeat it.")] = None,
    kills: Annotated[int, typer.Option(help="Number of kills, whatever time they take.")] = 0,
    only: Annotated[
        str,
        typer.Option(
            help="Faults to inject, separated by commas; default all of: " + ", ".join(FAULTS)
        ),
    ] = "",
) -> None:
    """Inject the faults, one kind after the other; exit with 1 where anything was lost."""
    seed = Random().randrange(10**6) if seed is None else seed
    selected = {name: FAULTS[name] for name in (only.split(",") if only else FAULTS)}
    second = minutes * 60 / (sum(share for _, share in selected.values()) or 1)
    console = Console()
    table = Table("fault", "injected", "lost", title=f"seed {seed}")
    lost = False
    for name, (fault, share) in selected.items():
        folder, end = Path(mkdtemp(prefix=f"faults-{name}-")), time.monotonic() + share * second
        injected: Counter[str] = Counter()
        lost_text, least = "nothing", kills if name == "kills" else 0
        try:
            for case in fault(folder, Random(f"{seed} {name}")):
                injected[case] += 1
                console.print(f"{name} {injected.total()}: {case}", highlight=False)
                if injected.total() >= least if least else share and time.monotonic() > end:
                    break
            shutil.rmtree(folder)
        except FaultUnavailable as error:
            lost_text = f"not tried: {error}"
        except Exception as error:
            lost, lost_text = True, f"{type(error).__name__}: {error}"[:2000] + f"\nsee {folder}"
            console.print(traceback.format_exc(), markup=False, highlight=False)
        counts = "\n".join(f"{times} x {case}" for case, times in sorted(injected.items()))
        table.add_row(name, counts, lost_text, end_section=True)
    console.print(table)
    raise typer.Exit(lost)


if __name__ == "__main__":
    typer.run(main)
