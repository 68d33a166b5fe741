"""Five assets that do nothing, with as many checks as the stages have.

They show how long Dagster itself takes to materialize a month.
"""

from collections.abc import Iterator

import dagster as dg

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2022-01", fmt="%Y-%m")
CHECKS = ["first", "second"]


def _asset(name: str, upstream: list[str]) -> dg.AssetsDefinition:
    specs = [dg.AssetCheckSpec(check, asset=name) for check in CHECKS]

    @dg.asset(
        name=name, deps=upstream, partitions_def=MONTHS, group_name="bench", check_specs=specs
    )
    def nothing() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        yield dg.MaterializeResult()
        for check in CHECKS:
            yield dg.AssetCheckResult(passed=True, check_name=check)

    return nothing


NAMES = ["one", "two", "three", "four", "five"]
defs = dg.Definitions(
    assets=[_asset(name, NAMES[:number][-1:]) for number, name in enumerate(NAMES)],
    executor=dg.in_process_executor,
)
