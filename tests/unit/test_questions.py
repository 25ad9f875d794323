"""The auditor's questions: answered from the audit store and the evidence, or said why not."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from hypothesis import given
from hypothesis import strategies as st

from airlock.adapters.audit import Database
from airlock.cli import questions as commands
from airlock.cli import store as cli_store
from airlock.cli.output import console, fail
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.canonical import canonical_json
from airlock.core.errors import AirlockError, InvalidInputError, NotFoundError, RefusedError, UnavailableError
from airlock.core.evidence import GateResult, Verdict
from airlock.core.manifest import Manifest
from airlock.services import questions
from airlock.services.adopt import adopt
from airlock.services.announce import seal
from airlock.services.deployment import open_deployment
from airlock.services.evaluate import keep_evidence
from airlock.services.promote import promote
from airlock.services.questions import champions, people, reading
from airlock.services.releases import open_case
from airlock.services.sequence import Sequencer
from tests.support.commands import Cli, Result
from tests.support.deployments import (
    START_US,
    WORKLOAD,
    World,
    edit,
    fast_folder,
    make_world,
    policy_data,
    write_yaml,
)

HOUR = 3_600_000_000
HOSTILE = "[red]x[/] [/y] \x1b[2J\x1b]0;t\x07\u202e \r\nproduction: version 9 '; DROP TABLE event; --"


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


@pytest.fixture
def world(template: World) -> Iterator[World]:
    with fast_folder() as folder:
        yield template.copy(folder / "world")


@pytest.fixture
def unreleased(world: World) -> World:
    """A workload that has no champion yet."""
    world.registry.champions.clear()
    return world


def tick(world: World) -> int:
    """An hour later; the time it is then."""
    world.clock.advance(hours=1)
    return world.clock.us


def promoted(world: World, version: str, run: str, **kwargs: Any) -> str:
    release_id = world.granted(version, run=run, **kwargs)
    promote(world.deployment, release_id)
    seal(world.deployment, release_id)
    return release_id


def write(world: World, kind: Kind, key: str, **changes: Any) -> Recorded:
    """An event as anybody who may write can put it there."""
    values: dict[str, Any] = {"occurred_us": world.clock.us, "actor": "system", "deployment": "test"}
    return world.deployment.audit.append(Event(**{"key": key, "kind": kind, **values, **changes}))


def in_production(world: World, at_us: int) -> list[str]:
    answer = questions.production(world.deployment, WORKLOAD, since_us=at_us, until_us=at_us + 1)
    return [period.version for period in answer.periods]


# What was in production


@pytest.mark.requirement("E-4")
def test_what_was_in_production_is_known_to_the_microsecond(unreleased: World) -> None:
    world = unreleased
    adopted_us = tick(world)
    adopt(world.deployment, WORKLOAD, "1", actor="omar", reason="It has run since 2024.")
    second_us = tick(world)
    promoted(world, "2", "run-1")
    third_us = tick(world)
    promoted(world, "3", "run-2")
    tick(world)
    for at_us, version in (
        (adopted_us - 1, []),
        (adopted_us, ["1"]),
        (second_us - 1, ["1"]),
        (second_us, ["2"]),
        (third_us - 1, ["2"]),
        (third_us, ["3"]),
        (world.clock.us, ["3"]),
    ):
        assert in_production(world, at_us) == version
    day = questions.production(world.deployment, WORKLOAD, since_us=START_US, until_us=START_US + 24 * HOUR)
    assert [period.version for period in day.periods] == ["3", "2", "1"]
    edge = questions.production(world.deployment, WORKLOAD, since_us=second_us - 1, until_us=second_us)
    assert [period.version for period in edge.periods] == ["1"]


@pytest.mark.requirement("E-4")
def test_the_history_says_how_each_version_got_there_and_who_approved_it(unreleased: World) -> None:
    world = unreleased
    first_us = tick(world)
    adopt(world.deployment, WORKLOAD, "1", actor="omar", reason="It has run since 2024.")
    second_us = tick(world)
    release_id = promoted(world, "2", "run-1")
    answer = questions.production(world.deployment, WORKLOAD)
    newest, oldest = answer.periods
    assert (newest.version, newest.since_us, newest.until_us) == ("2", second_us, None)
    assert (newest.how, newest.release_id, newest.submitter) == ("promoted", release_id, "dana")
    assert newest.approved_by == (("grace", "governance-analyst"), ("ravi", "risk-officer"))
    assert (newest.decided.outcome, newest.decided.track) == ("PENDING", "red")
    assert newest.notes == ()
    assert (oldest.version, oldest.since_us, oldest.until_us) == ("1", first_us, second_us)
    assert (oldest.how, oldest.user, oldest.reason) == ("adopted", "omar", "It has run since 2024.")
    assert "since when was never recorded" in oldest.notes[0]
    assert newest.event is not None
    assert world.deployment.log.entry_of(newest.event).body.count(b"promotion.finished") == 1


@pytest.mark.requirement("E-4")
def test_a_version_that_no_event_brought_is_known_from_the_promotion_that_found_it(world: World) -> None:
    at_us = tick(world)
    promoted(world, "2", "run-1")
    newest, before = questions.production(world.deployment, WORKLOAD).periods
    assert (before.version, before.since_us, before.until_us, before.how) == ("1", None, at_us, "before")
    assert "no event says since when" in before.notes[0]
    assert newest.notes == ()
    assert in_production(world, 0) == ["1"]


@pytest.mark.requirement("E-4")
def test_an_alias_that_was_moved_without_airlock_is_noticed(world: World) -> None:
    promoted(world, "2", "run-1")
    world.registry.champions[WORKLOAD] = "1"
    tick(world)
    promoted(world, "3", "run-2")
    newest = questions.production(world.deployment, WORKLOAD).periods[0]
    assert newest.version == "3"
    assert "found version 1 in production, where the log has version 2" in newest.notes[0]


@pytest.mark.requirement("E-4")
def test_a_promotion_that_never_ended_leaves_a_doubt(world: World) -> None:
    promoted(world, "2", "run-1")
    release_id = world.granted("3", run="run-2")
    started_us = tick(world)
    world.failpoints.stop_at(10_000, RuntimeError())
    deployment = world.watched()
    moment = "after registry.set_champion"
    with pytest.raises(UnavailableError):
        promote(replace(deployment, registry=_FailsAfterMoving(world)), release_id)
    assert moment not in world.failpoints.reached
    answer = questions.production(world.deployment, WORKLOAD)
    assert [(start.version, start.release_id, start.at_us) for start in answer.open_starts] == [
        ("3", release_id, started_us)
    ]
    finished_us = tick(world)
    promote(world.deployment, release_id)
    assert questions.production(world.deployment, WORKLOAD).open_starts == ()
    between = questions.production(world.deployment, WORKLOAD, since_us=started_us, until_us=started_us + 1)
    assert [period.version for period in between.periods] == ["2"]
    assert "the promotion of version 3 had begun" in between.periods[0].notes[0]
    before = questions.production(world.deployment, WORKLOAD, since_us=started_us - 1, until_us=started_us)
    assert before.periods[0].notes == ()
    assert before.periods[0].until_us == finished_us


class _FailsAfterMoving:
    """A registry that moves the alias and dies before it says so."""

    def __init__(self, world: World) -> None:
        self._real = world.registry

    def set_champion(self, name: str, version: str, tags: Any) -> None:
        self._real.set_champion(name, version, tags)
        raise UnavailableError("the registry does not answer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.requirement("E-4")
def test_a_time_that_was_not_yet_is_refused(world: World) -> None:
    promoted(world, "2", "run-1")
    assert in_production(world, world.clock.us) == ["2"]
    with pytest.raises(InvalidInputError, match="future"):
        in_production(world, world.clock.us + 1)


@pytest.mark.requirement("E-4")
def test_a_clock_that_was_wrong_is_pointed_out(world: World) -> None:
    promoted(world, "2", "run-1")
    write(
        world, Kind.PROMOTION_FINISHED, "forged", occurred_us=START_US - 24 * HOUR, release_id="nothing",
        workload=WORKLOAD, version="9", data={"previous": "2"},
    )  # fmt: skip
    newest = questions.production(world.deployment, WORKLOAD).periods[0]
    assert newest.version == "9"
    assert any("86,400 s away from the time the store received it" in note for note in newest.notes)
    assert any("never submitted here" in note for note in newest.notes)


@given(st.lists(st.integers(min_value=0, max_value=30), min_size=1, max_size=8), st.integers(0, 31))
def test_whatever_clocks_say_exactly_one_version_is_in_production_at_a_time(
    times: list[int], at_us: int
) -> None:
    moves = [
        Recorded(
            ingest_id=number,
            event=Event(
                key=str(number), kind=Kind.PROMOTION_FINISHED, occurred_us=us, actor="system",
                deployment="test", version=str(number),
            ),
        )
        for number, us in enumerate(times)
    ]  # fmt: skip
    periods = list(champions._periods(moves, whole=True))
    there = [period for period in periods if champions._overlaps(period, at_us, at_us + 1)]
    assert len(there) == (at_us >= min(times))
    if at_us >= max(times):
        assert there[0].version == str(len(times) - 1), "the log says what came last, not a clock"


@pytest.mark.requirement("E-4")
def test_many_promotions_are_cut_and_a_day_before_them_is_still_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_us = tick(world)
    promoted(world, "2", "run-1")
    for number in range(8):
        at_us = tick(world)
        write(
            world, Kind.PROMOTION_FINISHED, f"many/{number}", occurred_us=at_us, workload=WORKLOAD,
            version=str(10 + number), data={"previous": str(9 + number) if number else "2"},
        )  # fmt: skip
    monkeypatch.setattr(reading, "SEEN", 4)
    answer = questions.production(world.deployment, WORKLOAD)
    assert answer.cut
    assert [period.version for period in answer.periods] == ["17", "16", "15", "14"]
    assert all(period.how == "promoted" for period in answer.periods)
    assert in_production(world, first_us) == ["2"]
    shown = questions.production(world.deployment, WORKLOAD, limit=2)
    assert (len(shown.periods), shown.cut) == (2, True)


@pytest.mark.requirement("E-4")
def test_a_workload_without_champions_is_said_with_where_to_look(world: World) -> None:
    with pytest.raises(NotFoundError) as empty:
        questions.production(world.deployment, WORKLOAD)
    assert "airlock workload list" in empty.value.fix
    world.judged()
    with pytest.raises(NotFoundError) as waiting:
        questions.production(world.deployment, WORKLOAD)
    assert "none of its releases got that far" in waiting.value.fix


@pytest.mark.requirement("E-4")
def test_another_deployment_in_the_same_store_is_not_mixed_in(world: World) -> None:
    promoted(world, "2", "run-1")
    write(
        world, Kind.PROMOTION_FINISHED, "other/x", deployment="other", workload=WORKLOAD, version="7",
        release_id="r", data={"previous": None},
    )  # fmt: skip
    write(
        world, Kind.PROMOTION_FINISHED, "other/y", deployment="other", workload="theirs", version="7",
        release_id="r", data={"previous": None},
    )  # fmt: skip
    assert questions.production(world.deployment, WORKLOAD).periods[0].version == "2"
    with pytest.raises(NotFoundError) as error:
        questions.production(world.deployment, "theirs")
    assert "deployment other: set AIRLOCK_DEPLOYMENT" in error.value.fix


# Which data


def with_rows(world: World, release_id: str) -> None:
    """Evidence of the two gates that count rows."""
    case = open_case(world.deployment, release_id)
    table = canonical_json({"rows": {"evaluation": 800, "training": 12_000}})
    for gate, details, files in (
        ("data_quality", {"rows": 800}, {}),
        ("drift", {}, {"drift.json": world.deployment.evidence.put(table)}),
    ):
        result = GateResult(verdict=Verdict.PASSED, summary="good", details=details, files=files)
        keep_evidence(world.deployment, case, gate, config={}, result=result, seconds=1)


@pytest.mark.requirement("E-4")
def test_which_data_trained_a_version_is_answered_for_each_of_its_releases(world: World) -> None:
    first = world.frozen("2")
    with_rows(world, first)
    tick(world)
    second = world.judged("2", run="run-2")
    world.judged("3", run="run-3")
    answer = questions.data_of(world.deployment, WORKLOAD, "2")
    assert [inputs.release_id for inputs in answer.releases] == [second, first]
    inputs = answer.releases[1]
    root = world.deployment.settings.data_root / "loan"
    assert inputs.training == questions.Data(
        str(root / "training.parquet"), hashlib.sha256(b"training rows").hexdigest(), 13, 12_000
    )
    assert inputs.evaluation == questions.Data(
        str(root / "batches" / "clean.parquet"), hashlib.sha256(b"evaluation rows").hexdigest(), 15, 800
    )
    assert (inputs.suite, inputs.policy_version, inputs.mlflow_run) == ("loan 1.0.0", "1.0.0", "run-2")
    assert inputs.environment is not None
    assert set(inputs.environment) >= {"airlock", "python", "scikit-learn"}
    manifest = Manifest.from_bytes(world.deployment.evidence.get(inputs.manifest))
    assert inputs.policy_digest == manifest.policy_digest
    assert inputs.artifact == manifest.candidate.sha256
    assert inputs.missing == ()
    assert answer.releases[0].training is not None
    assert answer.releases[0].training.rows is None
    assert not answer.cut


@pytest.mark.requirement("E-4")
@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (hashlib.sha256(b"training rows").hexdigest(), "the model's own files name this training data"),
        ("0" * 64, "name other training data: sha256 0000"),
        ("", "name no training data; this is what its workload file pointed to"),
    ],
)
def test_what_the_model_itself_says_it_was_trained_on_is_told_apart(
    world: World, cli: Cli, declared: str, words: str
) -> None:
    metadata = f"metadata:\n  airlock:\n    training_sha256: '{declared}'\n" if declared else ""
    mlmodel = f"flavors:\n  sklearn:\n    pickled_model: model.skops\n{metadata}"
    world.registry.register("4", {"model.skops": b"weights", "MLmodel": mlmodel.encode()})
    world.frozen("4")
    inputs = questions.data_of(world.deployment, WORKLOAD, "4").releases[0]
    assert inputs.declared == declared
    assert inputs.training_is_declared == words.endswith("this training data")
    assert words in cli("data", WORKLOAD, "4").err


@pytest.mark.requirement("E-4")
def test_the_data_of_an_adopted_version_was_never_recorded_and_that_is_said(unreleased: World) -> None:
    world = unreleased
    adopt(world.deployment, WORKLOAD, "1", actor="omar", reason="It has run since 2024.")
    answer = questions.data_of(world.deployment, WORKLOAD, "1")
    assert answer.releases == ()
    assert answer.adopted is not None
    assert (answer.adopted.user, answer.adopted.reason) == ("omar", "It has run since 2024.")
    assert questions.approvals_of(world.deployment, WORKLOAD, "1").adopted == answer.adopted


@pytest.mark.requirement("E-4")
def test_an_unknown_version_is_said_with_those_there_are(world: World) -> None:
    world.submit("2")
    world.submit("3", run="run-2")
    for ask in (questions.data_of, questions.approvals_of):
        with pytest.raises(NotFoundError) as error:
            ask(world.deployment, WORKLOAD, "v2")
        assert error.value.fix == "its newest versions: 3, 2"
    inputs = questions.data_of(world.deployment, WORKLOAD, "2").releases[0]
    assert inputs.missing == ("no manifest was frozen, so nothing is known about its data",)


@pytest.mark.requirement("E-4")
def test_changed_or_missing_evidence_is_said_and_the_events_still_speak(world: World) -> None:
    release_id = world.judged("2")
    digest = world.events(Kind.RELEASE_FROZEN)[0].data["manifest"]
    world.evidence_file(digest).write_bytes(b"{}")
    changed = questions.data_of(world.deployment, WORKLOAD, "2").releases[0]
    assert "was changed on disk" in changed.missing[0]
    assert (changed.release_id, changed.manifest, changed.policy_version) == (release_id, digest, "1.0.0")
    assert changed.training is None
    world.evidence_file(digest).unlink()
    gone = questions.data_of(world.deployment, WORKLOAD, "2").releases[0]
    assert f"no evidence {digest}" in gone.missing[0]
    use = questions.policy_use(world.deployment, "1.0.0")
    assert (use.unknown, dict(use.digests), use.releases[0].release_id) == (1, {}, release_id)
    assert digest in use.missing[0]


@pytest.mark.requirement("E-4")
@pytest.mark.parametrize("content", [b"{}", b"[]", b"not json", b"\xff", b'{"policy_digest": 5}', b""])
def test_an_event_that_points_to_something_else_is_not_believed(world: World, content: bytes) -> None:
    release_id = world.submit("2")
    write(
        world, Kind.RELEASE_FROZEN, "test/forged", release_id=release_id, workload=WORKLOAD, version="2",
        data={"manifest": world.deployment.evidence.put(content), "artifact": 5, "policy": ["1.0.0"]},
    )  # fmt: skip
    inputs = questions.data_of(world.deployment, WORKLOAD, "2").releases[0]
    assert "is not what the event says it is" in inputs.missing[0]
    assert inputs.artifact == "5"
    use = questions.policy_use(world.deployment, "['1.0.0']")
    assert (use.total, use.unknown) == (1, 1)
    assert "is not what the event says it is" in use.missing[0]


@pytest.mark.requirement("E-4")
def test_events_that_lack_everything_break_no_answer(world: World, cli: Cli) -> None:
    release_id = world.submit("2")
    kinds = [kind for kind in Kind if not kind.personal and kind is not Kind.RELEASE_SUBMITTED]
    junk: list[dict[str, Any]] = [{}, {name: {"a": [1]} for name in ("manifest", "seat", "approved_by")}]
    for number, data in enumerate(junk):
        for kind in [*kinds, Kind.APPROVAL_RECORDED]:
            write(
                world, kind, f"junk/{number}/{kind}", release_id=release_id, workload=WORKLOAD, version="2",
                actor="mallory", data=data,
            )  # fmt: skip
    for arguments in (
        ("query", "--limit", "1000"),
        ("data", WORKLOAD, "2"),
        ("approvals", WORKLOAD, "2"),
        ("production", WORKLOAD),
        ("production", WORKLOAD, "--on", "2026-01-01"),
        ("person", "mallory"),
        ("policy", ""),
    ):
        for form in ("pretty", "json"):
            result = cli(*arguments, "--format", form)
            assert result.code == 0, (arguments, result.err)


# Who approved


@pytest.mark.requirement("E-4", "A-4")
def test_who_answered_is_told_with_what_they_saw(world: World) -> None:
    release_id = world.judged("2")
    tick(world)
    with pytest.raises(RefusedError):
        world.answer(release_id, "dana", 0)
    at_us = tick(world)
    world.answer(release_id, "grace", 0, comment="The intervals are fine.")
    world.answer(release_id, "ravi", 1, "reject", "Show a month of traffic.")
    seal(world.deployment, release_id)
    approval = questions.approvals_of(world.deployment, WORKLOAD, "2").releases[0]
    assert questions.approvals_of(world.deployment, release_id=release_id).releases == (approval,)
    assert (approval.release_id, approval.state, approval.submitter) == (release_id, "rejected", "dana")
    assert (approval.decided.track, approval.decided.tier) == ("red", "low")
    assert "performance changes by" in approval.decided.sentence
    assert approval.decided.seats == ("governance-analyst", "risk-officer")
    first, second = approval.answers
    assert (first.user, first.role, first.choice, first.seat) == ("grace", "governance-analyst", "approve", 0)
    assert (first.comment, first.at_us, first.bound) == ("The intervals are fine.", at_us, True)
    assert (second.user, second.choice, second.comment) == ("ravi", "reject", "Show a month of traffic.")
    decision = world.decision(release_id)
    assert (first.manifest, first.evidence, first.policy) == (
        decision.manifest_digest, decision.evidence_digest, decision.policy_digest,
    )  # fmt: skip
    assert {said.gate: said.verdict for said in first.gates} == {
        "documentation": "PASSED", "performance": "PASSED", "score": "PASSED",
    }  # fmt: skip
    refused = approval.refused[0]
    assert (refused.user, refused.choice) == ("dana", "approve")
    assert "submitted this release" in refused.problem


@pytest.mark.requirement("E-4")
def test_an_answer_for_another_manifest_and_a_verdict_that_came_later_are_told_apart(world: World) -> None:
    release_id = world.frozen("2")
    write(
        world, Kind.APPROVAL_RECORDED, "forged", actor="mallory", release_id=release_id, workload=WORKLOAD,
        version="2", data={"choice": "approve", "role": "risk-officer", "manifest_digest": "0" * 64},
    )  # fmt: skip
    world.evidence(release_id)
    approval = questions.approvals_of(world.deployment, release_id=release_id).releases[0]
    forged = approval.answers[0]
    assert (forged.user, forged.bound, forged.gates, forged.seat) == ("mallory", False, (), -1)
    assert approval.approved_by == ()


@pytest.mark.requirement("E-4")
def test_a_green_release_was_approved_by_nobody(world: World) -> None:
    release_id = world.judged("2", track="green")
    promote(world.deployment, release_id)
    approval = questions.approvals_of(world.deployment, WORKLOAD, "2").releases[0]
    assert (approval.answers, approval.approved_by, approval.state) == ((), (), "promoted")
    assert approval.decided.outcome == "ALLOW"


@pytest.mark.requirement("E-4")
def test_an_unknown_release_is_said(world: World) -> None:
    with pytest.raises(NotFoundError, match="no release 'x' is recorded for deployment test"):
        questions.approvals_of(world.deployment, release_id="x")


@pytest.mark.requirement("E-4")
def test_of_many_releases_the_newest_are_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RELEASES", 2)
    ids = [world.submit("2", run=f"run-{number}") for number in range(3)]
    answer = questions.approvals_of(world.deployment, WORKLOAD, "2")
    assert [approval.release_id for approval in answer.releases] == [ids[2], ids[1]]
    assert answer.cut
    assert questions.data_of(world.deployment, WORKLOAD, "2").cut


# People


@pytest.mark.requirement("E-4")
def test_everything_a_person_did_is_grouped_and_counted(world: World) -> None:
    release_id = world.judged("2", user="omar")
    with pytest.raises(RefusedError):
        world.answer(release_id, "omar", 0)
    tick(world)
    other = world.judged("3", run="run-2")
    world.answer(other, "omar", 0)
    for number in range(7):
        write(
            world, Kind.API_ATTEMPT, f"api/{number}", actor="omar", occurred_us=world.clock.us + number,
            data={"method": "PATCH", "status": 403, "path": f"/dags/{number}"},
        )  # fmt: skip
    questions.record_access(world.deployment, "audit query", {"limit": 1})
    answer = questions.person(world.deployment, "omar")
    doings = {each.what: each for each in answer.doings}
    assert {what: each.count for what, each in doings.items()} == {
        "submitted releases": 1,
        "answered": 1,
        "answered and was refused": 1,
        "changed or tried to change something in Airflow by hand": 7,
    }
    by_hand = doings["changed or tried to change something in Airflow by hand"]
    assert dict(by_hand.kinds) == {"api.attempt": 7}
    assert [line.event.data["path"] for line in by_hand.latest] == [f"/dags/{n}" for n in (6, 5, 4, 3, 2)]
    later = questions.person(world.deployment, "omar", since_us=START_US + HOUR)
    assert [each.what for each in later.doings] == [
        "answered", "changed or tried to change something in Airflow by hand",
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="no person"):
        questions.person(world.deployment, "system")
    with pytest.raises(NotFoundError, match="in that time"):
        questions.person(world.deployment, "omar", until_us=START_US)


@pytest.mark.requirement("E-4")
def test_many_readings_never_hide_one_approval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "COUNTED", 3)
    release_id = world.judged("2")
    world.answer(release_id, "grace", 0)
    for number in range(4):
        write(world, Kind.AUDIT_READ, f"read/{number}", actor="grace", data={"question": "q"})
    doings = {each.what: each for each in questions.person(world.deployment, "grace").doings}
    assert (doings["answered"].count, doings["answered"].more) == (1, False)
    assert (doings["read the audit store"].count, doings["read the audit store"].more) == (3, True)


def test_every_kind_of_event_belongs_to_exactly_one_sort() -> None:
    named = [kind for kinds in people.DOINGS.values() for kind in kinds]
    assert len(named) == len(set(named))


# Policies


@pytest.mark.requirement("E-4", "P-2")
def test_a_policy_version_that_was_edited_under_way_is_flagged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Freezing refuses an edited policy; whoever got round that must still be seen in the log.
    monkeypatch.setattr("airlock.services.submit.require_published", lambda *_: None)
    first = world.judged("2")
    write_yaml(world.config / "policies" / "1.1.0" / "policy.yaml", policy_data(version="1.1.0"))
    edit(world.workload_file, "policy: 1.0.0", "policy: 1.1.0")
    tick(world)
    second = world.judged("2", run="run-2")
    use = questions.policy_use(world.deployment, "1.0.0")
    assert [(judged.release_id, judged.decided.outcome) for judged in use.releases] == [(first, "PENDING")]
    assert not use.was_edited
    other = questions.policy_use(world.deployment, "1.1.0")
    assert [judged.release_id for judged in other.releases] == [second]
    limit = "green_change:\n    value: 0.05"
    edit(world.config / "policies" / "1.1.0" / "policy.yaml", limit, limit.replace("0.05", "0.06"))
    tick(world)
    third = world.judged("3", run="run-3")
    edited = questions.policy_use(world.deployment, "1.1.0")
    assert edited.was_edited
    assert [judged.release_id for judged in edited.releases] == [third, second]
    assert sorted(edited.digests.values()) == [1, 1]
    assert {judged.policy_digest for judged in edited.releases} == set(edited.digests)
    shown = questions.policy_use(world.deployment, "1.1.0", limit=1)
    assert (len(shown.releases), shown.total, shown.was_edited) == (1, 2, True)
    early = questions.policy_use(world.deployment, "1.1.0", until_us=START_US + 2 * HOUR)
    assert [judged.release_id for judged in early.releases] == [second]
    with pytest.raises(NotFoundError) as error:
        questions.policy_use(world.deployment, "9.9.9")
    assert error.value.fix == "versions with releases: 1.0.0, 1.1.0; published: none"


# Filters


@pytest.mark.requirement("E-4")
def test_filters_combine_and_a_cut_is_said(world: World) -> None:
    release_id = world.judged("2")
    tick(world)
    world.judged("3", run="run-2", user="omar")
    deployment = world.deployment
    everything = questions.query(deployment, limit=1000)
    assert not everything.cut
    ids = [line.ingest_id for line in everything.lines]
    assert ids == sorted(ids, key=lambda number: number or 0)
    exactly = questions.query(deployment, limit=len(ids))
    assert (len(exactly.lines), exactly.cut) == (len(ids), False)
    short = questions.query(deployment, limit=len(ids) - 1)
    assert (len(short.lines), short.cut) == (len(ids) - 1, True)
    assert short.lines[0].ingest_id == ids[1], "the newest are kept"
    kinds = [Kind.RELEASE_SUBMITTED, Kind.RELEASE_DECIDED]
    combined = questions.query(deployment, workload=WORKLOAD, version="2", kinds=kinds, until_us=START_US + 1)
    assert [line.event.kind for line in combined.lines] == kinds
    assert {line.event.release_id for line in combined.lines} == {release_id}
    assert questions.query(deployment, version="2", actor="omar").lines == ()
    assert len(questions.query(deployment, actor="omar").lines) == 1
    assert questions.query(deployment, since_us=START_US + 1, until_us=START_US + HOUR).lines == ()
    assert questions.query(deployment, workload="' OR 1=1 --").lines == ()


@pytest.mark.requirement("E-4")
def test_an_event_is_shown_with_its_place_in_the_signed_log(world: World) -> None:
    promoted(world, "2", "run-1")
    sequencer = Sequencer(world.deployment, [])
    while sequencer.step():
        pass
    write(world, Kind.TASK_STARTED, "later")
    lines = questions.query(world.deployment, limit=1000).lines
    assert lines[-1].seq is None
    for line in lines[:-1]:
        assert line.seq is not None
        assert world.deployment.log.entry(line.seq).ingest_id == line.ingest_id


# The commands


@pytest.fixture
def cli(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a question as a command on the deployment that the environment describes."""
    monkeypatch.setattr(console, "_width", 200)
    monkeypatch.setenv("AIRLOCK_HOME", str(world.deployment.settings.home))
    monkeypatch.setenv("AIRLOCK_DEPLOYMENT", "test")
    monkeypatch.setattr(
        cli_store,
        "open_deployment",
        lambda settings=None: open_deployment(settings) if settings else world.deployment,
    )
    app = typer.Typer()
    commands.register(app)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = 0
        monkeypatch.setattr(sys, "argv", ["airlock audit", *arguments])
        try:
            app()
        except SystemExit as end:
            code = int(end.code or 0)
        except AirlockError as error:
            with pytest.raises(SystemExit) as stopped:
                fail(error, as_json="json" in arguments)
            code = int(str(stopped.value.code))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.requirement("E-4")
@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-01-01", 0, 24 * HOUR),
        ("20260101", 0, 24 * HOUR),
        ("2026-01-01T00:00", 0, 0),
        ("2026-01-01 06:00:00.000001", 6 * HOUR + 1, 6 * HOUR + 1),
        ("2026-01-01T06:00:00+05:30", HOUR // 2, HOUR // 2),
        ("2026-01-01T06Z", 6 * HOUR, 6 * HOUR),
        ("2025-12-31T23:00:00-01:00", 0, 0),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, start: int, end: int) -> None:
    assert commands.moment(text, "--since") == START_US + start
    assert commands.moment(text, "--until", end=True) == START_US + end


@pytest.mark.requirement("E-4", "U-3")
@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-02-30",
        "1767225600",
        "2026-13-01",
        "9999-12-31",
        " ",
        HOSTILE,
        "\u0662\u0660\u0662\u0666-\u0660\u0661-\u0660\u0661",
    ],
)
def test_what_is_no_time_is_usage_with_an_example(cli: Cli, text: str) -> None:
    result = cli("query", "--until", text)
    assert result.code == 2
    assert "--until" in result.err
    assert "2026-01-31" in result.err
    assert harmless(result.err)


@pytest.mark.requirement("E-4", "U-3")
@pytest.mark.parametrize(
    "arguments",
    [
        ("approvals",),
        ("approvals", WORKLOAD),
        ("approvals", WORKLOAD, "2", "--release", "x"),
        ("approvals", "", "2"),
        ("query", "--limit", "0"),
        ("query", "--limit", "10001"),
        ("query", "--kind", "nonsense"),
        ("production",),
    ],
)
def test_a_wrong_call_is_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")


@pytest.mark.requirement("E-4", "U-3")
def test_programs_get_json_and_people_words(world: World, cli: Cli) -> None:
    tick(world)
    release_id = promoted(world, "2", "run-1")
    tick(world)
    data = cli("production", WORKLOAD, "--on", "2026-01-01", "--format", "json")
    assert data.err == ""
    assert [period["version"] for period in data.json["periods"]] == ["2", "1"]
    assert data.json["periods"][0]["approved_by"] == [
        ["grace", "governance-analyst"],
        ["ravi", "risk-officer"],
    ]
    text = cli("production", WORKLOAD, "--on", "2026-01-01").err
    for words in (
        "version 2",
        "since 2026-01-01 01:00:00, until now",
        "grace (governance-analyst)",
        release_id,
    ):
        assert words in text
    assert cli("data", WORKLOAD, "2", "--format", "json").json["releases"][0]["training"]["size"] == 13
    assert cli("approvals", WORKLOAD, "2", "--format", "json").json["releases"][0]["answers"][0]["bound"]
    shown = cli("approvals", "--release", release_id).err
    for words in (
        "approve 2026-01-01 01:00:00 grace as governance-analyst: Looks right.",
        "performance PASSED",
    ):
        assert words in shown
    assert cli("policy", "1.0.0", "--format", "json").json["was_edited"] is False
    assert cli("policy", "1.0.0", "--format", "json").json["published"]["first"] is True
    shown = cli("policy", "1.0.0").err
    assert "1 release under content" in shown
    assert "as one of the first of this deployment, so nobody was asked" in shown
    assert cli("person", "ravi", "--format", "json").json["doings"][0]["what"] == "answered"
    assert "ravi answered: 1" in cli("person", "ravi").err
    found = cli("query", "--kind", "release.frozen", "--release", release_id, "--format", "json").json
    assert (found["cut"], found["lines"][0]["event"]["kind"]) == (False, "release.frozen")
    cut = cli("query", "--limit", "1").err
    assert "Cut: these are the newest 1 events" in cut


@pytest.mark.requirement("E-4")
def test_an_empty_store_answers_in_words(cli: Cli) -> None:
    assert "No event meets these conditions." in cli("query", "--actor", "nobody").err
    for arguments in (("data", WORKLOAD, "2"), ("approvals", WORKLOAD, "2"), ("production", WORKLOAD)):
        result = cli(*arguments, "--format", "json")
        assert result.code == 2
        assert result.json["error"]["fix"]
    assert "versions with releases: none" in cli("policy", "1.0.0").err
    assert cli("person", "nobody").code == 2


@pytest.mark.requirement("E-4")
def test_nothing_in_production_on_a_day_is_an_answer(unreleased: World, cli: Cli) -> None:
    tick(unreleased)
    adopt(unreleased.deployment, WORKLOAD, "1", actor="omar", reason="It has run since 2024.")
    result = cli("production", WORKLOAD, "--on", "2025-12-31")
    assert result.code == 0
    assert "no version of loan-model was in production on 2025-12-31" in result.err


@pytest.mark.requirement("E-4", "U-3")
def test_hostile_text_is_shown_and_acts_on_nothing(world: World, cli: Cli) -> None:
    release_id = world.judged("2", user=HOSTILE, context=HOSTILE, summary=HOSTILE)
    world.answer(release_id, "grace", 0, comment=HOSTILE)
    world.answer(release_id, "ravi", 1)
    promote(world.deployment, release_id)
    for arguments in (
        ("query", "--limit", "100"),
        ("query", "--actor", HOSTILE),
        ("data", WORKLOAD, "2"),
        ("data", HOSTILE, HOSTILE),
        ("approvals", WORKLOAD, "2"),
        ("approvals", "--release", HOSTILE),
        ("production", WORKLOAD),
        ("production", HOSTILE),
        ("person", HOSTILE),
        ("person", "grace"),
        ("policy", HOSTILE),
        ("query", "--store", HOSTILE),
    ):
        for form in ("pretty", "json"):
            result = cli(*arguments, "--format", form)
            assert harmless(result.err), (arguments, result.err)
            assert harmless(result.out), arguments
            lines = [line for line in result.err.splitlines() if line.startswith("production: version 9")]
            assert lines == [], "a line break in a text must not look like an answer"
    texts = cli("approvals", WORKLOAD, "2", "--format", "json").json["releases"][0]
    assert texts["submitter"] == HOSTILE
    assert texts["answers"][0]["comment"] == HOSTILE


# Who asked


@pytest.mark.requirement("E-4", "E-6")
def test_reading_is_recorded_with_who_asked_and_what(
    world: World, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    promoted(world, "2", "run-1")
    cli("production", WORKLOAD, "--on", "2026-01-01")
    cli("data", WORKLOAD, "99")
    cli("query", "--actor", "x" * 5000, "--kind", "key.rotated")
    read = world.events(Kind.AUDIT_READ)
    assert [event.actor for event in read] == ["ada"] * 3
    assert [event.data["question"] for event in read] == ["audit production", "audit data", "audit query"]
    assert read[0].data["arguments"] == {"workload": WORKLOAD, "on": "2026-01-01"}
    assert read[0].data["uid"] == os.getuid()
    assert (read[1].workload, read[1].version) == (WORKLOAD, "99"), "a question without an answer counts too"
    assert read[2].data["arguments"]["kind"] == ["key.rotated"]
    assert len(read[2].data["arguments"]["actor"]) == 200
    assert cli("person", "ada", "--format", "json").json["doings"][0]["count"] == 3


def test_a_user_without_a_name_is_recorded_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert questions.record_access(world.deployment, "audit query", {}).event.actor == "unknown"


@pytest.mark.requirement("E-6")
@pytest.mark.parametrize("spool", ["works", "broken"])
def test_reading_goes_on_when_the_store_takes_no_events(
    world: World, cli: Cli, monkeypatch: pytest.MonkeyPatch, spool: str
) -> None:
    promoted(world, "2", "run-1")
    before = len(questions.query(world.deployment, limit=1000).lines)

    def broken(self: Any, work: Any) -> Any:
        raise UnavailableError("attempt to write a readonly database")

    monkeypatch.setattr(Database, "write", broken)
    if spool == "broken":
        world.deployment.spool.folder.write_text("in the way")
    result = cli("production", WORKLOAD, "--format", "json")
    assert result.code == 0
    assert result.json["periods"][0]["version"] == "2"
    if spool == "broken":
        assert "This access could not be recorded:" in result.err
    else:
        assert "This access is not in the audit store yet; it waits in" in result.err
        assert len(world.deployment.spool.waiting()) == 1
    assert len(questions.query(world.deployment, limit=1000).lines) == before


# Another store


@pytest.fixture
def copy(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An auditor's copy of the store alone, on a machine that has neither evidence nor keys."""
    promoted(world, "2", "run-1")
    with fast_folder() as folder:
        taken = folder / "copy" / "log #1 of 100%.db"
        taken.parent.mkdir()
        taken.write_bytes((world.deployment.settings.home / "audit.db").read_bytes())
        yield taken
        taken.parent.chmod(0o755)


@pytest.fixture
def auditor(cli: Cli, copy: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command on a machine that is not the deployment's."""
    monkeypatch.setenv("AIRLOCK_HOME", str(copy.parent.parent / "auditor"))
    monkeypatch.delenv("AIRLOCK_DEPLOYMENT")
    return cli


def url_of(path: Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


@pytest.mark.requirement("E-4")
@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_a_copy_without_evidence_is_read_and_not_changed(auditor: Cli, copy: Path, mode: int) -> None:
    copy.chmod(mode)
    if mode == 0o444:
        copy.parent.chmod(0o555)
    before = copy.read_bytes()
    result = auditor("production", WORKLOAD, "--store", url_of(copy), "--format", "json")
    assert result.code == 0, result.err
    newest = result.json["periods"][0]
    assert (newest["version"], newest["approved_by"][0]) == ("2", ["grace", "governance-analyst"])
    assert result.err.count("This access is not recorded there.") == 1
    assert "deployment test" in result.err
    data = auditor("data", WORKLOAD, "2", "--store", url_of(copy))
    assert data.code == 0
    assert "no evidence" in data.err
    assert "promoted" in data.err
    answers = auditor("approvals", WORKLOAD, "2", "--store", url_of(copy), "--format", "json").json
    assert answers["releases"][0]["answers"][0]["user"] == "grace"
    assert answers["releases"][0]["answers"][0]["comment"].startswith("[sealed")
    policy = auditor("policy", "1.0.0", "--store", url_of(copy), "--format", "json").json
    assert (policy["total"], policy["unknown"]) == (1, 1)
    assert auditor("query", "--store", url_of(copy), "--format", "json").code == 0
    assert copy.read_bytes() == before
    if mode == 0o444:
        assert list(copy.parent.iterdir()) == [copy], "not even a file beside it"


def test_a_copy_taken_with_its_write_ahead_log_is_read_whole(auditor: Cli, world: World, copy: Path) -> None:
    audit = world.deployment.settings.home / "audit.db"
    with world.deployment.log.database.engine.connect():  # keeps the write-ahead log from being folded in
        write(world, Kind.KEY_ROTATED, "late")
        wal = audit.with_name("audit.db-wal")
        assert wal.stat().st_size
        copy.write_bytes(audit.read_bytes())
        copy.with_name(copy.name + "-wal").write_bytes(wal.read_bytes())
    copy.chmod(0o444)
    result = auditor("query", "--kind", "key.rotated", "--store", url_of(copy), "--format", "json")
    assert len(result.json["lines"]) == 1, result.err


@pytest.mark.requirement("E-4")
def test_another_store_is_never_written_to(auditor: Cli, copy: Path) -> None:
    deployment = cli_store.deployment_for(url_of(copy))
    assert deployment.settings.deployment == "test"
    with pytest.raises(UnavailableError, match="only read"):
        deployment.record(Kind.RELEASE_SEALED, "x")
    with pytest.raises(UnavailableError, match="only read"):
        questions.record_access(deployment, "q", {})
    with (
        deployment.log.database.engine.connect() as connection,
        pytest.raises(sa.exc.OperationalError, match="readonly"),
    ):
        connection.exec_driver_sql("INSERT INTO pending VALUES (99)")


@pytest.mark.requirement("E-6")
def test_naming_ones_own_store_is_no_way_round_the_record(
    world: World, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = world.deployment.settings.home
    link = home.parent / "link"
    link.symlink_to(home)
    for url in (
        f"sqlite:///{home}/audit.db",
        f"sqlite+pysqlite:///{home}/../home/audit.db",
        f"sqlite:///{link}/audit.db",
    ):
        cli("query", "--store", url)
    assert len(world.events(Kind.AUDIT_READ)) == 3


@pytest.mark.requirement("U-3")
@pytest.mark.parametrize(
    ("store", "code", "words"),
    [
        ("garbage", 2, "neither SQLite nor PostgreSQL"),
        ("mysql://root:s3cret@h/x", 2, "neither SQLite nor PostgreSQL"),
        ("postgresql+psycopg://a:s3cret@127.0.0.1:1/x", 1, "does not answer"),
        ("postgresql+psycopg://127.0.0.1:1/x?user=a&password=s3cret", 1, "does not answer"),
        ("postgresql+nonsense://a:s3cret@127.0.0.1:1/x", 2, "driver"),
        ("sqlite:////nowhere/s.db", 1, "not there"),
        ("", 2, "neither SQLite nor PostgreSQL"),
    ],
)
def test_a_store_that_cannot_be_opened_is_said_without_its_password(
    cli: Cli, store: str, code: int, words: str
) -> None:
    result = cli("query", "--store", store, "--format", "json")
    assert result.code == code, result.err
    assert words in result.err
    assert "s3cret" not in result.err + result.out
    assert result.json["error"]["what"]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + b"\x00" * 200])
def test_a_file_that_is_no_audit_store_is_said(cli: Cli, copy: Path, content: bytes) -> None:
    other = copy.with_name("other.db")
    other.write_bytes(content)
    result = cli("query", "--store", url_of(other))
    assert result.code == 1
    assert "Error:" in result.err
    assert other.read_bytes() == content
