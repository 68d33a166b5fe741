"""`finops metrics`: metrics for Prometheus, printed, in a file, or served."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.options import Options, refuse_both
from finops_dagster.terminal import print_error, print_line

if TYPE_CHECKING:
    from finops_dagster.pipeline.metrics import Metrics


def metrics(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write, such as finops.prom for the node exporter."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=1, max=65535, help="Serve the metrics on this port. Excludes --out."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on, with --port.")
    ] = "127.0.0.1",
    seconds: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="With --port: requests within N seconds get the same metrics."
        ),
    ] = 30,
) -> None:
    """Print metrics for Prometheus.

    The metrics show the state, rows, cost, times and restatements of the newest months of each
    export. They also show failed runs, the queue of runs, and the budgets. With --port, the metrics
    are served until Ctrl-C.

    $ finops metrics
    $ finops metrics --out /var/lib/node_exporter/finops.prom
    $ finops metrics --port 9464
    """
    if out is not None and port is not None:
        refuse_both("--out", "--port")
    settings = Options.of(context).settings()
    settings.metrics.require_client()
    from finops_dagster.pipeline.metrics import Metrics

    # Served metrics have the same problem many times, and it is printed once.
    collected = Metrics(settings, cache(print_error), 0 if port is None else seconds)
    if port is not None:
        _serve(collected, host, port)
    elif out is not None:
        collected.write_file(out)
    else:
        typer.echo(collected.prometheus_text(), nl=False)


def _serve(metrics: Metrics, host: str, port: int) -> None:
    """Serve the metrics until Ctrl-C or SIGTERM. Raises BillError if the address cannot be used."""
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host, metrics.registry())
    except OSError as error:
        raise BillError(
            f"port {port} of {host} cannot be used ({os.strerror(error.errno or 0)}); stop the "
            "program that uses it, or choose another --port"
        ) from error
    # A shell's background processes ignore SIGINT; with Dagster imported, also SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print_line(f"metrics are served on http://{host}:{port}/metrics; Ctrl-C ends it")
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()
