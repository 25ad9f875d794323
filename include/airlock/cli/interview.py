"""``airlock interview``: what a release has to say about itself, asked one question at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import InvalidInputError
from airlock.core.interview import read_answer
from airlock.core.manifest import AnswerValue
from airlock.services.deployment import open_deployment
from airlock.services.interview import Known, answers_of, ask_rest, prepare, read_file

INCOMPLETE = 4
"""Exit code while a required question has no answer: it waits for a person."""


def interview(
    workload: Annotated[str, typer.Argument(help="Name of a workload in config/workloads/.")],
    *,
    version: Annotated[
        str, typer.Option(help="Version in the MLflow registry, whose metadata answers questions.")
    ] = "",
    answers: Annotated[Path | None, typer.Option(help="YAML file with answers that are known.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="File the answers go to, for `airlock submit --answers`.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Ask what is left; never done without a terminal.")
    ] = True,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Fill in what the metadata answers, ask the rest; exit 4 while a required answer is missing."""
    deployment = open_deployment()
    spec = deployment.config.workload(workload)
    given = None if answers is None else read_file(answers)
    known = prepare(deployment, spec, version=version, given=given)
    if output is Format.PRETTY:
        _show([entry for entry in known if entry.answer is not None])
    if ask and output is Format.PRETTY and sys.stdin.isatty():
        known = ask_rest(known, _ask)
    if write is not None:
        write.write_text(yaml.safe_dump(answers_of(known), sort_keys=False, allow_unicode=True), "utf-8")
    missing = [entry for entry in known if entry.required and entry.answer is None]
    if output is Format.JSON:
        emit({"workload": spec.name, "version": version, "questions": [_json(entry) for entry in known]})
    else:
        _finish(missing, write)
    raise SystemExit(INCOMPLETE if missing else 0)


def _show(answered: list[Known]) -> None:
    for entry in answered:
        console.print(f"[green]✔[/] {safe(entry.question.text)}")
        console.print(f"    {safe(_words(entry.answer))} [dim]({safe(entry.source)})[/]", soft_wrap=True)


def _finish(missing: list[Known], write: Path | None) -> None:
    for entry in missing:
        console.print(f"[yellow]?[/] {safe(entry.question.text)} [dim]({safe(entry.question.id)})[/]")
        console.print(f"    [dim]{safe(entry.question.why)}[/]", soft_wrap=True)
    if missing:
        console.print(f"{len(missing)} questions have no answer yet.")
    elif write is None:
        console.print("Every question is answered. Keep the answers with --write FILE.")
    else:
        console.print(f"Every question is answered: {safe(str(write))}")


def _ask(entry: Known) -> AnswerValue | None:
    """Ask until the answer fits; an empty line leaves a question open."""
    question = entry.question
    console.print(f"\n[bold]{safe(question.text)}[/]")
    console.print(f"[dim]Why it is asked: {safe(question.why)}[/]", soft_wrap=True)
    hints = {
        "yes_no": "yes or no",
        "number": "a number",
        "text": "in words",
        "choice": ", ".join(question.choices),
    }
    empty = "must be answered before the release" if entry.required else "may stay open"
    while True:
        text = typer.prompt(
            f"{hints[question.type]} (Enter: {empty})", default="", show_default=False, err=True
        )
        if not text.strip():
            return None
        try:
            return read_answer(question, text)
        except InvalidInputError as error:
            console.print(f"[red]{safe(error.fix)}[/]")


def _words(answer: AnswerValue | None) -> str:
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return f"{answer:,.12g}" if isinstance(answer, float) else str(answer)


def _json(entry: Known) -> dict[str, object]:
    question = entry.question
    return {
        "id": question.id,
        "text": question.text,
        "why": question.why,
        "type": question.type,
        "choices": list(question.choices),
        "required": entry.required,
        "answer": entry.answer,
        "source": entry.source,
    }
