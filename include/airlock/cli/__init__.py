"""The ``airlock`` command."""

from __future__ import annotations

import sys
from itertools import pairwise

import typer

from airlock import __version__
from airlock.cli import audit, demo, evidence, local, release, sequencer, workload
from airlock.cli.output import fail
from airlock.core.errors import AirlockError

app = typer.Typer(
    name="airlock",
    help="Release governance for machine-learning models, on Apache Airflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 allowed, 1 error, 2 usage, 3 denied, 4 waiting for a person.",
)
app.command()(local.up)
app.command()(local.down)
app.command()(local.status)
app.command()(sequencer.sequencer)
app.command()(demo.demo)
app.command()(release.submit)
app.command()(release.approve)
app.command()(release.reject)
app.add_typer(release.app, name="release")
app.add_typer(workload.app, name="workload")
app.add_typer(audit.app, name="audit")
app.add_typer(evidence.app, name="evidence")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command; a known error is printed in words, without a traceback."""
    try:
        app()
    except AirlockError as error:
        fail(error, as_json=_wants_json(sys.argv))


def _wants_json(arguments: list[str]) -> bool:
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)
