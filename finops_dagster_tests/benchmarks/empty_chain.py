"""Four assets of a month that do nothing, for what Dagster itself needs to materialize them."""

import dagster as dg

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2022-01", fmt="%Y-%m")


def _asset(name: str, after: list[str]) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=after, partitions_def=MONTHS, group_name="bench")
    def nothing() -> None:
        pass

    return nothing


NAMES = ["one", "two", "three", "four"]
defs = dg.Definitions(
    assets=[_asset(name, NAMES[:number][-1:]) for number, name in enumerate(NAMES)],
    executor=dg.in_process_executor,
)
