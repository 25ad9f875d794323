"""``airlock up``, ``down``, ``status``: a local Airflow that governs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import typer

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.mlflow_registry import quiet_mlflow
from airlock.adapters.settings import Settings, load_settings
from airlock.adapters.supervisor import HEALTHY_SECONDS, RunState, Supervisor, local_passwords
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from airlock.services.conditions import unapproved
from airlock.services.deployment import Deployment, anchors_of, immediate, open_deployment
from airlock.services.keys import create_key
from airlock.services.waivers import reopened

PortOption = Annotated[
    int, typer.Option(help="Port of the Airflow UI, on this machine only.", min=1, max=65535)
]

DEFAULT_PORT = 8080
LATE_SECONDS = 10
"""An event that waits longer to be signed has no sequencer."""


def prepare(settings: Settings) -> None:
    """Create what the processes need: the audit schema and an MLflow store, when both are local."""
    deployment = open_deployment(settings)
    deployment.audit.migrate()
    if not settings.signing_key.exists():
        create_key(deployment)
    path = Path(settings.mlflow_uri.removeprefix("sqlite:///"))
    if settings.mlflow_uri.startswith("sqlite:///") and not path.exists():
        # MLflow builds its schema on first use; doing it here keeps parallel tasks from racing for it.
        quiet_mlflow()
        import mlflow

        mlflow.MlflowClient(tracking_uri=settings.mlflow_uri).search_experiments()


def interruptible() -> None:
    """Make SIGTERM end this process like Ctrl-C, so that the children are stopped."""

    def stop(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def stay(supervisor: Supervisor) -> NoReturn:
    """Keep every component running until Ctrl-C."""
    while True:
        for said in supervisor.keep():
            console.print(f"[yellow]{said}; its log is in {supervisor.logs}[/]", soft_wrap=True)
        time.sleep(1)


def up(
    *,
    port: PortOption = DEFAULT_PORT,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when healthy; stop with `airlock down`.")
    ] = False,
) -> None:
    """Start a local Airflow that governs the workloads in config/, and stay until Ctrl-C."""
    settings = load_settings()
    if detach:
        _detach(settings, port)
        return
    interruptible()
    supervisor = Supervisor(settings, open_deployment(settings).config.people(), port=port)
    try:
        with console.status("Starting Airflow …"):
            prepare(settings)
            supervisor.start()
            supervisor.wait_healthy()
        console.print(f"Airflow is healthy: [bold]{supervisor.url}[/]")
        console.print(f"Users and passwords: {local_passwords(settings).path}", soft_wrap=True)
        console.print("Stop with Ctrl-C.")
        stay(supervisor)
    except KeyboardInterrupt:
        console.print("Stopping …")
    finally:
        supervisor.stop()


def _detach(settings: Settings, port: int) -> None:
    log = settings.home / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "airlock.cli", "up", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **settings.environment()},
            start_new_session=True,
        )
    state = RunState(settings.home)
    until = time.monotonic() + HEALTHY_SECONDS
    with console.status("Starting Airflow …"):
        while time.monotonic() < until:
            if child.poll() is not None:
                raise UnavailableError(
                    "Airflow did not start: " + _last_error(log),
                    where=str(log),
                    fix="read the end of that file",
                )
            running = state.read()
            if (
                running
                and running["pid"] == child.pid
                and AirflowClient(str(running["url"]), "", "").is_healthy()
            ):
                console.print(f"Airflow is healthy: [bold]{running['url']}[/]. Stop it with `airlock down`.")
                return
            time.sleep(0.5)
    os.killpg(child.pid, signal.SIGTERM)
    raise UnavailableError("Airflow was not healthy in time", where=str(log), fix="read the end of that file")


def _last_error(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join(line.strip() for line in lines[-3:])


def down() -> None:
    """Stop the local Airflow of this deployment."""
    settings = load_settings()
    running = RunState(settings.home).read()
    if running is None:
        raise NotFoundError(
            "no local Airflow runs here", where=str(settings.home), fix="start it with `airlock up`"
        )
    with console.status("Stopping Airflow …"), contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(running["pid"]))
        process.terminate()
        # In a container without an init that reaps, an ended process stays as a zombie for ever.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.2)
    console.print("Airflow is stopped.")


def _check_log(deployment: Deployment) -> None:
    """Notice that events wait for the sequencer, or an anchor for checkpoints."""
    log = deployment.log
    waiting, head, receipts = log.waiting(), log.head(), log.receipts()
    seconds = 0 if waiting.since_us is None else (deployment.clock.now_us() - waiting.since_us) / 1e6
    if seconds > LATE_SECONDS:
        raise UnavailableError(
            f"{waiting.count} events wait to be signed, the oldest for {seconds:.0f} s",
            fix="start `airlock sequencer`, or read its log",
        )
    for name in immediate(anchors_of(deployment.settings)):
        if seconds == 0 and receipts.get(name, 0) < head.size:
            time.sleep(1)  # a checkpoint is committed before it is published
            if log.receipts().get(name, 0) < head.size:
                raise UnavailableError(
                    f"the newest checkpoint is not published to {name}", fix="see `airlock audit anchors`"
                )


def _check_spool(deployment: Deployment) -> None:
    waiting, damaged = len(deployment.spool.waiting()), len(deployment.spool.damaged())
    if waiting or damaged:
        raise UnavailableError(
            f"{waiting} events wait on this machine's disk and {damaged} are damaged",
            where=str(deployment.spool.folder),
            fix="the sequencer replays them once the database answers; look at what is damaged",
        )


def _check_monitoring(deployment: Deployment) -> None:
    """Say for which workloads Airlock has paused itself."""
    from airlock.services.actions import paused

    names = [path.stem for path in deployment.config.workload_files()]
    if stopped := [name for name in names if paused(deployment, name) is not None]:
        raise ConflictError(
            f"Airlock paused itself for {', '.join(stopped)}: it took as many actions as it may",
            fix=f"find out why, then run `airlock monitor resume {stopped[0]} --reason …`",
        )


def _check_waivers(deployment: Deployment) -> None:
    """Notice what is in production without the waiver that it rests on."""
    if found := reopened(deployment):
        releases = ", ".join(f"{one.workload} version {one.version} ({one.waiver_id})" for one in found)
        raise RefusedError(
            f"in production on a waiver that has ended: {releases}",
            fix="renew the waiver, or release a version without it; see `airlock waiver list`",
        )


def _check_conditions(deployment: Deployment) -> None:
    """Notice what is in production though the condition of its approval was missed."""
    if found := unapproved(deployment):
        releases = ", ".join(f"{one.workload} version {one.version} ({one.user})" for one in found)
        raise RefusedError(
            f"in production on an approval whose condition was missed: {releases}",
            fix="roll it back, or release another version; see `airlock condition list`",
        )


def status(*, output: FormatOption = Format.PRETTY) -> None:
    """Say whether Airflow and the audit log are well; exit 1 when something is not."""
    settings = load_settings()
    deployment = open_deployment(settings)
    running = RunState(settings.home).read()
    url = str(running["url"]) if running else settings.airflow_url
    report: dict[str, str] = {}
    try:
        health = AirflowClient(url, "", "").health()
        for part, label in (
            ("metadatabase", "database"),
            ("scheduler", "scheduler"),
            ("dag_processor", "DAG processor"),
            ("triggerer", "triggerer"),
        ):
            report[f"Airflow {label}"] = str((health.get(part) or {}).get("status") or "not running")
    except UnavailableError:
        report["Airflow"] = f"does not answer at {url}"
    for name, probe in (
        ("audit store", lambda: deployment.audit.events(limit=1)),
        ("audit log", lambda: _check_log(deployment)),
        ("spool", lambda: _check_spool(deployment)),
        ("people", deployment.config.people),
        ("waivers", lambda: _check_waivers(deployment)),
        ("conditions", lambda: _check_conditions(deployment)),
        ("monitoring", lambda: _check_monitoring(deployment)),
    ):
        try:
            probe()
            report[name] = "healthy"
        except Exception as error:  # noqa: BLE001  # a status page says what is wrong, whatever it is
            report[name] = str(error)
    healthy = all(state == "healthy" for state in report.values())
    if output is Format.JSON:
        emit({"url": url, "healthy": healthy, "components": report})
    else:
        for name, state in report.items():
            mark = "[green]✔[/]" if state == "healthy" else "[red]✘[/]"
            console.print(f"{mark} {name}: {safe(state)}", soft_wrap=True)
    if not healthy:
        raise SystemExit(1)
