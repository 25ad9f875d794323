"""The use cases from submit to promote, against real stores: what counts, what is refused, what survives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airlock.core.approvals import Answer, Panel, QuorumState, tally
from airlock.core.audit import Kind
from airlock.core.decision import AskedSeat, Decision, Outcome
from airlock.core.errors import (
    AirlockError,
    ConfigurationError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    SandboxError,
    UnavailableError,
)
from airlock.core.evidence import Evidence, GateResult, Verdict
from airlock.core.manifest import Manifest
from airlock.core.people import People
from airlock.core.policy import Tier, Track
from airlock.core.release import State
from airlock.core.task import TaskRef
from airlock.gates.base import Stage
from airlock.services.adopt import adopt
from airlock.services.announce import announce, outcome_sentence, seal
from airlock.services.approve import seat_request, standing
from airlock.services.decide import decide
from airlock.services.evaluate import error_result, evaluate, keep_evidence
from airlock.services.lineage import read_links
from airlock.services.promote import promote
from airlock.services.releases import find_release, list_releases, open_case, read_evidence, state_of
from airlock.services.score import quarantine_if_unsafe, refused_attempts
from airlock.services.submit import freeze
from airlock.services.tasks import reconcile, record_outcome, record_start
from tests.support.deployments import (
    PEOPLE,
    WORKLOAD,
    Killed,
    World,
    edit,
    fast_folder,
    make_world,
    open_world,
    shipped_gates,
)
from tests.support.engines import TODAY

Build = Callable[[World], str]


@pytest.fixture(scope="module")
def templates() -> Iterator[Callable[[str, Build], tuple[World, str]]]:
    """Worlds that are built once and copied for each test."""
    with fast_folder() as folder:
        made: dict[str, tuple[World, str]] = {}

        def template(name: str, build: Build) -> tuple[World, str]:
            if name not in made:
                world = make_world(folder / name)
                made[name] = (world, build(world))
            return made[name]

        yield template


@pytest.fixture
def copy(templates: Callable[[str, Build], tuple[World, str]]) -> Iterator[Callable[[str, Build], Any]]:
    with fast_folder() as folder:
        copies = iter(range(1_000))

        def copied(name: str, build: Build) -> tuple[World, str]:
            world, release_id = templates(name, build)
            return world.copy(folder / str(next(copies))), release_id

        yield copied


@pytest.fixture
def world(copy: Callable[[str, Build], Any]) -> World:
    """Nothing was submitted yet."""
    found: World = copy("fresh", lambda _: "")[0]
    return found


@pytest.fixture
def judged(copy: Callable[[str, Build], Any]) -> tuple[World, str]:
    """A red release that waits for two people."""
    found: tuple[World, str] = copy("judged", World.judged)
    return found


@pytest.fixture
def granted(copy: Callable[[str, Build], Any]) -> tuple[World, str]:
    """A red release both people approved."""
    found: tuple[World, str] = copy("granted", World.granted)
    return found


def kinds(world: World, release_id: str) -> list[Kind]:
    return [event.kind for event in world.release(release_id).events]


def sentence(world: World, release_id: str) -> str:
    return outcome_sentence(world.deployment, world.release(release_id))[1]


def state(world: World, release_id: str) -> State:
    return state_of(world.deployment, world.release(release_id))


# Submit


@pytest.mark.requirement("E-1")
def test_a_submission_is_recorded_with_who_what_and_why(world: World) -> None:
    release_id = world.submit(context="Better for first-time buyers.")
    release = world.release(release_id)
    assert (release.workload, release.version, release.submitter) == (WORKLOAD, "2", "dana")
    assert (release.batch, release.context) == ("clean", "Better for first-time buyers.")
    assert state(world, release_id) is State.CHECKING


@pytest.mark.requirement("E-1")
def test_submitting_the_same_run_again_changes_nothing(world: World) -> None:
    first = world.submit()
    world.clock.advance(hours=1)
    assert world.submit() == first
    assert kinds(world, first) == [Kind.RELEASE_SUBMITTED]


def test_another_run_is_another_release(world: World) -> None:
    assert world.submit(run="run-1") != world.submit(run="run-2")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"workload_name": "loan-modle"}, NotFoundError, "did you mean 'loan-model'"),
        ({"version": "99"}, NotFoundError, "version 99"),
        ({"batch": "dirty"}, NotFoundError, "use one of: clean"),
        ({"batch": "../training"}, NotFoundError, "no evaluation batch"),
        ({"submitter": ""}, RefusedError, "nobody is known as the submitter"),
        ({"context": "x" * 20_001}, InvalidInputError, "context"),
        ({"context": "\U0001f600" * 20_000}, InvalidInputError, "model card"),
        ({"context": "\x01" * 19_000}, InvalidInputError, "model card"),
        ({"context": "a\0b"}, InvalidInputError, "NUL"),
        ({"context": "a\ud800b"}, InvalidInputError, "canonical"),
        ({"submitter": "x" * 201}, InvalidInputError, "actor"),
        ({"submitter": "a\ud800b"}, InvalidInputError, "actor"),
    ],
)
def test_a_submission_that_cannot_be_is_refused_in_words_and_nothing_opens(
    world: World, changes: dict[str, Any], error: type[AirlockError], words: str
) -> None:
    with pytest.raises(error) as caught:
        world.submit(**changes)
    assert words in str(caught.value)
    assert world.deployment.audit.events() == []


def test_the_longest_context_in_any_script_is_accepted(world: World) -> None:
    for run, letter in enumerate(("x", "é", "界")):
        world.submit(run=f"run-{run}", context=letter * 16_000)


@pytest.mark.requirement("R-5", "G-8")
def test_a_quarantined_version_cannot_be_submitted(world: World) -> None:
    world.registry.quarantine(WORKLOAD, "2", "a pickle that runs a command")
    with pytest.raises(RefusedError, match="quarantined: a pickle that runs a command"):
        world.submit()


def test_the_default_batch_is_used_when_none_is_named(world: World) -> None:
    assert world.release(world.submit(batch="")).batch == "clean"


# Freeze


@pytest.mark.requirement("G-2")
def test_the_manifest_names_everything_by_digest(world: World) -> None:
    release_id = world.frozen()
    manifest = open_case(world.deployment, release_id).manifest
    assert manifest.candidate.version == "2"
    assert manifest.champion is not None
    assert manifest.champion.version == "1"
    assert {file.path for file in manifest.candidate.files} == {"model.skops", "MLmodel"}
    for file in manifest.candidate.files:
        content = world.registry.models[WORKLOAD]["2"].files[file.path]
        assert world.deployment.evidence.get(file.sha256) == content
    assert manifest.policy_version == "1.0.0"
    assert manifest.environment["airlock"]
    assert manifest.code["mlflow_run"] == "run-2"
    assert {link.kind for link in read_links(world.deployment.evidence, manifest)} == {"data", "parameters"}


@pytest.mark.requirement("A-7", "G-2")
def test_freezing_again_returns_the_first_manifest_whatever_changed_since(world: World) -> None:
    release_id = world.frozen()
    first = freeze(world.deployment, release_id)
    world.registry.register("2", {"model.skops": b"swapped"})
    world.registry.champions[WORKLOAD] = "3"
    edit(world.workload_file, "owner: team", "owner: others")
    assert freeze(world.deployment, release_id) == first
    assert kinds(world, release_id).count(Kind.RELEASE_FROZEN) == 1


@pytest.mark.requirement("G-8")
@pytest.mark.parametrize("goal", ["/etc/passwd", "model.skops", "../../secret", "nowhere"])
def test_a_link_in_the_artifact_is_refused(world: World, goal: str) -> None:
    world.registry.register("2", links={"extra": goal})
    release_id = world.submit()
    with pytest.raises(InvalidInputError, match="'extra', which is a link"):
        freeze(world.deployment, release_id)
    assert kinds(world, release_id) == [Kind.RELEASE_SUBMITTED]


@pytest.mark.requirement("G-8")
def test_a_linked_folder_in_the_artifact_is_refused_and_not_followed(world: World) -> None:
    world.registry.register("2", links={"folder": "/etc"})
    with pytest.raises(InvalidInputError, match="'folder', which is a link"):
        freeze(world.deployment, world.submit())


@pytest.mark.requirement("G-2")
def test_an_artifact_without_files_is_refused(world: World) -> None:
    world.registry.register("2", {})
    with pytest.raises(InvalidInputError, match="the artifact is empty"):
        freeze(world.deployment, world.submit())


@pytest.mark.requirement("G-8")
def test_a_file_name_that_is_no_text_is_refused(world: World) -> None:
    world.registry.register("2", {"model.skops": b"x", "b\udcffd": b"x"})
    with pytest.raises(InvalidInputError, match="name"):
        freeze(world.deployment, world.submit())


@pytest.mark.requirement("G-8")
@pytest.mark.parametrize(
    "mlmodel",
    [
        b"",
        b"\xff\xfe",
        b"- a list",
        b"metadata: text",
        b"metadata: {airlock: [1]}",
        b"{" * 20_000,
        b"a: 2026-13-45",
        b"a: " + b"9" * 5_000,
        b"a: !!python/object/apply:os.system ['false']",
    ],
)
def test_a_broken_mlmodel_file_is_no_crash_but_left_to_the_security_gate(
    world: World, mlmodel: bytes
) -> None:
    world.registry.register("2", {"model.skops": b"x", "MLmodel": mlmodel})
    release_id = world.frozen()
    assert open_case(world.deployment, release_id).manifest.candidate.metadata == {}


@pytest.mark.requirement("G-2")
def test_what_training_declared_is_frozen_with_the_artifact(world: World) -> None:
    declared = b"metadata: {airlock: {decision_threshold: 0.4, training_sha256: abc, list: [1], 5: five}}"
    world.registry.register("2", {"model.skops": b"x", "MLmodel": declared})
    manifest = open_case(world.deployment, world.frozen()).manifest
    assert manifest.candidate.metadata == {"decision_threshold": 0.4, "training_sha256": "abc", "5": "five"}


@pytest.mark.requirement("G-2")
@pytest.mark.parametrize("value", [b".nan", b".inf", b"9007199254740993"])
def test_a_declared_number_that_has_no_canonical_form_is_refused_in_words(world: World, value: bytes) -> None:
    declared = b"metadata: {airlock: {decision_threshold: " + value + b"}}"
    world.registry.register("2", {"model.skops": b"x", "MLmodel": declared})
    with pytest.raises(InvalidInputError):
        freeze(world.deployment, world.submit())


@pytest.mark.requirement("P-1", "P-2")
@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (
            "policies/1.0.0/policy.yaml",
            "minimum_words: 15",
            "minimum_words: 0",
            "gates.documentation.minimum_w",
        ),
        ("policies/1.0.0/policy.yaml", "  performance:", "  performence:", "there is no such gate"),
        ("people.yaml", "user: petra", "user: dana", "a user appears twice"),
        ("workloads/loan-model.yaml", "expectations: loan", "expectations: other", "file not found"),
        ("workloads/loan-model.yaml", "policy: 1.0.0", "policy: 2.0.0", "there is no policy 2.0.0"),
        ("workloads/loan-model.yaml", "loan/training.parquet", "loan/none.parquet", "data file not found"),
    ],
)
def test_nothing_is_frozen_under_a_configuration_that_cannot_judge(
    world: World, file: str, old: str, new: str, words: str
) -> None:
    release_id = world.submit()
    edit(world.config / file, f"{old}", f"{new}")
    with pytest.raises((ConfigurationError, NotFoundError), match=words):
        freeze(world.deployment, release_id)
    assert kinds(world, release_id) == [Kind.RELEASE_SUBMITTED]


def test_a_kill_at_any_moment_of_freezing_leaves_a_release_that_can_be_frozen(
    copy: Callable[[str, Build], Any],
) -> None:
    number = 0
    while True:
        number += 1
        world, release_id = copy("submitted", World.submit)
        world.failpoints.stop_at(number, Killed())
        try:
            freeze(world.watched(), release_id)
            break
        except Killed:
            freeze(world.deployment, release_id)
            assert kinds(world, release_id) == [Kind.RELEASE_SUBMITTED, Kind.RELEASE_FROZEN]
    assert number > 20, "every call of every port was a moment to die at"


# Evidence and decision


@pytest.mark.requirement("E-1")
def test_two_tries_of_a_gate_at_once_that_agree_are_one_record(world: World) -> None:
    """A try that lost its worker can still be alive when the next one runs."""
    case = open_case(world.deployment, world.frozen())
    result = GateResult(verdict=Verdict.PASSED, summary="fine")
    first = keep_evidence(world.deployment, case, "performance", config={}, result=result, seconds=1.0)
    again = keep_evidence(world.deployment, case, "performance", config={}, result=result, seconds=2.0)
    assert again == first
    assert len(world.events(Kind.GATE_EVALUATED)) == 1


@pytest.mark.requirement("E-1")
def test_two_tries_of_a_gate_that_disagree_are_a_conflict(world: World) -> None:
    case = open_case(world.deployment, world.frozen())
    for verdict in (Verdict.FAILED, Verdict.PASSED):
        result = GateResult(verdict=verdict, summary="it depends")
        if verdict is Verdict.FAILED:
            keep_evidence(world.deployment, case, "performance", config={}, result=result, seconds=1)
        else:
            with pytest.raises(ConflictError):
                keep_evidence(world.deployment, case, "performance", config={}, result=result, seconds=1)
    assert [event.data["verdict"] for event in world.events(Kind.GATE_EVALUATED)] == ["FAILED"]


def fake_gate(monkeypatch: pytest.MonkeyPatch, run: Callable[[], GateResult]) -> None:
    """Replace the gate `documentation` by a function."""
    module = SimpleNamespace(
        Config=SimpleNamespace(model_validate=lambda values: SimpleNamespace(to_data=lambda: values)),
        STAGE=Stage.BEFORE_SCORING,
        evaluate=lambda *_: run(),
    )
    monkeypatch.setattr("airlock.services.evaluate.load_gate", lambda _: module)


@pytest.mark.requirement("G-16")
@pytest.mark.parametrize(
    "details", [{"rate": float("nan")}, {"rate": object()}, {"text": "\ud800"}, {"text": "a\0b"}]
)
def test_a_result_that_cannot_be_kept_is_an_error_and_never_a_pass(
    world: World, monkeypatch: pytest.MonkeyPatch, details: dict[str, Any]
) -> None:
    fake_gate(monkeypatch, lambda: GateResult(verdict=Verdict.PASSED, summary="fine", details=details))
    evidence = evaluate(world.deployment, world.frozen(), "documentation")
    assert evidence.verdict is Verdict.ERROR
    assert "could not be judged" in evidence.result.summary


@pytest.mark.requirement("G-16")
@pytest.mark.parametrize(
    "error", [ValueError("boom"), ZeroDivisionError(), RecursionError(), ValueError("a\0b\ud800")]
)
def test_a_gate_that_breaks_is_an_error_and_never_a_pass(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run() -> GateResult:
        raise error

    fake_gate(monkeypatch, run)
    evidence = evaluate(world.deployment, world.frozen(), "documentation")
    assert evidence.verdict is Verdict.ERROR


@pytest.mark.requirement("E-1")
def test_a_gate_whose_store_is_away_gives_no_verdict_and_can_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> GateResult:
        raise UnavailableError("the store is away")

    fake_gate(monkeypatch, away)
    release_id = world.frozen()
    with pytest.raises(UnavailableError):
        evaluate(world.deployment, release_id, "documentation")
    fake_gate(monkeypatch, lambda: GateResult(verdict=Verdict.PASSED, summary="fine"))
    assert evaluate(world.deployment, release_id, "documentation").verdict is Verdict.PASSED


@pytest.mark.requirement("P-2")
def test_a_gate_outside_the_policy_gives_no_evidence(world: World) -> None:
    with pytest.raises(RefusedError, match="gate 'bias' is not part of policy"):
        evaluate(world.deployment, world.frozen(), "bias")


@pytest.mark.requirement("G-12")
def test_a_real_gate_answers_once(world: World) -> None:
    release_id = world.frozen()
    first = evaluate(world.deployment, release_id, "documentation")
    assert first.verdict is Verdict.FAILED, "the model card is a heading and nothing else"
    (world.config / "workloads" / f"{WORKLOAD}.md").write_text("# Much better now")
    assert evaluate(world.deployment, release_id, "documentation") == first


@pytest.mark.requirement("T-2", "T-3")
@pytest.mark.parametrize(
    ("track", "outcome", "roles"),
    [
        ("green", Outcome.ALLOW, []),
        ("yellow", Outcome.PENDING, ["ml-platform-engineer"]),
        ("red", Outcome.PENDING, ["governance-analyst", "risk-officer"]),
    ],
)
def test_the_track_decides_who_is_asked(world: World, track: str, outcome: Outcome, roles: list[str]) -> None:
    decision = world.decision(world.judged(track=track))
    assert (decision.track, decision.outcome) == (track, outcome)
    assert [seat.role for seat in decision.seats] == roles


@pytest.mark.requirement("T-3")
def test_the_first_release_is_red(copy: Callable[[str, Build], Any]) -> None:
    with fast_folder() as folder:
        world = make_world(folder / "world", champion=None)
        assert world.decision(world.judged(track="green")).track is Track.RED


def test_deciding_again_returns_the_recorded_decision(judged: tuple[World, str]) -> None:
    world, release_id = judged
    first = decide(world.deployment, release_id)
    world.set_roles("grace", [])
    world.clock.advance(hours=5)
    assert decide(world.deployment, release_id).to_bytes() == first.to_bytes()
    assert kinds(world, release_id).count(Kind.RELEASE_DECIDED) == 1


@pytest.mark.requirement("G-3")
@pytest.mark.parametrize("gate", ["documentation", "performance", "score"])
@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.ERROR, None])
def test_one_gate_that_does_not_allow_denies(world: World, gate: str, verdict: Verdict | None) -> None:
    release_id = world.judged(track="green", verdicts={gate: verdict})
    decision = world.decision(release_id)
    assert decision.outcome is Outcome.DENY
    assert decision.seats == []
    assert gate in decision.sentence
    with pytest.raises(RefusedError, match="the decision is DENY"):
        promote(world.deployment, release_id)
    assert world.champion == "1"


def test_missing_evidence_advises_what_helps_when_the_decision_stands(world: World) -> None:
    """The recorded decision is final, so running the gates again would change nothing."""
    release_id = world.judged(verdicts={"documentation": None})
    message = announce(world.deployment, release_id)
    assert "no evidence from documentation" in message
    assert "submit" in message
    assert "clear them" not in message


@pytest.mark.requirement("G-3")
def test_a_warning_allows(world: World) -> None:
    verdicts: dict[str, Verdict | None] = {"performance": Verdict.WARNED}
    assert world.decision(world.judged(track="green", verdicts=verdicts)).outcome is Outcome.ALLOW


@pytest.mark.requirement("A-7")
def test_evidence_of_another_release_is_an_integrity_error(judged: tuple[World, str]) -> None:
    world, release_id = judged
    other = world.frozen("3", run="run-2")
    foreign = world.release(release_id).gates[0]
    world.deployment.record(
        Kind.GATE_EVALUATED,
        f"release/{other}/gate/{foreign.gate}",
        release_id=other,
        workload=WORKLOAD,
        version="3",
        data={
            "gate": foreign.gate,
            "verdict": "PASSED",
            "summary": "",
            "evidence": foreign.digest,
            "seconds": 1,
        },
    )
    with pytest.raises(IntegrityError, match="does not belong to gate"):
        decide(world.deployment, other)


# Answers


def refused(world: World, release_id: str, user: str, words: str, **kwargs: Any) -> None:
    with pytest.raises(RefusedError, match=words):
        world.answer(release_id, user, **kwargs)
    event = world.events(Kind.APPROVAL_REFUSED, release_id)[-1]
    assert event.actor == user
    assert event.data["problem"]


@pytest.mark.requirement("A-1", "A-2")
def test_two_people_of_two_roles_grant(judged: tuple[World, str]) -> None:
    world, release_id = judged
    assert standing(world.deployment, release_id).sentence == "waiting for governance-analyst, risk-officer"
    world.answer(release_id, "ravi", 1)
    assert standing(world.deployment, release_id).state == "open"
    world.answer(release_id, "grace", 0)
    assert standing(world.deployment, release_id).state == "granted"
    assert state(world, release_id) is State.READY


@pytest.mark.requirement("A-2")
def test_the_submitter_cannot_approve_or_reject(world: World) -> None:
    release_id = world.judged(user="omar")
    refused(world, release_id, "omar", "omar submitted this release")
    refused(world, release_id, "omar", "omar submitted", choice="reject", comment="I changed my mind.")
    assert world.release(release_id).answers == []


@pytest.mark.requirement("A-1", "A-2")
@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("petra", "petra does not hold the role governance-analyst; roles held: ml-platform-engineer"),
        ("ravi", "ravi does not hold the role governance-analyst"),
        ("vera", "vera does not hold the role governance-analyst; roles held: none"),
        ("mallory", "mallory holds no governance role"),
        ("Grace", "Grace holds no governance role"),
        ("grace ", "grace  holds no governance role"),
        ("nobody", "nobody holds no governance role"),
        ("system", "system holds no governance role"),
    ],
)
def test_who_does_not_hold_the_role_does_not_count(judged: tuple[World, str], user: str, words: str) -> None:
    world, release_id = judged
    refused(world, release_id, user, words)
    assert standing(world.deployment, release_id).state == "open"


@pytest.mark.requirement("A-2")
def test_one_person_fills_one_seat_even_with_both_roles(judged: tuple[World, str]) -> None:
    world, release_id = judged
    world.answer(release_id, "omar", 0)
    refused(world, release_id, "omar", "one person fills one seat", seat=1)
    refused(world, release_id, "grace", "seat 1 is already filled by omar", seat=0)
    world.answer(release_id, "ravi", 1)
    assert standing(world.deployment, release_id).state == "granted"


@pytest.mark.requirement("A-2")
def test_two_seats_by_one_person_do_not_count_even_when_both_were_recorded(
    judged: tuple[World, str],
) -> None:
    """Two answers in the same moment can both pass the first check; the count must not believe them."""
    world, release_id = judged
    first = world.answer(release_id, "omar", 0)
    forged = first.model_copy(update={"seat": 1, "role": "risk-officer"})
    world.deployment.record(
        Kind.APPROVAL_RECORDED,
        f"release/{release_id}/seat/1/omar",
        actor="omar",
        release_id=release_id,
        workload=WORKLOAD,
        version="2",
        data=forged.to_data(),
    )
    assert standing(world.deployment, release_id).state == "open"
    with pytest.raises(RefusedError, match="no approval by risk-officer; omar already fills seat 1"):
        promote(world.deployment, release_id)
    world.answer(release_id, "ravi", 1)
    event = promote(world.deployment, release_id)
    assert event.data["approved_by"] == ["omar", "ravi"], "who counted, not who tried"
    assert sentence(world, release_id).endswith(
        "approved by omar (governance-analyst) and ravi (risk-officer)"
    )


@pytest.mark.requirement("A-2")
def test_who_loses_the_role_after_approving_makes_room_for_another_holder(
    granted: tuple[World, str],
) -> None:
    world, release_id = granted
    world.set_roles("grace", [])
    assert standing(world.deployment, release_id).sentence == "waiting for governance-analyst"
    world.answer(release_id, "omar", 0)
    assert promote(world.deployment, release_id).data["approved_by"] == ["omar", "ravi"]


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize("seat", [2, 99, -1])
def test_a_seat_that_does_not_exist_cannot_be_filled(judged: tuple[World, str], seat: int) -> None:
    world, release_id = judged
    refused(world, release_id, "grace", "does not exist", seat=seat)


@pytest.mark.requirement("A-6")
def test_an_answer_after_the_deadline_does_not_count(judged: tuple[World, str]) -> None:
    world, release_id = judged
    world.clock.advance(hours=72)
    world.answer(release_id, "grace", 0)
    world.clock.advance(us=1)
    refused(world, release_id, "ravi", "the time to answer is over", seat=1)
    assert standing(world.deployment, release_id).state == "expired"
    assert state(world, release_id) is State.EXPIRED
    with pytest.raises(RefusedError, match="no approval by risk-officer"):
        promote(world.deployment, release_id)


@pytest.mark.requirement("A-5")
@pytest.mark.parametrize("comment", ["", "no", " " * 50, "too short"])
def test_a_rejection_must_explain_itself(judged: tuple[World, str], comment: str) -> None:
    world, release_id = judged
    refused(world, release_id, "grace", "at least 10 characters", choice="reject", comment=comment)
    assert standing(world.deployment, release_id).state == "open"


@pytest.mark.requirement("A-5")
def test_a_rejection_closes_the_release_and_its_reason_is_announced(judged: tuple[World, str]) -> None:
    world, release_id = judged
    world.answer(release_id, "ravi", 1)
    world.answer(release_id, "grace", 0, "reject", "Show a month of shadow traffic.")
    assert standing(world.deployment, release_id).state == "rejected"
    assert "rejected by grace (governance-analyst): Show a month" in announce(world.deployment, release_id)
    assert standing(world.deployment, release_id).feedback == "Show a month of shadow traffic."
    assert seal(world.deployment, release_id) == "rejected"
    with pytest.raises(RefusedError, match="rejected by grace"):
        promote(world.deployment, release_id)


@pytest.mark.requirement("E-5")
def test_what_a_rejecter_wrote_is_recorded_once_and_nowhere_in_clear(judged: tuple[World, str]) -> None:
    """A copy in another event could not be erased."""
    world, release_id = judged
    world.answer(release_id, "grace", 0, "reject", "Show a month of shadow traffic.")
    announce(world.deployment, release_id)
    seal(world.deployment, release_id)
    with pytest.raises(RefusedError):
        promote(world.deployment, release_id)
    said = [entry.event for entry in world.deployment.audit.events()]
    assert [event.kind for event in said if b"Show a month" in event.to_bytes()] == [Kind.APPROVAL_RECORDED]
    for path in world.deployment.settings.home.rglob("*"):
        assert path.is_dir() or b"Show a month" not in path.read_bytes(), path


@pytest.mark.requirement("A-5")
def test_only_a_rejection_that_counts_is_announced(judged: tuple[World, str]) -> None:
    world, release_id = judged
    world.answer(release_id, "grace", 0)
    late = world.answer(release_id, "ravi", 1, "reject", "The losses are too high.").model_copy(
        update={"seat": 0, "user": "omar", "role": "governance-analyst", "comment": "I was second."}
    )
    world.deployment.record(
        Kind.APPROVAL_RECORDED,
        f"release/{release_id}/seat/0/omar",
        actor="omar",
        release_id=release_id,
        data=late.to_data(),
    )
    assert "rejected by ravi (risk-officer): The losses" in sentence(world, release_id)


@pytest.mark.requirement("E-1", "A-2")
def test_the_same_answer_again_is_one_record(judged: tuple[World, str]) -> None:
    world, release_id = judged
    first = world.answer(release_id, "grace", 0)
    world.clock.advance(hours=1)
    assert world.answer(release_id, "grace", 0) == first
    assert len(world.release(release_id).answers) == 1


@pytest.mark.requirement("A-2")
def test_a_recorded_answer_cannot_be_turned_round(judged: tuple[World, str]) -> None:
    world, release_id = judged
    world.answer(release_id, "grace", 0)
    with pytest.raises(ConflictError):
        world.answer(release_id, "grace", 0, "reject", "I changed my mind about it.")
    assert [given.choice for given in world.release(release_id).answers] == ["approve"]


@pytest.mark.requirement("A-7")
@pytest.mark.parametrize("field", ["manifest_digest", "evidence_digest", "policy_digest", "release_id"])
def test_an_answer_given_for_something_else_is_void(judged: tuple[World, str], field: str) -> None:
    world, release_id = judged
    real = world.answer(release_id, "ravi", 1)
    replayed = real.model_copy(
        update={"seat": 0, "user": "grace", "role": "governance-analyst", field: "0" * 64}
    )
    world.deployment.record(
        Kind.APPROVAL_RECORDED,
        f"release/{release_id}/seat/0/grace",
        actor="grace",
        release_id=release_id,
        data=replayed.to_data(),
    )
    assert standing(world.deployment, release_id).state == "open"
    with pytest.raises(RefusedError, match="no approval by governance-analyst"):
        promote(world.deployment, release_id)


@pytest.mark.requirement("A-5", "E-1")
@pytest.mark.parametrize("comment", ["x" * 100_000, "a\0bcdefghijk", "a\ud800bcdefghijk"])
@pytest.mark.parametrize("choice", ["approve", "reject"])
def test_a_comment_that_cannot_be_recorded_is_refused_and_the_seat_stays(
    judged: tuple[World, str], comment: str, choice: str
) -> None:
    """Any other error would end the seat's task, and nobody could answer any more."""
    world, release_id = judged
    refused(world, release_id, "grace", "comment", choice=choice, comment=comment)
    world.answer(release_id, "grace", 0)


@pytest.mark.requirement("A-2", "A-6")
def test_nobody_is_asked_where_only_the_submitter_could_answer(world: World) -> None:
    world.set_roles("grace", [])
    release_id = world.judged(user="omar")
    with pytest.raises(RefusedError, match="nobody may fill the seat of governance-analyst"):
        seat_request(world.deployment, release_id, 0)
    assert [person.user for person in seat_request(world.deployment, release_id, 1).eligible] == ["ravi"]


@pytest.mark.requirement("A-6")
def test_a_question_carries_the_time_that_is_left(judged: tuple[World, str]) -> None:
    world, release_id = judged
    world.clock.advance(hours=70)
    assert seat_request(world.deployment, release_id, 0).seconds_left == 2 * 3600
    world.clock.advance(hours=2)
    with pytest.raises(RefusedError, match="the time to answer is over"):
        seat_request(world.deployment, release_id, 0)
    with pytest.raises(NotFoundError, match="has no seat 3"):
        seat_request(world.deployment, release_id, 2)


def test_nobody_answers_before_there_is_a_decision(world: World) -> None:
    release_id = world.frozen()
    with pytest.raises(NotFoundError, match="is not decided yet"):
        world.answer(release_id, "grace")


@pytest.mark.requirement("A-2")
def test_an_allowed_or_denied_release_takes_no_answers(world: World) -> None:
    green = world.judged(track="green")
    refused(world, green, "petra", "seat 1 does not exist|not waiting for approval")
    denied = world.judged("3", run="run-2", verdicts={"performance": Verdict.FAILED})
    refused(world, denied, "grace", "its decision is DENY")
    assert standing(world.deployment, denied).state == "denied"


# Promotion


@pytest.mark.requirement("R-1")
def test_a_granted_release_becomes_champion_with_its_proofs_as_tags(granted: tuple[World, str]) -> None:
    world, release_id = granted
    event = promote(world.deployment, release_id)
    assert world.champion == "2"
    assert (event.kind, event.data["previous"]) == (Kind.PROMOTION_FINISHED, "1")
    assert event.data["approved_by"] == ["grace", "ravi"]
    tags = world.registry.models[WORKLOAD]["2"].tags
    case = open_case(world.deployment, release_id)
    assert tags["airlock.release"] == release_id
    assert tags["airlock.manifest"] == case.manifest.digest
    assert state(world, release_id) is State.PROMOTED


@pytest.mark.requirement("T-3", "R-1")
def test_a_green_release_needs_nobody(world: World) -> None:
    release_id = world.judged(track="green")
    assert promote(world.deployment, release_id).data["approved_by"] == []
    assert world.champion == "2"


@pytest.mark.requirement("R-1", "E-1")
def test_promoting_again_changes_nothing(granted: tuple[World, str]) -> None:
    world, release_id = granted
    first = promote(world.deployment, release_id)
    world.clock.advance(hours=1)
    world.set_roles("grace", [])
    assert promote(world.deployment, release_id) == first
    assert world.registry.moves == [(WORKLOAD, "2")]
    assert kinds(world, release_id).count(Kind.PROMOTION_FINISHED) == 1


def spoil_roles(world: World, release_id: str) -> None:
    world.set_roles("grace", [])


def spoil_artifact(world: World, release_id: str) -> None:
    world.registry.register("2", {"model.skops": b"swapped", "MLmodel": b""})


def spoil_quarantine(world: World, release_id: str) -> None:
    world.registry.quarantine(WORKLOAD, "2", "found later")


def spoil_workload(world: World, release_id: str) -> None:
    edit(world.workload_file, "loss_per_error_usd: 10", "loss_per_error_usd: 11")


def spoil_policy(world: World, release_id: str) -> None:
    edit(world.policy_file, "value: 0.15", "value: 0.9")


def spoil_champion(world: World, release_id: str) -> None:
    world.registry.champions[WORKLOAD] = "3"


def spoil_by_removing_the_champion(world: World, release_id: str) -> None:
    del world.registry.champions[WORKLOAD]


SPOILERS: dict[Callable[[World, str], None], str] = {
    spoil_roles: "no approval by governance-analyst; grace does not hold the role governance-analyst",
    spoil_artifact: "the model files changed after the release was frozen",
    spoil_quarantine: "the version is quarantined",
    spoil_workload: "the workload file changed after the release was frozen",
    spoil_policy: "policy 1.0.0 was edited after the release was frozen",
    spoil_champion: "the champion is now version 3, but the candidate was compared with version 1",
    spoil_by_removing_the_champion: "the champion is now version None",
}


@pytest.mark.requirement("A-2", "A-7", "R-1", "P-2", "R-5")
@pytest.mark.parametrize("spoil", SPOILERS)
def test_what_changed_since_the_approval_refuses_the_promotion(
    granted: tuple[World, str], spoil: Callable[[World, str], None]
) -> None:
    world, release_id = granted
    spoil(world, release_id)
    before = world.champion
    with pytest.raises(RefusedError) as caught:
        promote(world.deployment, release_id)
    assert SPOILERS[spoil] in caught.value.what
    assert world.champion == before
    assert world.registry.moves == []
    (event,) = world.events(Kind.PROMOTION_REFUSED, release_id)
    assert SPOILERS[spoil].split("; ")[0] in "; ".join(event.data["problems"])
    assert Kind.PROMOTION_STARTED not in kinds(world, release_id)
    assert state(world, release_id) is State.REFUSED


@pytest.mark.requirement("A-7")
def test_a_refusal_names_every_reason_at_once_and_repeats_nothing(granted: tuple[World, str]) -> None:
    world, release_id = granted
    for spoil in (spoil_roles, spoil_artifact, spoil_policy, spoil_champion):
        spoil(world, release_id)
    for _ in range(2):
        with pytest.raises(RefusedError):
            promote(world.deployment, release_id)
    (event,) = world.events(Kind.PROMOTION_REFUSED)
    assert len(event.data["problems"]) == 5


@pytest.mark.requirement("A-7")
def test_a_refused_release_can_be_promoted_when_the_reason_is_gone(granted: tuple[World, str]) -> None:
    world, release_id = granted
    world.set_roles("grace", [])
    with pytest.raises(RefusedError):
        promote(world.deployment, release_id)
    announce(world.deployment, release_id)
    seal(world.deployment, release_id)
    world.set_roles("grace", ["governance-analyst"])
    promote(world.deployment, release_id)
    assert world.champion == "2"
    assert "promoted" in announce(world.deployment, release_id)
    assert seal(world.deployment, release_id) == "promoted"


@pytest.mark.requirement("T-5")
def test_refused_for_another_reason_is_announced_again(granted: tuple[World, str]) -> None:
    world, release_id = granted
    for spoil in (spoil_roles, spoil_artifact):
        spoil(world, release_id)
        with pytest.raises(RefusedError):
            promote(world.deployment, release_id)
        announce(world.deployment, release_id)
        seal(world.deployment, release_id)
    messages = [event.data["message"] for event in world.events(Kind.RELEASE_ANNOUNCED)]
    assert len(messages) == 2
    assert "the model files changed" in messages[1]
    assert world.events(Kind.CONFLICT) == []


@pytest.mark.requirement("A-7")
def test_a_forged_decision_in_the_audit_store_does_not_promote(world: World) -> None:
    """Someone with write access to both stores records an ALLOW that the evidence does not give."""
    release_id = world.frozen()
    world.evidence(release_id, verdicts={"performance": Verdict.FAILED})
    with fast_folder() as folder:
        honest = world.copy(folder / "honest")
        decision = honest.decision(release_id)
    forged = decision.model_copy(update={"outcome": Outcome.ALLOW, "seats": [], "track": Track.GREEN})
    world.deployment.record(
        Kind.RELEASE_DECIDED,
        f"release/{release_id}/decided",
        release_id=release_id,
        workload=WORKLOAD,
        version="2",
        data={"decision": world.deployment.evidence.put(forged.to_bytes()), "expires_hours": 72},
    )
    with pytest.raises(RefusedError, match="the recorded decision does not follow from the evidence"):
        promote(world.deployment, release_id)
    assert world.champion == "1"


@pytest.mark.requirement("R-1")
def test_nothing_is_promoted_before_a_decision(world: World) -> None:
    release_id = world.frozen()
    with pytest.raises(RefusedError, match="no decision was recorded"):
        promote(world.deployment, release_id)
    with pytest.raises(NotFoundError, match="has no manifest"):
        promote(world.deployment, world.submit("3", run="run-2"))
    with pytest.raises(NotFoundError, match="there is no release 'loan-model-v9-00000000'"):
        promote(world.deployment, "loan-model-v9-00000000")


@pytest.mark.requirement("A-7")
@pytest.mark.parametrize("which", ["manifest", "decision", "performance", "policy", "workload"])
def test_evidence_tampered_with_on_disk_stops_everything(granted: tuple[World, str], which: str) -> None:
    world, release_id = granted
    release, case = world.release(release_id), open_case(world.deployment, release_id)
    digests = {line.gate: line.digest for line in release.gates} | {
        "manifest": case.manifest.digest,
        "policy": case.manifest.policy_digest,
        "workload": case.manifest.workload_digest,
    }
    decided = release.first(Kind.RELEASE_DECIDED)
    assert decided is not None
    digests["decision"] = decided.data["decision"]
    path = world.evidence_file(digests[which])
    path.write_bytes(path.read_bytes().replace(b"FAILED", b"PASSED") + b" ")
    with pytest.raises(IntegrityError, match="was changed on disk"):
        promote(world.deployment, release_id)
    assert world.champion == "1"
    path.unlink()
    with pytest.raises(NotFoundError, match="no evidence"):
        promote(world.deployment, release_id)
    assert world.champion == "1"


@pytest.mark.requirement("R-1")
def test_a_registry_that_does_not_answer_changes_nothing_and_the_next_try_succeeds(
    copy: Callable[[str, Build], Any],
) -> None:
    number = 0
    while True:
        number += 1
        world, release_id = copy("granted", World.granted)
        world.registry.fail_at(number)
        try:
            promote(world.deployment, release_id)
            break
        except UnavailableError:
            assert world.champion in ("1", "2")
        promote(world.deployment, release_id)
        assert (world.champion, world.registry.moves) == ("2", [(WORKLOAD, "2")])
        assert len(world.events(Kind.PROMOTION_FINISHED)) == 1
    assert number >= 5


@pytest.mark.requirement("R-1")
def test_an_alias_that_somebody_moves_back_at_once_is_noticed(granted: tuple[World, str]) -> None:
    world, release_id = granted
    real = world.registry.set_champion

    def and_back(name: str, version: str, tags: Any) -> None:
        real(name, version, tags)
        world.registry.champions[name] = "3"

    world.registry.set_champion = and_back  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="did not move to version 2"):
        promote(world.deployment, release_id)
    assert Kind.PROMOTION_FINISHED not in kinds(world, release_id)


def killed_at(world: World, release_id: str, number: int, error: BaseException) -> bool:
    """Promote, with an end at the n-th moment; whether that moment was reached."""
    world.failpoints.stop_at(number, error)
    try:
        promote(world.watched(), release_id)
    except type(error):
        return True
    return False


@pytest.mark.requirement("R-1", "E-1")
@pytest.mark.parametrize("error", [Killed(), UnavailableError("no acknowledgement came")])
def test_a_promotion_killed_at_any_moment_ends_with_one_champion_and_one_record(
    copy: Callable[[str, Build], Any], error: BaseException
) -> None:
    moments: set[str] = set()
    number = 0
    while True:
        number += 1
        world, release_id = copy("granted", World.granted)
        if not killed_at(world, release_id, number, error):
            break
        moments.add(f"{world.failpoints.reached[-1]} {kinds(world, release_id)[-1]}")
        event = promote(world.deployment, release_id)
        assert (world.champion, world.registry.moves) == ("2", [(WORKLOAD, "2")])
        assert kinds(world, release_id).count(Kind.PROMOTION_STARTED) == 1
        assert kinds(world, release_id).count(Kind.PROMOTION_FINISHED) == 1
        assert event.data["approved_by"] == ["grace", "ravi"]
        assert world.events(Kind.CONFLICT) == []
    # The two moments that hurt were among them.
    assert "before registry.set_champion promotion.started" in moments
    assert "after registry.set_champion promotion.started" in moments


def interrupted(world: World, release_id: str, *, moved: bool) -> None:
    """Kill a promotion right before or right after the alias moves."""
    moment = f"{'after' if moved else 'before'} registry.set_champion"
    world.failpoints.stop_at(0, Killed())
    with fast_folder() as folder:
        twin = world.copy(folder / "twin")
        promote(twin.watched(), release_id)
        number = twin.failpoints.reached.index(moment) + 1
    assert killed_at(world, release_id, number, Killed())
    assert world.champion == ("2" if moved else "1")
    assert kinds(world, release_id)[-1] is Kind.PROMOTION_STARTED


@pytest.mark.requirement("R-1", "A-2")
@pytest.mark.parametrize("spoil", [spoil_roles, spoil_artifact, spoil_policy])
def test_a_promotion_that_had_moved_the_alias_is_finished_whatever_changed_since(
    granted: tuple[World, str], spoil: Callable[[World, str], None]
) -> None:
    """It was checked before it started; the record has to say what is in production."""
    world, release_id = granted
    interrupted(world, release_id, moved=True)
    spoil(world, release_id)
    event = promote(world.deployment, release_id)
    assert event.data["approved_by"] == ["grace", "ravi"], "who had approved when it started"
    assert (world.champion, world.registry.moves) == ("2", [(WORKLOAD, "2")])
    assert state(world, release_id) is State.PROMOTED


@pytest.mark.requirement("R-1", "A-2")
@pytest.mark.parametrize("spoil", [spoil_roles, spoil_artifact, spoil_policy, spoil_quarantine])
def test_a_promotion_that_had_not_moved_the_alias_is_checked_again(
    granted: tuple[World, str], spoil: Callable[[World, str], None]
) -> None:
    world, release_id = granted
    interrupted(world, release_id, moved=False)
    spoil(world, release_id)
    with pytest.raises(RefusedError):
        promote(world.deployment, release_id)
    assert world.champion == "1"


@pytest.mark.requirement("R-1")
def test_a_started_promotion_that_is_refused_makes_way_for_the_next_release(
    granted: tuple[World, str],
) -> None:
    """Otherwise one release that can never finish would lock its workload for ever."""
    world, first = granted
    second = world.granted("3", run="run-2")
    interrupted(world, first, moved=False)
    with pytest.raises(ConflictError, match=f"release {first} of the same workload is being promoted"):
        promote(world.deployment, second)
    spoil_quarantine(world, first)
    with pytest.raises(RefusedError, match="quarantined"):
        promote(world.deployment, first)
    promote(world.deployment, second)
    assert world.champion == "3"
    with pytest.raises(RefusedError, match="the champion is now version 3"):
        promote(world.deployment, first)
    assert world.champion == "3"


@pytest.mark.requirement("R-1")
def test_a_refused_promotion_has_to_take_its_turn_anew(granted: tuple[World, str]) -> None:
    world, first = granted
    second = world.granted("3", run="run-2")
    for _ in range(2):  # refused twice for the same reason, each time after it had started
        interrupted(world, first, moved=False)
        world.set_roles("grace", [])
        with pytest.raises(RefusedError):
            promote(world.deployment, first)
        world.set_roles("grace", ["governance-analyst"])
    interrupted(world, first, moved=False)
    with pytest.raises(ConflictError):
        promote(world.deployment, second)
    promote(world.deployment, first)
    assert world.champion == "2"
    with pytest.raises(RefusedError, match="the champion is now version 2"):
        promote(world.deployment, second)


@pytest.mark.requirement("R-1")
def test_of_two_releases_for_one_champion_the_second_is_refused(granted: tuple[World, str]) -> None:
    world, first = granted
    second = world.granted("3", run="run-2")
    promote(world.deployment, second)
    with pytest.raises(RefusedError, match="the champion is now version 3, but the candidate was compared"):
        promote(world.deployment, first)
    assert world.champion == "3"


def chain(world: World) -> list[tuple[str | None, str]]:
    """Who replaced whom, as recorded."""
    return [(event.data["previous"], event.version) for event in world.events(Kind.PROMOTION_FINISHED)]


@pytest.mark.requirement("R-1")
@pytest.mark.slow
def test_two_releases_that_interrupt_each_other_anywhere_never_overwrite_each_other(
    copy: Callable[[str, Build], Any],
) -> None:
    """One dies at every moment there is, the other runs, the first tries again."""

    def both(world: World) -> str:
        world.granted("3", run="run-2")
        return world.granted()

    number = 0
    reached = True
    while reached:
        number += 1
        world, first = copy("both", both)
        second = world.submit("3", run="run-2")
        reached = killed_at(world, first, number, Killed())
        outcomes = []
        for release_id in (second, first, second):
            try:
                promote(world.deployment, release_id)
                outcomes.append(release_id)
            except (RefusedError, ConflictError):
                pass
        assert outcomes, "nobody got through"
        recorded = chain(world)
        assert len(recorded) == 1
        assert recorded[0][0] == "1"
        assert world.champion == recorded[0][1]
        assert world.registry.moves == [(WORKLOAD, world.champion)]


@pytest.mark.requirement("R-1")
def test_two_releases_promoted_in_the_same_moment_leave_one_champion(
    copy: Callable[[str, Build], Any],
) -> None:
    def both(world: World) -> str:
        world.granted("3", run="run-2")
        return world.granted()

    for _ in range(5):
        world, first = copy("both", both)
        second = world.submit("3", run="run-2")
        barrier = threading.Barrier(2)

        def attempt(release_id: str, world: World = world, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            try:
                return promote(world.deployment, release_id).version
            except (RefusedError, ConflictError) as error:
                return type(error).__name__

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(attempt, [first, second]))
        assert len([result for result in results if result in ("2", "3")]) == 1, results
        assert chain(world) == [("1", world.champion)]


@pytest.mark.requirement("R-1")
def test_deployments_that_share_an_audit_store_do_not_get_in_each_others_way(
    granted: tuple[World, str],
) -> None:
    """Same workload, same store, other registry: neither turns nor lists may mix."""
    world, first = granted
    other = replace(
        world.deployment,
        settings=world.deployment.settings.model_copy(update={"deployment": "other"}),
    )

    def promoted_elsewhere(number: int) -> None:
        for kind in (Kind.PROMOTION_STARTED, Kind.PROMOTION_FINISHED):
            other.record(kind, f"{kind}/{number}", release_id=f"foreign-{number}", workload=WORKLOAD)

    promoted_elsewhere(1)
    other.record(
        Kind.RELEASE_SUBMITTED,
        "release/foreign/submitted",
        actor="eve",
        release_id="foreign",
        workload=WORKLOAD,
        data={"batch": "clean", "context": "", "dag_id": "d", "run_id": "r"},
    )
    second = world.granted("3", run="run-2")
    interrupted(world, first, moved=False)
    promoted_elsewhere(2)
    with pytest.raises(ConflictError):
        promote(world.deployment, second)
    listed = list_releases(world.deployment, limit=2)
    assert {found.release_id for found in listed} == {first, second}
    with pytest.raises(NotFoundError):
        find_release(world.deployment, "foreign")


# Announce and seal


@pytest.mark.requirement("T-5", "A-5")
def test_a_denial_is_announced_with_reason_and_fix(world: World) -> None:
    release_id = world.judged(verdicts={"performance": Verdict.FAILED})
    message = announce(world.deployment, release_id)
    assert message.splitlines() == [
        "loan-model version 2: denied. performance says FAILED",
        "How to fix it: fix performance",
    ]
    assert announce(world.deployment, release_id) == message
    assert len(world.events(Kind.RELEASE_ANNOUNCED)) == 1
    assert seal(world.deployment, release_id) == "denied"


@pytest.mark.requirement("T-5")
def test_a_promotion_is_announced_with_who_approved(granted: tuple[World, str]) -> None:
    world, release_id = granted
    promote(world.deployment, release_id)
    message = announce(world.deployment, release_id)
    assert message.startswith("loan-model version 2: promoted. performance changes by 30.0 %")
    assert message.endswith("approved by grace (governance-analyst) and ravi (risk-officer)")


@pytest.mark.requirement("R-1")
def test_an_approved_release_that_was_not_promoted_is_not_announced_as_if_it_were(
    granted: tuple[World, str],
) -> None:
    """MLflow was down for too long: the run is over, and the model is not in production."""
    world, release_id = granted
    world.registry.fail_at(1)
    with pytest.raises(UnavailableError):
        promote(world.deployment, release_id)
    message = announce(world.deployment, release_id)
    assert "failed" in message
    assert "`promote`" in message
    assert seal(world.deployment, release_id) == "failed"
    assert state(world, release_id) is State.FAILED, "a command that waited for it must not exit with 0"
    promote(world.deployment, release_id)
    assert state(world, release_id) is State.PROMOTED


@pytest.mark.requirement("A-6")
def test_a_run_that_ended_while_people_were_asked_is_expired_for_everybody(
    judged: tuple[World, str],
) -> None:
    world, release_id = judged
    message = announce(world.deployment, release_id)
    assert "expired" in message
    assert seal(world.deployment, release_id) == "expired"
    assert state(world, release_id) is State.EXPIRED


@pytest.mark.requirement("E-1")
def test_a_release_that_was_never_judged_is_sealed_as_failed(world: World) -> None:
    release_id = world.frozen()
    assert "could not be judged" in announce(world.deployment, release_id)
    assert seal(world.deployment, release_id) == "failed"
    assert state(world, release_id) is State.FAILED
    with pytest.raises(NotFoundError):
        seal(world.deployment, "loan-model-v9-00000000")


@pytest.mark.requirement("R-5", "G-8")
def test_an_unsafe_model_is_quarantined_once_and_said_so(copy: Callable[[str, Build], Any]) -> None:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        text = world.policy_file.read_text()
        world.policy_file.write_text(text.replace("  documentation:", "  security: {}\n  documentation:"))
        edit(world.policy_file, "security: {}", f"security: {json.dumps(shipped_gates()['security'])}")
        release_id = world.judged(verdicts={"security": Verdict.FAILED}, summary="it would run a command")
        case = open_case(world.deployment, release_id)
        evidence = next(record for record in _evidence(world, release_id) if record.gate == "security")
        for _ in range(2):
            assert quarantine_if_unsafe(world.deployment, evidence)
        assert len(world.events(Kind.VERSION_QUARANTINED)) == 1
        (review,) = world.events(Kind.SECURITY_REVIEW_OPENED)
        assert review.data["role"] == "security"
        assert review.data["evidence"] == evidence.digest
        assert world.registry.version(case.manifest.workload, "2").tags["airlock.state"] == "quarantined"
        assert state(world, release_id) is State.QUARANTINED
        for record in _evidence(world, release_id):
            if record.gate != "security":
                assert not quarantine_if_unsafe(world.deployment, record)


@pytest.mark.requirement("R-5", "G-8")
def test_a_model_that_tried_to_get_out_is_quarantined(world: World) -> None:
    release_id = world.judged()
    case = open_case(world.deployment, release_id)
    error = SandboxError("the job was stopped; it tried to fork", attempts=["start a process (clone)"])
    result = error_result("score", error)
    assert result.verdict is Verdict.ERROR
    evidence = Evidence(
        release_id=release_id, manifest_digest=case.manifest.digest, gate="score", config={}, result=result
    )
    for _ in range(2):
        assert quarantine_if_unsafe(world.deployment, evidence)
    assert len(world.events(Kind.VERSION_QUARANTINED)) == 1
    assert len(world.events(Kind.SECURITY_REVIEW_OPENED)) == 1
    finding = refused_attempts(["start a process (clone)"])
    assert finding.verdict is Verdict.FAILED
    assert "start a process" in finding.message


def _evidence(world: World, release_id: str) -> list[Any]:
    return list(read_evidence(world.deployment, open_case(world.deployment, release_id)).values())


def test_the_seal_names_the_digest_of_everything(granted: tuple[World, str]) -> None:
    world, release_id = granted
    promote(world.deployment, release_id)
    seal(world.deployment, release_id)
    (event,) = world.events(Kind.RELEASE_SEALED)
    release = world.release(release_id)
    assert event.data["evidence"] == {line.gate: line.digest for line in release.gates}
    manifest = Manifest.from_bytes(world.deployment.evidence.get(event.data["manifest"]))
    decision = Decision.from_bytes(world.deployment.evidence.get(event.data["decision"]))
    assert manifest.release_id == decision.release_id == release_id


# Adopt


@pytest.fixture
def greenfield() -> Iterator[World]:
    """A deployment whose registry has no champion yet."""
    with fast_folder() as folder:
        yield make_world(folder / "world", champion=None)


@pytest.mark.requirement("R-1")
def test_the_model_in_production_is_adopted_once_and_recorded(greenfield: World) -> None:
    adopt(greenfield.deployment, WORKLOAD, "1", actor="root", reason="in production since 2019")
    assert greenfield.champion == "1"
    (event,) = greenfield.events(Kind.CHAMPION_ADOPTED)
    assert (event.actor, event.version, event.data["reason"]) == ("root", "1", "in production since 2019")
    with pytest.raises(RefusedError, match="already has a champion: version 1"):
        adopt(greenfield.deployment, WORKLOAD, "2", actor="root", reason="I would rather have this one")
    assert greenfield.champion == "1"


@pytest.mark.requirement("R-1", "R-5")
@pytest.mark.parametrize(
    ("version", "reason", "error", "words"),
    [
        ("1", "  ", RefusedError, "no reason is given"),
        ("99", "because", NotFoundError, "version 99"),
        ("2", "because", RefusedError, "quarantined"),
    ],
)
def test_what_cannot_be_adopted(
    greenfield: World, version: str, reason: str, error: type[AirlockError], words: str
) -> None:
    greenfield.registry.quarantine(WORKLOAD, "2", "a pickle that runs a command")
    with pytest.raises(error, match=words):
        adopt(greenfield.deployment, WORKLOAD, version, actor="root", reason=reason)
    assert greenfield.champion is None
    assert greenfield.events(Kind.CHAMPION_ADOPTED) == []
    assert greenfield.registry.models[WORKLOAD]["2"].tags["airlock.state"] == "quarantined"


@pytest.mark.requirement("R-1")
def test_an_adoption_whose_registry_failed_can_be_tried_again(greenfield: World) -> None:
    greenfield.registry.fail_at(3)
    for attempt in range(2):
        try:
            adopt(greenfield.deployment, WORKLOAD, "1", actor="root", reason="in production")
        except UnavailableError:
            assert attempt == 0
    assert greenfield.champion == "1"
    assert len(greenfield.events(Kind.CHAMPION_ADOPTED)) == 1


# Task outcomes


def task(name: str = "score", **changes: Any) -> TaskRef:
    values = {
        "dag_id": f"release__{WORKLOAD}",
        "run_id": "run-1",
        "task_id": name,
        "map_index": -1,
        "try_number": 1,
        "release_id": "loan-model-v2-00000000",
        "workload": WORKLOAD,
        "version": "2",
    }
    return TaskRef(**{**values, **changes})


def outcomes(world: World) -> list[tuple[str, str, str]]:
    return [
        (event.data["task_id"], event.data["state"], event.data["source"])
        for event in world.events(Kind.TASK_OUTCOME)
    ]


@pytest.mark.requirement("E-1")
def test_reconciliation_adds_only_what_is_missing(world: World) -> None:
    record_start(world.deployment, task())
    record_start(world.deployment, task())
    assert record_outcome(world.deployment, task(), "success", source="operator")
    assert not record_outcome(world.deployment, task(), "success", source="listener")
    states = [
        (task(), "success"),
        (task("gates.bias"), "upstream_failed"),
        (task("seat", map_index=0), "skipped"),
        (task("seat", map_index=1), "skipped"),
    ]
    assert reconcile(world.deployment, states) == 3
    assert reconcile(world.deployment, states) == 0
    assert outcomes(world) == [
        ("score", "success", "operator"),
        ("gates.bias", "upstream_failed", "reconciled"),
        ("seat", "skipped", "reconciled"),
        ("seat", "skipped", "reconciled"),
    ]
    assert len(world.events(Kind.TASK_STARTED)) == 1


@pytest.mark.requirement("E-1")
def test_a_state_set_by_hand_and_every_try_stand_beside_each_other(world: World) -> None:
    record_outcome(world.deployment, task(), "up_for_retry", source="operator", error="boom")
    record_outcome(world.deployment, task(try_number=2), "success", source="operator")
    record_outcome(world.deployment, task(try_number=2), "failed", source="by hand", actor="petra")
    assert [found[1:] for found in outcomes(world)] == [
        ("up_for_retry", "operator"),
        ("success", "operator"),
        ("failed", "by hand"),
    ]
    assert world.events(Kind.TASK_OUTCOME)[-1].actor == "petra"


@pytest.mark.requirement("E-1")
@pytest.mark.parametrize("error", ["a\0b", "a\ud800b", "\udcff", "x" * 100_000, "\U0001f600" * 20_000])
def test_an_outcome_is_recorded_whatever_its_error_says(world: World, error: str) -> None:
    assert record_outcome(world.deployment, task(), "failed", source="operator", error=error)
    assert outcomes(world) == [("score", "failed", "operator")]


@pytest.mark.requirement("E-1")
def test_two_sources_in_the_same_moment_leave_one_outcome(world: World) -> None:
    barrier = threading.Barrier(4)

    def record(source: str) -> bool:
        barrier.wait()
        return record_outcome(world.deployment, task(), "failed", source=source)

    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(record, ["operator", "listener", "reconciled", "by hand"]))
    assert new.count(True) == 1
    assert len(outcomes(world)) == 1


# Laws


USERS = ["dana", "petra", "grace", "ravi", "omar", "vera", "mallory", ""]
ROLES = ["governance-analyst", "risk-officer", "ml-platform-engineer", "other-role"]
DIGESTS = st.sampled_from(["a" * 64, "b" * 64])
ANSWERS = st.builds(
    Answer,
    release_id=st.sampled_from(["r", "r", "r", "other"]),
    seat=st.integers(-1, 3),
    user=st.sampled_from(USERS),
    role=st.sampled_from(ROLES),
    choice=st.sampled_from(["approve", "approve", "approve", "reject"]),
    comment=st.just("because it is so"),
    manifest_digest=DIGESTS,
    evidence_digest=DIGESTS,
    policy_digest=DIGESTS,
)


def pending(roles: list[str]) -> Decision:
    return Decision(
        release_id="r",
        outcome=Outcome.PENDING,
        track=Track.RED,
        tier=Tier.LOW,
        reasons=[],
        as_of=TODAY,
        seats=[AskedSeat(role=role, reason="x") for role in roles],
        manifest_digest="a" * 64,
        evidence={},
        policy_version="1.0.0",
        policy_digest="a" * 64,
    )


def fitting(answers: list[Answer], decision: Decision) -> list[Answer]:
    """Answers bound to the decision's own digests where they carry the first one, so that some count."""
    return [
        given.model_copy(update={"evidence_digest": decision.evidence_digest})
        if given.evidence_digest == "a" * 64
        else given
        for given in answers
    ]


@pytest.mark.requirement("A-1", "A-2", "A-7")
@settings(max_examples=400, deadline=None)
@given(
    answers=st.lists(ANSWERS, max_size=12),
    roles=st.lists(st.sampled_from(ROLES), min_size=1, max_size=3),
    submitter=st.sampled_from(USERS[:5]),
    held=st.dictionaries(
        st.sampled_from(USERS[:7]), st.lists(st.sampled_from(ROLES), unique=True), min_size=1
    ),
)
def test_no_sequence_of_answers_grants_without_a_distinct_holder_for_each_seat(
    answers: list[Answer], roles: list[str], submitter: str, held: dict[str, list[str]]
) -> None:
    people = People.model_validate(
        {"people": [{"user": user, "name": user, "roles": own} for user, own in held.items()]}
    )
    decision = pending(roles)
    panel = Panel(people=people, barred={submitter: "submitted it"})
    quorum = tally(fitting(answers, decision), decision=decision, panel=panel)
    assert len(set(quorum.filled.values())) == len(quorum.filled), "one person, one seat"
    for seat, user in quorum.filled.items():
        assert roles[seat] in held[user]
        assert user != submitter
    if quorum.state is QuorumState.GRANTED:
        assert set(quorum.filled) == set(range(len(roles)))
    assert (quorum.state is QuorumState.GRANTED) <= (not quorum.rejected_by)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("answer"),
            st.sampled_from(USERS[:7]),
            st.integers(0, 1),
            st.sampled_from(["approve", "approve", "reject"]),
        ),
        st.tuples(
            st.just("roles"), st.sampled_from(["grace", "ravi", "omar"]), st.integers(0, 1), st.just("")
        ),
        st.tuples(st.just("promote"), st.just(""), st.just(0), st.just("")),
    ),
    min_size=1,
    max_size=10,
)
_ROLES_OF = {person["user"]: person.get("roles", []) for person in PEOPLE["people"]}


@pytest.mark.requirement("A-1", "A-2", "R-1")
@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_sequence_of_people_and_roles_promotes_without_two_holders(
    templates: Callable[[str, Build], tuple[World, str]], steps: list[tuple[str, str, int, str]]
) -> None:
    template, release_id = templates("judged by omar", lambda world: world.judged(user="omar"))
    with fast_folder() as folder:
        world = template.copy(folder / "copy")
        roles = {user: list(held) for user, held in _ROLES_OF.items()}
        for what, user, number, choice in steps:
            try:
                if what == "answer":
                    world.answer(release_id, user, number, choice)
                elif what == "roles":
                    roles[user] = list(_ROLES_OF[user]) if number else []
                    people = [{**person, "roles": roles[person["user"]]} for person in PEOPLE["people"]]
                    (world.config / "people.yaml").write_text(str({"people": people}))
                else:
                    promote(world.deployment, release_id)
                    accepted = world.release(release_id).answers
                    by_seat = {
                        seat: next(given for given in accepted if given.seat == seat and _holds(given, roles))
                        for seat in (0, 1)
                    }
                    assert {given.choice for given in by_seat.values()} == {"approve"}
                    assert len({given.user for given in by_seat.values()}) == 2
                    assert "omar" not in {given.user for given in by_seat.values()}
                    return
            except (RefusedError, ConflictError):
                assert world.champion == "1"


def _holds(given: Answer, roles: dict[str, list[str]]) -> bool:
    return given.role in roles[given.user]


def test_a_copied_world_is_the_same_world(judged: tuple[World, str]) -> None:
    """The tests above rest on it."""
    world, release_id = judged
    with fast_folder() as folder:
        other = world.copy(folder / "copy")
        assert other.release(release_id).events == world.release(release_id).events
        other.answer(release_id, "grace")
        assert world.release(release_id).answers == []
        assert open_world(other.root).deployment.audit.events() == other.deployment.audit.events()
