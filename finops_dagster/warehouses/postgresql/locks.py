"""The statement that locks tables of PostgreSQL, and lets readers pass while it waits."""

from __future__ import annotations

from collections.abc import Sequence

from finops_dagster.billing.columns import Sql, literal

# Readers queue up behind a load that waits for the table. So a load waits for a few seconds, lets
# them pass, and waits again. The loop runs in the server, because a statement that fails ends the
# transaction for ADBC.
_TRY_SECONDS = 5
_LOCK = """
DO $lock$
DECLARE
    processes text;
BEGIN
    FOR try IN 1..{tries} LOOP
        BEGIN
            LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            SELECT string_agg(DISTINCT pid::text, ', ') INTO processes
            FROM pg_locks WHERE granted AND relation IN ({relations});
        END;
    END LOOP;
    RAISE lock_not_available USING
        MESSAGE = concat({problem}, processes, '; end its query, which pg_stat_activity shows');
END
$lock$"""


def lock_timeout_seconds(wait_seconds: int) -> int:
    """Return the `lock_timeout`, in seconds, to set before `lock_statement` is run.

    It is the length of one try; between two tries, readers pass. `wait_seconds` is at least 1.
    """
    return min(_TRY_SECONDS, wait_seconds)


def lock_statement(tables: Sequence[Sql], name: str, wait_seconds: int) -> Sql:
    """Return the statement that locks tables against readers until the transaction ends.

    `tables` are quoted names. After as many tries of `lock_timeout_seconds` as fit into
    `wait_seconds`, PostgreSQL raises lock_not_available. Its message calls the tables `name`, and
    has the ids of the server processes that use them.
    """
    problem = f"{name} was in use for {wait_seconds} s, last by server process "
    return Sql(
        _LOCK.format(
            tries=wait_seconds // lock_timeout_seconds(wait_seconds),
            tables=", ".join(f"ONLY {table}" for table in tables),
            relations=", ".join(f"to_regclass({literal(table)})" for table in tables),
            problem=literal(problem),
        )
    )
