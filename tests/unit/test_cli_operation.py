"""``airlock rollback``, ``changes``, ``guard`` and ``incident``, as people see them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.cli import incident as incident_command
from airlock.cli import operation
from airlock.core.audit import Kind
from airlock.core.errors import RefusedError, UnavailableError
from airlock.services.incidents import find_incident, open_incident
from tests.support.commands import Cli
from tests.support.deployments import WORKLOAD, World, fast_folder, in_operation

REASON = "everybody is declined"


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield in_operation(folder / "template")


class Airflow:
    """Logs in whom it knows, or does not answer."""

    def __init__(self) -> None:
        self.logged_in: list[str] = []
        self.error: Exception | None = None

    def __call__(self, settings: Any, user: str) -> Airflow:
        self.logged_in.append(user)
        return self

    def log_in(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def world(template: World, airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with fast_folder() as folder:
        world = template.copy(folder / "world")
        for module in (operation, incident_command):
            monkeypatch.setattr(module, "open_deployment", lambda: world.deployment)
            monkeypatch.setattr(module, "client_for", airflow)
        yield world


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.requirement("R-3")
def test_one_command_rolls_back_and_says_what_happened(world: World, airflow: Airflow, cli: Cli) -> None:
    done = cli("rollback", WORKLOAD, "--reason", REASON, "--user", "petra", "--no-changes")
    assert done.code == 0
    assert "version 2 of loan-model is in production, version 3 is not any more." in flat(done.err)
    assert re.search(r"airlock incident show incident-[0-9a-f]{10}", flat(done.err))
    assert airflow.logged_in == ["petra"]
    assert world.champion == "2"
    again = cli(
        "rollback", WORKLOAD, "--reason", REASON, "--user", "petra", "--no-changes", "--format", "json"
    )
    assert (again.json["from"], again.json["to"], again.json["actor"]) == ("3", "2", "petra")
    assert world.champion == "2"


@pytest.mark.requirement("R-3")
def test_a_dry_run_shows_each_check_and_changes_nothing(world: World, cli: Cli) -> None:
    world.trials.broken.add("weights 2")
    shown = cli("rollback", WORKLOAD, "--dry-run")
    assert shown.code == 0
    text = flat(shown.err)
    for words in (
        "version 2 not fit", "trial the model gives no answers", "version 1 fit",
        "adopted, never judged; the policy lets it return", "version 1 takes over from version 3",
    ):  # fmt: skip
        assert words in text, words
    assert world.champion == "3"
    world.trials.broken.add("weights 1")
    nothing = cli("rollback", WORKLOAD, "--dry-run", "--format", "json")
    assert (nothing.code, nothing.json["how"]) == (3, "quarantine")


@pytest.mark.requirement("R-3", "A-2")
def test_who_may_not_is_refused_with_the_roles_it_takes(world: World, cli: Cli) -> None:
    refused = cli("rollback", WORKLOAD, "--reason", REASON, "--user", "dana")
    assert refused.code == 3
    assert "ml-platform-engineer or risk-officer" in flat(refused.err)
    assert world.champion == "3"


@pytest.mark.parametrize("arguments", [("--user", "petra"), ("--reason", REASON)])
def test_a_reason_and_a_user_are_needed(world: World, cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli("rollback", WORKLOAD, *arguments).code == 2
    assert world.champion == "3"


def test_a_wrong_password_rolls_nothing_back(world: World, airflow: Airflow, cli: Cli) -> None:
    airflow.error = RefusedError("Airflow does not accept the password of petra")
    assert cli("rollback", WORKLOAD, "--reason", REASON, "--user", "petra").code == 3
    assert world.champion == "3"


def test_without_airflow_it_goes_on_and_the_record_says_so(world: World, airflow: Airflow, cli: Cli) -> None:
    airflow.error = UnavailableError("Airflow does not answer")
    stopped = cli("rollback", WORKLOAD, "--reason", REASON, "--user", "petra")
    assert stopped.code == 1
    assert "give --without-airflow if this cannot wait" in flat(stopped.err)
    done = cli(
        "rollback", WORKLOAD, "--reason", REASON, "--user", "petra", "--without-airflow", "--no-changes"
    )
    assert done.code == 0
    (started,) = world.events(Kind.ROLLBACK_STARTED)
    assert "Airflow was not asked who petra is" in started.data["reason"]


@pytest.mark.requirement("R-4")
def test_that_changes_cannot_be_told_is_no_failure_of_a_rollback(world: World, cli: Cli) -> None:
    done = cli("rollback", WORKLOAD, "--reason", REASON, "--user", "petra")
    assert done.code == 0
    assert "nothing is scored in this test" in flat(done.err)
    assert world.champion == "2"


@pytest.mark.requirement("R-4")
def test_the_newest_changes_are_shown_and_written_as_a_page(world: World, cli: Cli, tmp_path: Path) -> None:
    assert cli("changes", WORKLOAD).code == 2, "nothing was compared yet"
    report = {
        "workload": WORKLOAD, "kind": "rollback", "from": "3", "to": "2", "problem": "",
        "data": [
            {
                "name": "evaluation batch clean",
                "flips": {
                    "task": "classification", "rows": 400, "changed": 90, "to_favourable": 90,
                    "to_unfavourable": 0, "kinds": [],
                    "groups": [{"attribute": "group", "group": "group A", "rows": 200, "changed": 60}],
                },
                "reasons": [
                    {"way": "up", "cases": 50, "features": [{"feature": "income", "shift": 0.1}]}
                ],
                "examples": [
                    {"way": "up", "where": {"income": "40 to 60"}, "cases": 100, "changed": 80}
                ],
            }
        ],
    }  # fmt: skip
    put = world.deployment.evidence.put
    world.deployment.record(
        Kind.DECISIONS_COMPARED,
        "decisions/test",
        workload=WORKLOAD,
        data={
            "report": put(json.dumps(report).encode()),
            "page": put(b"<section>"),
            "sentence": "90 of 400 cases",
        },
    )
    shown = flat(cli("changes", WORKLOAD, "--html", str(tmp_path / "page.html")).err)
    for words in (
        "90 of 400 cases", "group: group A 200 60 30.0 %", "accepted now, declined before: income +0.1",
        "income 40 to 60: 80 of 100 such cases are accepted now",
    ):  # fmt: skip
        assert words in shown, words
    assert (tmp_path / "page.html").read_text() == "<section>"
    assert cli("changes", WORKLOAD, "--format", "json").json == report


@pytest.mark.requirement("R-1")
def test_the_guard_says_what_was_moved_and_exits_for_programs(world: World, cli: Cli) -> None:
    fine = cli("guard", "check")
    assert (fine.code, "1 champions are what the log says" in flat(fine.err)) == (0, True)
    world.registry.champions[WORKLOAD] = "1"
    found = cli("guard", "check", WORKLOAD, "--format", "json")
    assert found.code == 3
    (row,) = found.json["findings"]
    assert (row["problem"], row["expected"], row["found"], row["undone"]) == ("moved", "3", "1", True)
    (world.config / "workloads" / "broken.yaml").write_text("name: [")
    world.registry.champions[WORKLOAD] = "2"
    failed = cli("guard", "check")
    assert failed.code == 1
    assert "it was put back" in flat(failed.err)
    assert "not looked at broken" in flat(failed.err)


def opened(world: World) -> str:
    return open_incident(
        world.deployment, workload=WORKLOAD, version="3", action="alert", severity="high",
        summary="the county drifted", cause="drift/county", detected_us=world.clock.us,
    )  # fmt: skip


@pytest.mark.requirement("M-4")
def test_an_incident_from_list_to_post_mortem(
    world: World, airflow: Airflow, cli: Cli, tmp_path: Path
) -> None:
    assert "No incident is open" in cli("incident", "list").err
    name = opened(world)
    assert "the county drifted" in flat(cli("incident", "list").err)
    assert cli("incident", "ack", name, "--comment", "I look", "--user", "petra").code == 0
    shown = flat(cli("incident", "show", name).err)
    for words in (
        "acknowledged",
        "ml-platform-engineer",
        "petra",
        "incident.opened",
        "incident.acknowledged",
    ):
        assert words in shown, words
    path = tmp_path / "learned.yaml"
    path.write_text(
        "happened: Applicants of one county were declined.\nwhy: The county was not in the data.\n"
        "changes: It is watched from now on.\n"
        "proposal: {limit: red_change, value: 0.1, why: it was seen too late}\n"
    )
    done = cli("incident", "resolve", name, "--post-mortem", str(path), "--user", "petra")
    assert "limit red_change becomes 0.1" in flat(done.err)
    assert airflow.logged_in == ["petra", "petra"]
    assert not find_incident(world.deployment, name).is_open
    assert "limit red_change from 0.15 to 0.1: it was seen too late" in flat(
        cli("incident", "show", name).err
    )
    assert cli("incident", "list", "--format", "json").json == []
    (row,) = cli("incident", "list", "--all", "--format", "json").json
    assert (row["state"], row["incident"]) == ("resolved", name)
    assert cli("incident", "figures", "--format", "json").json["total"] == 1
    assert "1 incidents, 0 open" in cli("incident", "figures").err


@pytest.mark.requirement("M-4")
def test_a_post_mortem_with_a_typo_names_its_line(world: World, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "learned.yaml"
    path.write_text("happend: x\nwhy: y\nchanges: z\n")
    failed = cli("incident", "resolve", opened(world), "--post-mortem", str(path), "--user", "petra")
    assert failed.code == 2
    assert "learned.yaml" in failed.err
