"""``airlock workload``: check, list, adopt."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import AirlockError, ConfigurationError
from airlock.core.workload import Workload
from airlock.services.adopt import adopt
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.submit import batch_file, checked_policy, data_ref

app = typer.Typer(help="Workloads: what is governed.", no_args_is_help=True)


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Workloads to check; all if none is named.")
    ] = None,
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Check workload files, with everything they refer to."""
    deployment = open_deployment()
    wanted = names or [path.stem for path in deployment.config.workload_files()]
    problems = {name: _problems(deployment, name) for name in wanted}
    if not wanted:
        problems = {"config/workloads": ["there is no workload; empty is invalid"]}
    if output is Format.JSON:
        emit(problems)
    else:
        for name, found in problems.items():
            console.print(f"[red]✘[/] {safe(name)}" if found else f"[green]✔[/] {safe(name)}")
            for problem in found:
                console.print(f"    {safe(problem)}", soft_wrap=True)
    if any(problems.values()):
        raise SystemExit(2)


def _problems(deployment: Deployment, name: str) -> list[str]:
    try:
        workload = deployment.config.workload(name)
    except AirlockError as error:
        return [str(error)]
    found = []
    for probe in (
        lambda: checked_policy(deployment, workload.policy),
        lambda: deployment.config.suite(workload.data.expectations),
        deployment.config.people,
        lambda: data_ref(deployment.settings.data_root / workload.data.training),
        lambda: batch_file(deployment, workload, workload.data.default_batch),
        lambda: deployment.registry.champion(workload.model.registered_model),
        lambda: _documentation(deployment, workload),
    ):
        try:
            probe()
        except AirlockError as error:
            found.append(str(error))
    return found


def _documentation(deployment: Deployment, workload: Workload) -> None:
    if not deployment.config.documentation(workload).strip():
        raise ConfigurationError(
            f"documentation: {workload.documentation} is missing or empty beside the workload file"
        )


@app.command("list")
def list_command(*, output: FormatOption = Format.PRETTY) -> None:
    """List workloads with their champions."""
    deployment = open_deployment()
    rows = []
    for path in deployment.config.workload_files():
        try:
            workload = deployment.config.load_workload(path)
        except AirlockError as error:
            rows.append({"workload": path.stem, "problem": str(error)})
            continue
        try:
            champion = deployment.registry.champion(workload.model.registered_model)
            version = champion.version if champion else "none"
        except AirlockError as error:
            version = error.what
        rows.append(
            {
                "workload": workload.name,
                "owner": workload.owner,
                "policy": workload.policy,
                "champion": version,
            }
        )
    if output is Format.JSON:
        emit(rows)
        return
    for row in rows:
        facts = ", ".join(f"{name} {row[name]}" for name in ("champion", "owner", "policy") if name in row)
        text = safe(row.get("problem", facts))
        console.print(f"[bold]{safe(row['workload'])}[/]  {text}", soft_wrap=True)
    if not rows:
        console.print("No workloads yet. Put a YAML file into config/workloads/.")


@app.command("adopt")
def adopt_command(
    name: Annotated[str, typer.Argument(help="Workload.")],
    *,
    version: Annotated[str, typer.Option(help="Version that is in production already.")],
    reason: Annotated[str, typer.Option(help="Why it is adopted without a release.")],
) -> None:
    """Make the model that is in production already the first champion; only while there is none."""
    adopt(open_deployment(), name, version, actor=getpass.getuser(), reason=reason)
    console.print(
        f"Version {safe(version)} is the champion of {safe(name)}. "
        "From now on only a release can change that."
    )
