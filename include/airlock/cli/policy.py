"""``airlock policy``: list, check, test, show and compare policy bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import typer

from airlock.adapters.engines import open_engine, open_rego
from airlock.adapters.settings import load_settings
from airlock.adapters.system import SystemClock
from airlock.cli.lazy import LazyGroup
from airlock.cli.output import Format, FormatOption, console, emit, safe
from airlock.core.errors import AirlockError, NotFoundError
from airlock.core.policy import Policy, Rule
from airlock.core.policy_diff import diff as differences
from airlock.reporting.policy_text import policy_markdown
from airlock.services.policies import Bundles
from airlock.services.policy_check import Problem, check_bundle
from airlock.services.rule_tests import coverage, run_cases


class _Commands(LazyGroup):
    """Commands that are in files of their own."""

    PLACES: ClassVar[Mapping[str, str]] = {
        "publish": "airlock.cli.publishing:publish",
        "approve": "airlock.cli.publishing:approve",
        "reject": "airlock.cli.publishing:reject",
        "replay": "airlock.cli.replaying:replay",
        "canary": "airlock.cli.replaying:canary",
        "zombies": "airlock.cli.replaying:zombies",
    }


app = typer.Typer(
    cls=_Commands, help="Policies: the bundles of rules that judge releases.", no_args_is_help=True
)

_EITHER = "A version, or the path of a bundle's folder"
Bundle = Annotated[str, typer.Argument(metavar="VERSION", help=f"{_EITHER}.")]
BundleOrAll = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help=f"{_EITHER}; all if none is named.")
]


class ShowFormat(StrEnum):
    """Who reads a policy."""

    PRETTY = "pretty"
    JSON = "json"
    MARKDOWN = "markdown"


def _named(bundles: Bundles, name: str | None) -> list[str]:
    names = bundles.versions() if name is None else [name]
    if not names:
        raise NotFoundError(
            "there is no policy", where="config/policies", fix="put a bundle into config/policies/<version>/"
        )
    return names


@app.command("list")
def list_command(*, output: FormatOption = Format.PRETTY) -> None:
    """List the versions there are, with what is in them and who is judged by them."""
    bundles = Bundles()
    rows: list[dict[str, Any]] = []
    for version in bundles.versions():
        try:
            policy = bundles.files(version).policy()
        except AirlockError as error:
            rows.append({"version": version, "problem": str(error)})
            continue
        rows.append(
            {
                "version": version,
                "description": policy.description,
                "digest": policy.digest,
                "rules": len(policy.rules),
                "rego_files": len(policy.rego),
                "gates": list(policy.gates),
                "workloads": bundles.workloads_under(version),
            }
        )
    if output is Format.JSON:
        emit(rows)
        return
    for row in rows:
        if "problem" in row:
            text = f"[red]✘[/] [bold]{safe(row['version'])}[/]  {safe(row['problem'])}"
            console.print(text, soft_wrap=True)
            continue
        console.print(
            f"[bold]{safe(row['version'])}[/]  {row['rules']} rules, {len(row['gates'])} gates, "
            f"judges {safe(', '.join(row['workloads']) or 'nobody')}\n"
            f"  [dim]{safe(row['description'])}  {row['digest'][:12]}[/]",
            soft_wrap=True,
        )
    if not rows:
        console.print("No policies yet. Put a bundle into config/policies/<version>/.")


@app.command()
def check(
    bundle: BundleOrAll = None,
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Check bundles: fields, facts, types, gates, roles, tests, expired and shadowed rules."""
    bundles = Bundles()
    settings = load_settings()
    today = datetime.fromtimestamp(SystemClock().now_us() / 1_000_000, UTC).date()
    found: dict[str, list[Problem]] = {}
    for name in _named(bundles, bundle):
        found[name] = check_bundle(
            lambda name=name: bundles.files(name),  # type: ignore[misc]
            open_engine(settings),
            today=today,
            people=bundles.people(),
            rego=open_rego(settings),
        )
    red = any(problem.level == "error" for problems in found.values() for problem in problems)
    if output is Format.JSON:
        emit(
            {
                "ok": not red,
                "bundles": {name: [asdict(one) for one in problems] for name, problems in found.items()},
            }
        )
    else:
        for name, problems in found.items():
            _print_problems(name, problems)
    if red:
        raise SystemExit(1)


def _print_problems(name: str, problems: list[Problem]) -> None:
    errors = sum(problem.level == "error" for problem in problems)
    mark = "[red]✘[/]" if errors else "[green]✔[/]"
    tail = f"{errors} errors, {len(problems) - errors} warnings" if problems else "nothing to mend"
    console.print(f"{mark} [bold]{safe(name)}[/]  {tail}", soft_wrap=True)
    for problem in problems:
        colour = "red" if problem.level == "error" else "yellow"
        console.print(
            f"  [{colour}]{problem.level}[/] {safe(problem.what)} [dim]({problem.id})[/]", soft_wrap=True
        )
        console.print(f"    [dim]where[/]  {safe(problem.where)}", soft_wrap=True)
        console.print(f"    [dim]fix  [/]  {safe(problem.fix)}", soft_wrap=True)


@app.command("test")
def run_tests(
    bundle: BundleOrAll = None,
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Run the test cases of each rule; says which rules were seen to fire and to stay silent."""
    bundles = Bundles()
    reports = {name: _tested(bundles, name) for name in _named(bundles, bundle)}
    if output is Format.JSON:
        emit(reports)
    else:
        for name, report in reports.items():
            _print_report(name, report)
    if not all(report["ok"] for report in reports.values()):
        raise SystemExit(1)


def _tested(bundles: Bundles, name: str) -> dict[str, Any]:
    files = bundles.files(name)
    policy = files.policy()
    settings = load_settings()
    results = run_cases(policy, open_engine(settings))
    covered = coverage(policy, results)
    failed = [
        {
            "rule": result.rule,
            "case": f"tests.{result.wanted}.{result.number}",
            "facts": dict(result.patch),
            "problem": result.problem,
            "where": files.rule_place(result.rule, "tests", result.wanted, result.number),
        }
        for result in results
        if result.problem
    ]
    rego = open_rego(settings).tests(policy) if policy.rego else []
    failed += [
        {"rule": name, "case": "rego", "facts": {}, "problem": problem, "where": str(files.folder / file)}
        for file, name, problem in rego
        if problem
    ]
    whole = sum(rule.whole for rule in covered)
    return {
        "ok": not failed and whole == len(covered) and bool(rego) is bool(policy.rego),
        "cases": len(results) + len(rego),
        "failed": failed,
        "coverage": {
            "rules": len(covered),
            "covered": whole,
            "percent": round(100 * whole / len(covered), 1),
            "missing": [
                {"rule": rule.rule, "fired": rule.fired, "silent": rule.silent}
                for rule in covered
                if not rule.whole
            ],
        },
    }


def _print_report(name: str, report: dict[str, Any]) -> None:
    mark = "[green]✔[/]" if report["ok"] else "[red]✘[/]"
    covered = report["coverage"]
    console.print(
        f"{mark} [bold]{safe(name)}[/]  {report['cases']} cases, {len(report['failed'])} red; "
        f"{covered['covered']} of {covered['rules']} rules seen to fire and to stay silent "
        f"({covered['percent']:g} %)",
        soft_wrap=True,
    )
    for failure in report["failed"]:
        console.print(f"  [red]✘[/] {safe(failure['rule'])} {failure['case']}: {safe(failure['problem'])}")
        console.print(f"    [dim]facts[/]  {safe(str(failure['facts']))}", soft_wrap=True)
        console.print(f"    [dim]where[/]  {safe(failure['where'])}", soft_wrap=True)
    for rule in covered["missing"]:
        lacking = [word for word in ("fired", "silent") if not rule[word]]
        console.print(f"  [yellow]![/] {safe(rule['rule'])}: never seen {' and '.join(lacking)}")


@app.command()
def show(
    bundle: Bundle,
    rule: Annotated[str | None, typer.Argument(help="One rule alone.")] = None,
    *,
    output: Annotated[
        ShowFormat, typer.Option("--format", help="pretty for people, json for programs, markdown for docs.")
    ] = ShowFormat.PRETTY,
) -> None:
    """Show a bundle or one of its rules, with everything it says."""
    policy = Bundles().files(bundle).policy()
    if rule is None:
        if output is ShowFormat.JSON:
            emit({**policy.to_data(), "digest": policy.digest})
        elif output is ShowFormat.MARKDOWN:
            typer.echo(policy_markdown(policy), nl=False)
        else:
            _print_policy(policy)
        return
    found = next((one for one in policy.rules if one.id == rule), None)
    if found is None:
        raise _no_rule(rule, policy)
    if output is ShowFormat.JSON:
        emit(found.to_data())
    elif output is ShowFormat.MARKDOWN:
        typer.echo(policy_markdown(policy, only=rule), nl=False)
    else:
        _print_rule(found)


def _no_rule(rule: str, policy: Policy) -> NotFoundError:
    import difflib

    ids = [one.id for one in policy.rules]
    near = difflib.get_close_matches(rule, ids, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return NotFoundError(
        f"policy {policy.version} has no rule {rule!r}", fix=f"{guess}rules: {', '.join(ids)}"
    )


def _print_policy(policy: Policy) -> None:
    console.print(f"[bold]Policy {safe(policy.version)}[/]  {safe(policy.description)}", soft_wrap=True)
    console.print(f"[dim]digest {policy.digest}[/]\n\n[bold]Limits[/]", soft_wrap=True)
    for name, limit in policy.limits.items():
        console.print(
            f"  {safe(name)} = {safe(limit.text)}  [dim]{safe(limit.owner)}: {safe(limit.why)}[/]",
            soft_wrap=True,
        )
    console.print("\n[bold]Rules[/]")
    for rule in policy.rules:
        console.print(
            f"  {safe(rule.id)}  [bold]{rule.effect.label}[/]  "
            f"[dim]{safe(rule.title)}; {safe(rule.owner)}[/]",
            soft_wrap=True,
        )
    console.print("\n[bold]Seats[/]")
    for track, seats in policy.approval.seats.items():
        console.print(f"  {track}: {safe(', '.join(seat.role for seat in seats) or 'nobody')}")
    console.print(f"\n[bold]Gates[/]\n  {safe(', '.join(policy.gates))}", soft_wrap=True)
    if policy.rego:
        console.print(f"\n[bold]Rego[/]\n  {safe(', '.join(policy.rego))}", soft_wrap=True)


def _print_rule(rule: Rule) -> None:
    console.print(f"[bold]{safe(rule.id)}[/]  {safe(rule.title)}", soft_wrap=True)
    rows = {
        "effect": rule.effect.label,
        "when": rule.when,
        "because": rule.because,
        "otherwise": rule.otherwise,
        "why": rule.why,
        "fix": rule.fix,
        "owner": rule.owner,
        "severity": rule.severity,
        "expires": str(rule.expires),
    }
    if rule.effect.seats:
        rows["seats"] = "; ".join(f"{seat.role}: {seat.reason}" for seat in rule.effect.seats)
    for name, text in rows.items():
        console.print(f"  [dim]{name:10}[/]{safe(text)}", soft_wrap=True)
    for name, cases in rule.tests.to_data().items():
        for case in cases:
            console.print(f"  [dim]{name:10}[/]{safe(str(case))}", soft_wrap=True)


@app.command("diff")
def diff_command(
    before: Annotated[str, typer.Argument(metavar="A", help="A version or the path of a folder.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    *,
    output: FormatOption = Format.PRETTY,
) -> None:
    """Say in words what differs between two bundles, and whose approval each change needs."""
    bundles = Bundles()
    changes = differences(bundles.files(before).policy(), bundles.files(after).policy())
    if output is Format.JSON:
        emit([change.to_data() for change in changes])
        return
    for change in changes:
        console.print(f"  {safe(change.sentence)}", soft_wrap=True)
    if not changes:
        console.print("The bundles say the same.")
