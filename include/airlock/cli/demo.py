"""``airlock demo``: five real releases, or weeks of production, through a real Airflow."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from airlock.adapters.settings import Settings, load_settings
from airlock.adapters.supervisor import RunState, Supervisor, local_passwords, port_problem
from airlock.cli.local import DEFAULT_PORT, PortOption, interruptible, prepare, stay
from airlock.cli.output import console
from airlock.core.errors import ConflictError
from airlock.demo.drift import DriftStory
from airlock.demo.models import forget
from airlock.demo.story import Story
from airlock.services.deployment import open_deployment


class DemoAnswer(StrEnum):
    """What the demo answers for the two people a red release asks."""

    APPROVE = "approve"
    REJECT = "reject"


class DemoStory(StrEnum):
    """What the demo tells."""

    RELEASES = "releases"
    DRIFT = "drift"


def demo(
    *,
    port: PortOption = DEFAULT_PORT,
    once: Annotated[
        bool, typer.Option("--once", help="Stop Airflow and exit when the story has ended.")
    ] = False,
    answer: Annotated[
        DemoAnswer | None, typer.Option(help="Answer over REST as the two demo approvers.")
    ] = None,
    story: Annotated[
        DemoStory,
        typer.Option(help="Five releases, or weeks of production that drift; there nobody waits for you."),
    ] = DemoStory.RELEASES,
) -> None:
    """Govern five real releases of two models, from nothing, and show how each one ends.

    With `--story drift`: weeks of production instead, from calm to drift, retraining, release and rollback.
    """
    if story is DemoStory.DRIFT and answer is DemoAnswer.REJECT:
        raise typer.BadParameter("the drift story goes on only with approvals", param_hint="--answer")
    interruptible()
    base = load_settings()
    home = base.home / "demo"
    # Everything below its own home, whatever the environment says about the real deployment.
    own: dict[str, Any] = dict.fromkeys(set(Settings.model_fields) - {"home", "config_dir", "deployment"}, "")
    settings = Settings(home=home, config_dir=base.config_dir, deployment="demo", **own)
    _refuse_if_taken(settings, port)
    forget(home)
    started = time.monotonic()
    supervisor = Supervisor(settings, open_deployment(settings).config.people(), port=port)
    told = (DriftStory if story is DemoStory.DRIFT else Story)(settings, supervisor.url, console)
    try:
        with console.status("Preparing data, models and Airflow …") as status:
            prepare(settings)
            supervisor.start()
            told.set_up(Path(base.config_dir.parent / "data" / "loanapp.csv"), status.update)
            status.update("Waiting for Airflow to be healthy …")
            supervisor.wait_healthy()
            told.wait_for_dags()
        console.print(
            f"[dim]Ready after {time.monotonic() - started:.0f} s. Airflow:[/] [bold]{supervisor.url}[/]\n"
        )
        as_expected = told.tell(answer)
        console.print(f"\n[dim]{time.monotonic() - started:.0f} s in all.[/]")
        if once:
            raise SystemExit(0 if as_expected else 1)
        console.print(f"\nAirflow stays at [bold]{supervisor.url}[/] until Ctrl-C.")
        console.print(f"[dim]Users and passwords: {local_passwords(settings).path}[/]", soft_wrap=True)
        stay(supervisor)
    except KeyboardInterrupt:
        console.print("\nStopping …")
        if once:
            raise SystemExit(130) from None
    finally:
        supervisor.stop()


def _refuse_if_taken(settings: Settings, port: int) -> None:
    """Before anything is deleted: is another demo running, or the port in use?"""
    if running := RunState(settings.home).read():
        raise ConflictError(
            f"a demo already runs as process {running['pid']}",
            where=str(running["url"]),
            fix="look at it there, or stop it with Ctrl-C in its terminal",
        )
    if problem := port_problem(port):
        raise ConflictError(
            f"port {port} cannot be used: {problem}",
            where="127.0.0.1",
            fix='stop what uses it, or choose another: make demo ARGS="--port 8090"',
        )
