"""Retention regimes, legal holds as their events tell them, and the commands about what people wrote."""

from __future__ import annotations

import calendar
import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from airlock.adapters.config_files import ConfigFolder
from airlock.cli import privacy as commands
from airlock.cli.output import console
from airlock.core.audit import Event, Kind
from airlock.core.errors import (
    AirlockError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
)
from airlock.core.retention import DAY_US, Hold, Regime, Retention, holds_of
from airlock.services.privacy import day
from tests.support.deployments import START_US, WORKLOAD, World, fast_folder, make_world, write_yaml

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "retention.yaml"
HOSTILE = "[red]x[/red] \x1b[2J \u202e :smile: [/]"


def regime(**changes: Any) -> dict[str, Any]:
    return {"id": "law", "title": "A law", "source": "Law, Article 1", "keep_days": 30, **changes}


# Regimes


@pytest.mark.requirement("E-5")
def test_each_shipped_regime_says_where_it_comes_from() -> None:
    retention = ConfigFolder(ROOT / "config").retention()
    assert retention.ids == ["ecoa", "ecoa-business", "ai-act-documentation", "ai-act-logs"]
    for found in retention.regimes:
        assert any(word in found.source for word in ("CFR", "Regulation (EU)")), found.id
        assert found.note, "the law counts from another day than the log"


def months_later(start: date, months: int) -> date:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return date(year, month + 1, min(start.day, calendar.monthrange(year, month + 1)[1]))


@pytest.mark.requirement("E-5")
@pytest.mark.parametrize(
    ("regime_id", "months"),
    [("ecoa", 25), ("ecoa-business", 12), ("ai-act-documentation", 120), ("ai-act-logs", 6)],
)
def test_shipped_days_are_the_longest_that_the_months_of_the_law_can_have(
    regime_id: str, months: int
) -> None:
    found = ConfigFolder(ROOT / "config").retention().find(regime_id)
    assert found is not None
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(4 * 366)]
    assert found.keep_days == max((months_later(start, months) - start).days for start in days)


def test_the_shipped_file_fits_its_schema_and_names_it_for_editors() -> None:
    schema = ROOT / "config" / "schemas" / "retention.schema.json"
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    assert list(validator.iter_errors(yaml.safe_load(SHIPPED.read_text()))) == []
    assert list(validator.iter_errors({"regimes": [regime(keep_dyas=3)]}))
    first = SHIPPED.read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (SHIPPED.parent / named).resolve() == schema


@pytest.mark.requirement("E-5")
def test_the_shipped_mortgage_workload_is_under_the_equal_credit_opportunity_act() -> None:
    folder = ConfigFolder(ROOT / "config")
    assert [found.id for found in folder.regimes(folder.workload("mortgage-approval"))] == ["ecoa"]
    assert folder.regimes(folder.workload("rate-type-forecast")) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "A Law"},
        {"title": ""},
        {"source": ""},
        {"keep_days": 0},
        {"keep_days": -1},
        {"keep_days": 36_526},
        {"keep_days": 1.5},
        {"keep_days": None},
        {"keep": 5},
    ],
)
def test_a_regime_that_says_nothing_certain_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Regime.model_validate(regime(**changes))


def test_a_period_begins_with_the_event_and_ends_on_the_day() -> None:
    found = Regime.model_validate(regime(keep_days=1))
    assert found.until_us(START_US) == START_US + 24 * 3_600 * 1_000_000
    assert (day(START_US), day(START_US + 1)) == ("2026-01-01", "2026-01-02")
    last = Regime.model_validate(regime(keep_days=36_525)).until_us(2**53 - 1)
    assert day(last) == "2355-06-07", "the furthest there is can be written"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_world(tmp_path / "world").config


def name_regimes(config: Path, regimes: str) -> Path:
    path = config / "workloads" / f"{WORKLOAD}.yaml"
    path.write_text(f"{path.read_text()}regimes: {regimes}\n")
    return path


def test_a_workload_without_regimes_needs_no_file_of_them(config: Path) -> None:
    folder = ConfigFolder(config)
    assert folder.workload(WORKLOAD).regimes == []
    with pytest.raises(NotFoundError, match="file not found"):
        folder.retention()


@pytest.mark.requirement("E-5")
def test_an_unknown_regime_is_answered_with_file_line_and_what_was_meant(config: Path) -> None:
    write_yaml(config / "retention.yaml", {"regimes": [regime(id="ecoa"), regime(id="ai-act-logs")]})
    path = name_regimes(config, "[ecoa, ai-act-log]")
    with pytest.raises(ConfigurationError) as caught:
        ConfigFolder(config).workload(WORKLOAD)
    assert caught.value.what == "regimes.1: there is no regime 'ai-act-log'"
    assert caught.value.where == f"{path}:{len(path.read_text().splitlines())}"
    assert caught.value.fix.startswith("did you mean 'ai-act-logs'? ")
    assert caught.value.fix.endswith(": ecoa, ai-act-logs")


def test_a_release_of_a_workload_with_an_unknown_regime_is_not_accepted(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    write_yaml(world.config / "retention.yaml", {"regimes": [regime()]})
    name_regimes(world.config, "[lwa]")
    with pytest.raises(ConfigurationError, match="there is no regime 'lwa'"):
        world.submit()
    assert world.deployment.audit.events() == []


@pytest.mark.parametrize(
    ("regimes", "error", "words"),
    [
        ("[law, law]", ConfigurationError, "regimes names a regime twice"),
        ("law", ConfigurationError, "regimes: Input should be a valid list"),
        ("[1]", ConfigurationError, "regimes.0: this must be text"),
        ("[Law 1]", ConfigurationError, "regimes.0: String should match"),
        ("[law]", NotFoundError, "file not found"),
    ],
)
def test_regimes_that_cannot_be_read_are_an_error(
    config: Path, regimes: str, error: type[AirlockError], words: str
) -> None:
    name_regimes(config, regimes)
    with pytest.raises(error, match=words):
        ConfigFolder(config).workload(WORKLOAD)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"regimes": []}, "regimes: List should have at least 1 item"),
        ({"regimes": [regime(), regime(title="Another")]}, "regimes: an id appears twice"),
        ({"regimes": [regime(keep_dyas=3)]}, "regimes.0.keep_dyas: unknown field; did you mean 'keep_days'"),
        ({"regimes": [{**regime(), "source": 5}]}, "regimes.0.source: this must be text"),
        ([regime()], "Input should be a valid dictionary"),
    ],
)
def test_a_mistake_in_the_file_of_regimes_is_answered_with_its_field(
    tmp_path: Path, data: Any, words: str
) -> None:
    path = write_yaml(tmp_path / "retention.yaml", data)
    with pytest.raises(ConfigurationError) as caught:
        ConfigFolder(tmp_path).retention()
    assert words in caught.value.what
    assert caught.value.where.startswith(f"{path}:")


def test_a_regime_is_found_by_its_id() -> None:
    retention = Retention.model_validate({"regimes": [regime(), regime(id="other")]})
    assert retention.find("other") is retention.regimes[1]
    assert retention.find("nothing") is None


# Holds, from events alone


def placed(hold: str, actor: str = "lea", **changes: Any) -> Event:
    values: dict[str, Any] = {
        "kind": Kind.HOLD_PLACED,
        "data": {"hold": hold, "subject": "dana", "reason": "Case"},
        **changes,
    }
    return Event(key=f"{hold}/placed/{actor}", occurred_us=1, actor=actor, deployment="test", **values)


def lifted(hold: str, actor: str = "ravi", deployment: str = "test") -> Event:
    data = {"hold": hold, "reason": f"Over, says {actor}"}
    return Event(
        key=f"{hold}/lifted/{actor}", kind=Kind.HOLD_LIFTED, occurred_us=2, actor=actor,
        deployment=deployment, data=data,
    )  # fmt: skip


def ends(events: list[Event]) -> list[tuple[str, str]]:
    return [(hold.id, hold.lifted_by) for hold in holds_of(events)]


@pytest.mark.requirement("E-5")
def test_which_holds_stand_follows_from_their_events() -> None:
    assert ends([]) == []
    assert ends([placed("a"), placed("b"), lifted("a")]) == [("a", "ravi"), ("b", "")]
    assert ends([lifted("a"), placed("a")]) == [("a", "")], "nothing is lifted before it was placed"
    assert ends([placed("a"), lifted("a"), lifted("a", "omar")]) == [("a", "ravi")], "the first one did"
    assert ends([placed("a"), lifted("a"), placed("a", "omar")]) == [("a", "ravi")]
    assert ends([placed("a"), lifted("a", deployment="other")]) == [("a", "")]
    assert ends([placed("a", kind=Kind.TASK_STARTED), placed("", data={}), lifted("", "x")]) == []
    (hold,) = holds_of([placed("a"), lifted("a")])
    assert (hold.placed_by, hold.placed_us, hold.reason) == ("lea", 1, "Case")
    assert (hold.lifted_us, hold.lift_reason, hold.stands) == (2, "Over, says ravi", False)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"subject": "dana"}, "what dana wrote"),
        ({"release_id": "r-1"}, "release r-1"),
        ({"workload": "loan"}, "workload loan"),
    ],
)
def test_a_hold_covers_what_it_is_about_and_nothing_empty(about: dict[str, str], words: str) -> None:
    everything = {"subject": "dana", "release_id": "r-1", "workload": "loan"}
    nothing = dict.fromkeys(everything, "")
    values = {"id": "a", "deployment": "test", "reason": "Case", "placed_by": "lea", "placed_us": 1}
    hold = Hold(**{**values, **nothing, **about})  # type: ignore[arg-type]
    assert hold.about == words
    assert hold.covers(**everything)
    assert not hold.covers(**nothing), "a text about no release is not covered by a hold on a person"
    assert not hold.covers(**{**everything, **dict.fromkeys(about, "another")})


# Commands


@pytest.fixture(scope="module")
def template() -> Iterator[tuple[World, str]]:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        yield world, world.granted(context="Secret words.")


@pytest.fixture
def world(template: tuple[World, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with fast_folder() as folder:
        found = template[0].copy(folder / "world")
        monkeypatch.setattr(commands, "open_deployment", lambda: found.deployment)
        monkeypatch.setattr(console, "_width", 300)
        yield found


@pytest.fixture
def release_id(template: tuple[World, str]) -> str:
    return template[1]


Run = Callable[..., Any]


@pytest.fixture
def run() -> Run:
    """Runs one of the commands; an error comes out as it is raised."""
    app = typer.Typer()
    for name in ("personal", "erase", "hold", "lift", "holds"):
        app.command(name)(getattr(commands, name))

    def invoke(*arguments: str, answer: str = "") -> Any:
        result = CliRunner().invoke(app, list(arguments), input=answer)
        if isinstance(result.exception, AirlockError):
            raise result.exception
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


def data_of(result: Any) -> Any:
    return json.loads(result.stdout)


@pytest.mark.requirement("E-5")
def test_personal_counts_by_person_and_never_shows_a_text(world: World, run: Run, release_id: str) -> None:
    rows = {row["subject"]: row for row in data_of(run("personal", "--format", "json"))}
    assert set(rows) == {"dana", "grace", "ravi"}
    assert rows["dana"] == {
        "subject": "dana", "texts": 1, "releases": 1, "oldest_us": START_US, "newest_us": START_US,
        "erasable": 1, "erased": 0, "missing": 0,
    }  # fmt: skip
    shown = run("personal")
    assert "dana  1 text about 1 release, since 2026-01-01; 1 may be erased; 0 were erased" in shown.stderr
    each = data_of(run("personal", "--subject", "dana", "--format", "json"))[0]["each"]
    assert [(row["kind"], row["field"], row["release"], row["why"]) for row in each] == [
        ("release.submitted", "context", release_id, "")
    ]
    detailed = run("personal", "--subject", "dana")
    assert f"2026-01-01 release.submitted context {release_id}: may be erased" in detailed.stderr
    outputs = [shown, detailed, run("personal", "--format", "json")]
    assert not any("Secret" in found.output or "Looks right" in found.output for found in outputs)


def test_personal_of_nobody_and_of_an_unknown_person(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with fast_folder() as folder:
        empty = make_world(folder / "world")
        monkeypatch.setattr(commands, "open_deployment", lambda: empty.deployment)
        assert "Nobody has written anything yet." in run("personal").stderr
        assert data_of(run("personal", "--format", "json")) == []
        with pytest.raises(NotFoundError, match="'dana' never wrote anything"):
            run("personal", "--subject", "dana")


@pytest.mark.requirement("E-5")
def test_erase_says_what_it_did_and_personal_that_it_is_gone(world: World, run: Run, release_id: str) -> None:
    shown = run("erase", "dana", "--reason", "DSR-1", "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "1 text of dana about 1 release: erased." in shown.stderr
    assert world.release(release_id).context == "[erased]"
    assert "0 texts about 0 releases; 0 may be erased; 1 were erased" in run("personal").stderr
    assert "Nothing is left of what dana wrote." in run("erase", "dana", "--reason", "DSR-1", "--yes").stderr
    event = world.events(Kind.PERSONAL_ERASED)[0]
    assert event.data["reason"] == "DSR-1"


def test_erase_as_json_names_each_text_and_a_dry_run_changes_nothing(
    world: World, run: Run, release_id: str
) -> None:
    plan = run("erase", "grace", "--reason", "DSR-1", "--dry-run", "--format", "json")
    assert ": would be erased" in run("erase", "grace", "--reason", "DSR-1", "--dry-run").stderr
    assert data_of(plan)["dry_run"] is True
    done = data_of(run("erase", "grace", "--reason", "DSR-1", "--yes", "--format", "json"))
    assert done == {**data_of(plan), "dry_run": False}
    assert [(row["field"], row["release"], len(row["commitment"])) for row in done["erased"]] == [
        ("comment", release_id, 64)
    ]


def test_erase_asks_on_a_terminal_and_needs_yes_without_one(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="nobody is there to answer") as caught:
        run("erase", "dana", "--reason", "DSR-1", answer="y\n")
    assert "--yes" in caught.value.fix
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(commands, "sys", terminal)
    refused = run("erase", "dana", "--reason", "DSR-1", answer="n\n")
    assert refused.exit_code == 1
    assert "1 text of dana about 1 release: would be erased." in refused.stderr
    assert world.events(Kind.PERSONAL_ERASED) == []
    assert run("erase", "dana", "--reason", "DSR-1", answer="y\n").exit_code == 0
    assert len(world.events(Kind.PERSONAL_ERASED)) == 1
    gone = run("erase", "dana", "--reason", "DSR-1")  # nothing is left to ask about
    assert "Nothing is left of what dana wrote." in gone.stderr


@pytest.mark.requirement("E-5")
def test_what_is_kept_is_listed_with_its_reason_and_exit_code_3(
    world: World, run: Run, release_id: str
) -> None:
    second = world.submit("3", run="run-2", context="More.")
    hold = data_of(run("hold", "--release", release_id, "--reason", "Case 1", "--format", "json"))
    assert hold["release"] == release_id
    shown = run("erase", "dana", "--reason", "DSR-1", "--dry-run")
    assert shown.exit_code == 3
    assert "1 text has to be kept:" in shown.stderr
    assert f"kept: legal hold {hold['id']} on release {release_id}" in shown.stderr
    done = run("erase", "dana", "--reason", "DSR-1", "--yes", "--format", "json")
    assert done.exit_code == 3
    assert [row["release"] for row in data_of(done)["erased"]] == [second]
    assert [(row["release"], row["until_us"]) for row in data_of(done)["kept"]] == [(release_id, None)]
    with pytest.raises(RefusedError, match=hold["id"]):
        run("erase", "dana", "--reason", "DSR-1", "--yes")
    nothing = run("erase", "dana", "--reason", "DSR-1", "--dry-run")
    assert "Nothing of what dana wrote may be erased." in nothing.stderr


def test_a_long_list_of_what_is_kept_is_cut_for_people_and_whole_for_programs(world: World, run: Run) -> None:
    for number in range(24):
        world.submit(run=f"more-{number}", context="More.")
    run("hold", "--subject", "dana", "--reason", "Case 1")
    shown = run("erase", "dana", "--reason", "DSR-1", "--dry-run")
    assert shown.stderr.count("legal hold") == 20
    assert "and 5 more" in shown.stderr
    assert len(data_of(run("erase", "dana", "--reason", "x", "--dry-run", "--format", "json"))["kept"]) == 25


@pytest.mark.requirement("E-5")
def test_holds_are_placed_listed_and_lifted(world: World, run: Run) -> None:
    assert "No legal hold stands." in run("holds").stderr
    placed = data_of(run("hold", "--subject", "dana", "--reason", "Case 1", "--format", "json"))
    shown = run("holds").stderr
    assert f"{placed['id']} what dana wrote, placed 2026-01-01 by " in shown
    assert ": Case 1" in shown
    world.clock.advance(hours=48)
    lifted = run("lift", placed["id"], "--reason", "Closed")
    assert "; lifted 2026-01-03 by " in lifted.stderr
    assert data_of(run("holds", "--format", "json")) == []
    (row,) = data_of(run("holds", "--all", "--format", "json"))
    assert row["lift_reason"] == "Closed"
    assert (row["stands"], row["lifted_us"] - row["placed_us"]) == (False, 2 * DAY_US)
    assert row["id"] in run("holds", "--all").stderr


@pytest.mark.parametrize("arguments", [(), ("--subject", "dana", "--workload", WORKLOAD)])
def test_a_hold_is_about_exactly_one_thing(world: World, run: Run, arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="one person, one release or one workload"):
        run("hold", *arguments, "--reason", "Case 1")


def test_what_others_wrote_acts_on_no_terminal(world: World, run: Run) -> None:
    world.submit("3", run="run-2", user=HOSTILE, context="More.")
    placed = data_of(run("hold", "--subject", HOSTILE, "--reason", HOSTILE, "--format", "json"))
    outputs = [
        run("personal").stderr,
        run("personal", "--subject", HOSTILE).stderr,
        run("holds").stderr,
        run("erase", HOSTILE, "--reason", HOSTILE, "--dry-run").stderr,
        run("lift", placed["id"], "--reason", HOSTILE).stderr,
        run("holds", "--all", "--format", "json").stdout,
    ]
    for text in outputs:
        assert "[red]x[/red]" in text
        assert "\x1b[2J" not in text
        assert "\u202e" not in text


# The guide


def test_the_regime_of_the_guide_is_one_that_is_shipped() -> None:
    text = (ROOT / "docs" / "privacy.md").read_text()
    (example,) = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert Regime.model_validate(example) in ConfigFolder(ROOT / "config").retention().regimes


def test_the_guide_names_every_kind_of_text_that_is_kept() -> None:
    """A new one has to be told to those who answer for it."""
    kinds = {kind: kind.personal for kind in Kind if kind.personal}
    assert kinds == {
        Kind.RELEASE_SUBMITTED: ("context",),
        Kind.APPROVAL_RECORDED: ("comment", "condition"),
        Kind.CONDITION_MET: ("comment",),
        Kind.DELEGATION_GIVEN: ("reason",),
        Kind.DELEGATION_ENDED: ("reason",),
        Kind.QUESTION_ASKED: ("question",),
        Kind.QUESTION_ANSWERED: ("answer",),
        Kind.CHAMPION_ADOPTED: ("reason",),
        Kind.WAIVER_REQUESTED: ("reason",),
        Kind.WAIVER_GRANTED: ("comment",),
        Kind.WAIVER_REJECTED: ("comment",),
        Kind.WAIVER_REVOKED: ("reason",),
        Kind.POLICY_APPROVED: ("comment",),
        Kind.POLICY_REJECTED: ("comment",),
        Kind.ROLLBACK_STARTED: ("reason",),
        Kind.ROLLBACK_REFUSED: ("reason",),
        Kind.RETRAIN_REQUESTED: ("reason",),
        Kind.MONITOR_RESUMED: ("reason",),
        Kind.ACTION_ANSWERED: ("comment",),
        Kind.INCIDENT_ACKNOWLEDGED: ("comment",),
        Kind.INCIDENT_RESOLVED: ("happened", "why", "changes"),
    }
    text = (ROOT / "docs" / "privacy.md").read_text()
    for words in (
        "why a release is wanted",
        "questions of approvers and what was answered, their comments and conditions",
        "the reason of an adoption, a delegation, a rollback, a retraining or of going on with monitoring",
        "comments on a new policy or a proposed action",
        "about an incident and in its post-mortem",
    ):
        assert words in text
    assert "why a waiver is asked for or taken back" in text
