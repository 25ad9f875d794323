"""``airlock evidence``: packs that an auditor takes away and verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.cli.store import note_access
from airlock.proof import NOT_VERIFIED
from airlock.services.deployment import open_deployment

app = typer.Typer(help="Evidence packs: everything a release rests on, in one file.", no_args_is_help=True)


@app.command("export")
def export_command(
    release: Annotated[str, typer.Argument(help="Release id, as `airlock release list` shows it.")],
    *,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to; RELEASE.zip if not given.")
    ] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Write the evidence pack of a release. It holds what people wrote: keep it as such."""
    from airlock.services.evidence_pack import export_pack

    deployment = open_deployment()
    path = export_pack(deployment, release, target or Path(f"{release}.zip"))
    note_access(deployment, "evidence export", {"release": release})
    if output is Format.JSON:
        emit({"release": release, "path": str(path), "bytes": path.stat().st_size})
        return
    console.print(f"Wrote [bold]{safe(str(path))}[/] ({path.stat().st_size:,} bytes); it verifies.")
    console.print(f"Verify it elsewhere: airlock evidence verify {safe(path.name)} --public-key FILE")


@app.command("verify")
def verify_command(
    pack: Annotated[Path, typer.Argument(help="pack.zip, or the folder it was unpacked into.")],
    *,
    public_key: Annotated[
        Path | None, typer.Option(help="File with the key of the log, from outside the pack.")
    ] = None,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Verify a pack, as verify.py in it does; exit 3 if it does not verify."""
    from airlock.services.evidence_pack import verify_pack

    report = verify_pack(pack, public_key)
    if output is Format.JSON:
        emit(report.to_data())
    else:
        for line in report.lines():
            console.print(safe(line), soft_wrap=True)
    if not report.verified:
        raise SystemExit(NOT_VERIFIED)
