"""The ``airlock`` command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import typer

from airlock import __version__
from airlock.cli.lazy import LazyGroup


class _Commands(LazyGroup):
    """Every command and where it is; none is imported before it is used."""

    PLACES: ClassVar[Mapping[str, str]] = {
        "up": "airlock.cli.local:up",
        "down": "airlock.cli.local:down",
        "status": "airlock.cli.local:status",
        "sequencer": "airlock.cli.sequencer:sequencer",
        "courier": "airlock.cli.courier:courier",
        "demo": "airlock.cli.demo:demo",
        "submit": "airlock.cli.release:submit",
        "approve": "airlock.cli.release:approve",
        "reject": "airlock.cli.release:reject",
        "release": "airlock.cli.release:app",
        "workload": "airlock.cli.workload:app",
        "gate": "airlock.cli.gate:app",
        "audit": "airlock.cli.audit:app",
        "evidence": "airlock.cli.evidence:app",
        "expectations": "airlock.cli.expectations:app",
        "retrain": "airlock.cli.retrain:retrain",
        "monitor": "airlock.cli.monitor:app",
        "waiver": "airlock.cli.waiver:app",
        "delegate": "airlock.cli.delegate:app",
        "condition": "airlock.cli.condition:app",
        "preflight": "airlock.cli.preflight:preflight",
        "interview": "airlock.cli.interview:interview",
        "policy": "airlock.cli.policy:app",
        "rollback": "airlock.cli.operation:rollback",
        "changes": "airlock.cli.operation:changes",
        "guard": "airlock.cli.operation:guard_app",
        "incident": "airlock.cli.incident:app",
    }


app = typer.Typer(
    name="airlock",
    cls=_Commands,
    help="Release governance for machine-learning models, on Apache Airflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 allowed, 1 error, 2 usage, 3 denied, 4 waiting for a person.",
)


@app.callback()
def _group() -> None:
    """Make it a group of commands, however many stand in this file."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command; a known error is printed in words, without a traceback."""
    # What imports make stays. Looking through it all every 700 objects is a tenth of importing MLflow.
    gc.set_threshold(100_000)
    try:
        app()
    except Exception as error:
        # Imported here, because a command that succeeds may need neither.
        from airlock.cli.output import fail
        from airlock.core.errors import AirlockError

        if not isinstance(error, AirlockError):
            raise
        fail(error, as_json=_wants_json(sys.argv))


def _wants_json(arguments: list[str]) -> bool:
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)
