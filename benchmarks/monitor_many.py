"""Many workloads whose windows end in the same minute, in a real Airflow: is any schedule missed?

    python -m benchmarks.monitor_many                  200 workloads, three quarters of an hour
    python -m benchmarks.monitor_many --workloads 20

Each workload has a model of its own, two days of real applications in a log that all share, and a daily
schedule at the same minute. It is the first window of each, so each also makes the baseline of its champion
by scoring in the sandbox, which later windows do not. Measured from that minute to the end of the last DAG
run; an hour is what one window of an hourly schedule has. The exit code is 1 when a run is missing, failed
or later than that.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from tests.support.ports import free_port

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import Supervisor, local_passwords
from airlock.cli.local import prepare
from airlock.core.production import DAY_US, Window
from airlock.demo import data, models, weeks
from airlock.services.adopt import adopt
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.monitor import evaluated
from benchmarks.green_release import ROOT, Memory

HOUR = 3600
LEAD = timedelta(minutes=3)
"""From the moment that all is there to the minute of the schedule, in which Airflow reads the files."""

LOG = "loanapp/production/watched"


def write_workloads(config: Path, names: list[str], schedule: str) -> None:
    """Workloads like the shipped one, each with a model of its own."""
    shipped = yaml.safe_load((config / "workloads" / f"{models.RATE_TYPE}.yaml").read_text())
    for name in names:
        own: dict[str, Any] = {**shipped, "name": name, "title": name}
        own["model"] = {**shipped["model"], "registered_model": name}
        own["monitoring"] = {"log": {"parquet": LOG}, "schedule": schedule, "window_days": 1}
        (config / "workloads" / f"{name}.yaml").write_text(yaml.safe_dump(own))


def put_into_production(deployment: Deployment, names: list[str]) -> None:
    """Train once, register under each name, and adopt."""
    settings = deployment.settings
    workload = deployment.config.workload(models.RATE_TYPE)
    models.register(settings, models.RATE_CHAMPION, workload.model.features)
    (folder,) = (path.parent for path in (settings.home / "mlflow-artifacts").rglob("model.skops"))
    for name in names:
        version = models.register_folder(settings, name, folder)
        adopt(deployment, name, version, actor="admin", reason="the benchmark")


def log_two_days(deployment: Deployment, name: str, end: datetime) -> None:
    """Answer real applications with the champion, up to the minute of the schedule."""
    import pandas as pd

    end_us = int(end.timestamp() * 1_000_000)
    settings = deployment.settings
    rows = pd.read_parquet(settings.data_root / "loanapp" / "batches" / "clean.parquet")
    window = Window(start_us=end_us - 2 * DAY_US, end_us=end_us)
    threshold = models.RATE_CHAMPION.threshold
    weeks.replay(settings, deployment.config.workload(name), rows, window, threshold=threshold)


def wait_for_schedule(client: AirflowClient, names: list[str], schedule: str) -> None:
    """Until Airflow has read the schedule of the last workload."""
    while True:
        found = client.request("GET", f"/dags/monitor__{names[-1]}")
        if found.is_success and schedule in str(found.json()["timetable_summary"]):
            return
        time.sleep(1)


def finished(client: AirflowClient, since: str) -> dict[str, dict[str, Any]]:
    """Runs that the schedule began and that have ended, by workload."""
    return {
        row["dag_id"]: row
        for row in client.runs("monitor__watched-", updated_since=since)
        if row["run_type"] == "scheduled" and row["state"] in ("success", "failed")
    }


def seconds_after(moment: datetime, text: str) -> float:
    """Seconds from a moment to one that Airflow writes."""
    return (datetime.fromisoformat(text) - moment).total_seconds()


def processor_seconds() -> float:
    """Processor time that all processors have been busy since the machine started."""
    spent = psutil.cpu_times()
    return float(spent.user + spent.nice + spent.system + spent.irq + spent.softirq)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workloads", type=int, default=200)
    count = parser.parse_args().workloads
    names = [f"watched-{number:03}" for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name:
        folder = Path(name)
        for part in ("config", "dags", "plugins"):
            shutil.copytree(ROOT / part, folder / part)
        settings = Settings(home=folder / "home", config_dir=folder / "config", deployment="benchmark")
        write_workloads(settings.config_dir, names, "0 0 1 1 *")
        deployment = open_deployment(settings)
        prepare(settings)
        data.prepare(ROOT / "data" / "loanapp.csv", settings.data_root)
        supervisor = Supervisor(settings, deployment.config.people(), port=free_port())
        supervisor.start()
        try:
            supervisor.wait_healthy()
            put_into_production(deployment, names)
            at = (datetime.now(UTC) + LEAD).replace(second=0, microsecond=0)
            schedule = f"{at.minute} {at.hour} * * *"
            write_workloads(settings.config_dir, names, schedule)
            log_two_days(deployment, names[0], at)
            client = AirflowClient(supervisor.url, "admin", local_passwords(settings).read()["admin"])
            wait_for_schedule(client, names, schedule)
            if datetime.now(UTC) >= at:
                raise SystemExit("Airflow took too long to read the schedule; raise LEAD")
            time.sleep((at - datetime.now(UTC)).total_seconds())
            memory, before = Memory(), processor_seconds()
            memory.start()
            while (
                len(ended := finished(client, at.isoformat())) < count and time.time() < at.timestamp() + HOUR
            ):
                print(f"{len(ended)} of {count} ended", end="\r", file=sys.stderr, flush=True)
                time.sleep(5)
            spent, peak = processor_seconds() - before, memory.stop()
            judged = [one for name in names for one in evaluated(deployment, name)]
        finally:
            supervisor.stop()
    if not ended:
        raise SystemExit("no run has ended")
    failed = [dag_id for dag_id, row in ended.items() if row["state"] != "success"]
    first = min(seconds_after(at, row["start_date"]) for row in ended.values())
    last = max(seconds_after(at, row["end_date"]) for row in ended.values())
    print(f"{count} workloads due at the same minute, {psutil.cpu_count()} cores")
    print(f"runs ended {len(ended)}, failed {len(failed)}, windows judged {len(judged)}")
    print(f"first run began after {first:.0f} s, last ended after {last:.0f} s: {last / HOUR:.2f} of an hour")
    print(f"processor time of everything {spent / len(ended):.1f} s a workload")
    print(f"peak memory of all processes {peak / 1e9:.2f} GB proportional set size")
    raise SystemExit(int(bool(failed) or len(ended) < count or len(judged) < count))


if __name__ == "__main__":
    main()
