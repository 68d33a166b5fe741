"""The dashboard and the alert rules, on a real Prometheus that has scraped a real run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.prometheus import NEEDED, RULES, Prometheus, free_port
from finops_dagster_tests.small_mapping import small_mapping

pytestmark = [pytest.mark.thorough, NEEDED]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
EXPRESSIONS = {
    panel["title"]: panel["targets"][0]["expr"].replace("$export", ".*")
    for panel in DASHBOARD["panels"]
}
SETTINGS = '[metrics]\nmonths = 1000\n[[budgets]]\nname = "team"\namount = 1\ncurrency = "USD"\n'
DAGSTER = str(Path(sys.executable).parent / "dagster")


def promtool(*arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def launch(finops: Finops, month: str) -> None:
    """Queue a run of a month; no daemon is there to start it."""
    command = [DAGSTER, "job", "launch", "-m", "finops_dagster.definitions", "-j", "acme_month"]
    subprocess.run(
        [*command, "--tags", json.dumps({"dagster/partition": month, "finops/export": "acme"})],
        cwd=finops.project.folder,
        env={**finops.environment, "DAGSTER_HOME": f"{finops.project.folder}/.dagster"},
        check=True,
        capture_output=True,
    )


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).with_name("alert_rules_test.yaml"), tmp_path)
    promtool("check", "rules", "alert-rules.yaml", folder=tmp_path)
    promtool("test", "rules", "alert_rules_test.yaml", folder=tmp_path)
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    cases = (tmp_path / "alert_rules_test.yaml").read_text()
    tested = re.findall(r"alertname: (\w+)\n *exp_alerts", cases)
    assert alerts == set(tested)


def test_every_panel_shows_something_of_a_real_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    finops = Finops(project, SETTINGS)
    project.deliver("2")
    finops("aws", "run-pipeline")
    project.deliver("3", version="v2")
    project.deliver("much", month="2024-02")
    finops("aws", "run-pipeline", code=1)
    launch(finops, "2024-03")
    port = free_port()
    process = finops.start("metrics", "--port", str(port), "--seconds", "0")
    try:
        with Prometheus(tmp_path / "prometheus", port) as prometheus:
            # An increase needs two scrapes.
            for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.5), reraise=True):
                with attempt:
                    found = {title: prometheus.query(text) for title, text in EXPRESSIONS.items()}
                    assert {title for title, samples in found.items() if not samples} == set()
                    pending = prometheus.query('ALERTS{alertname="FinopsMonthFailed"}')
                    assert [sample["metric"]["month"] for sample in pending] == ["2024-02"]
    finally:
        process.terminate()
        _, stderr = process.communicate()
    assert stderr == ""
    states = {s["metric"]["state"]: s["value"][1] for s in found["Months by state"]}
    assert states == {"complete": "1", "stale": "0", "in_progress": "1", "failed": "1"}
    (restated,) = found["Restated cost"]
    assert (restated["metric"]["month"], restated["value"][1]) == ("2024-01", "1")
    (budget,) = found["Budget use"]
    assert (budget["metric"]["budget"], budget["value"][1]) == ("team", "3")
