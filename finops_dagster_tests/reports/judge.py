"""How many planted anomalies are found, and how many alarms are false.

`python -m finops_dagster_tests.reports.judge` prints the table of docs/budgets.md. The detector was
tuned with seeds below 100; it is judged by others.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from finops_dagster.reports.anomalies import Anomaly, find_anomalies
from finops_dagster_tests.reports.planted import DAYS, FACTORS, KINDS, Planted, bill, plant_all

JUDGED_SEEDS = range(1000, 1100)
# Of the first ten weeks of a bill nothing is said.
_JUDGED_MONTHS = (DAYS - 70) / 30.4


@dataclass
class Judgement:
    """What was found of a bill: the kinds, those under their right name, and the false alarms."""

    found: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    false: list[Anomaly] = field(default_factory=list)


def judge(seed: int, factor: float | None) -> Judgement:
    """Judge the anomalies of a bill with every kind planted, or with none if `factor` is None.

    A second alarm about the same planted anomaly is a false one.
    """
    judged = bill(seed)
    if factor is not None:
        plant_all(judged, factor)
    judgement = Judgement()
    for anomaly in reversed(find_anomalies(judged.daily_costs())):
        planted = next((p for p in judged.planted if _is_of(anomaly, p)), None)
        if planted is None or planted.kind in judgement.found:
            judgement.false.append(anomaly)
        else:
            judgement.found.add(planted.kind)
            if planted.kind == anomaly.kind:
                judgement.named.add(planted.kind)
    return judgement


def _is_of(anomaly: Anomaly, planted: Planted) -> bool:
    return (
        anomaly.account == planted.account
        and planted.service in (None, anomaly.service)
        and anomaly.first_day <= planted.last_day + timedelta(days=3)
        and anomaly.last_day >= planted.first_day - timedelta(days=1)
    )


def judge_all(seeds: Iterable[int], factor: float | None) -> list[Judgement]:
    """Judge the bills of these seeds, on all cores."""
    with ProcessPoolExecutor() as processes:
        return list(processes.map(partial(judge, factor=factor), seeds, chunksize=5))


def false_alarms_a_month(judgements: Sequence[Judgement]) -> float:
    return sum(len(j.false) for j in judgements) / len(judgements) / _JUDGED_MONTHS


def main() -> None:
    judged = {factor: judge_all(JUDGED_SEEDS, factor) for factor in FACTORS}
    lines = ["| kind | " + " | ".join(f"{factor:g} times" for factor in FACTORS) + " |"]
    lines.append("|---|" + "---|" * len(FACTORS))
    for kind in KINDS:
        cells = []
        for all_ in judged.values():
            found = _percent(kind in j.found for j in all_)
            cells.append(f"{found}, named {_percent(kind in j.named for j in all_)}")
        lines.append(_row(kind, cells))
    lines.append(
        _row(
            "at least ten kinds found",
            [_percent(len(j.found) >= 10 for j in all_) for all_ in judged.values()],
        )
    )
    lines.append(
        _row(
            "false alarms a month",
            [f"{false_alarms_a_month(all_):.2f}" for all_ in judged.values()],
        )
    )
    untouched = judge_all(JUDGED_SEEDS, None)
    kinds = Counter(str(anomaly.kind) for j in untouched for anomaly in j.false)
    lines.append(f"\nnothing planted: {false_alarms_a_month(untouched):.2f} a month; {kinds}")
    sys.stdout.write("\n".join(lines) + "\n")


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _percent(hits: Iterable[bool]) -> str:
    hits = list(hits)
    return f"{100 * sum(hits) / len(hits):.0f} %"


if __name__ == "__main__":
    main()
