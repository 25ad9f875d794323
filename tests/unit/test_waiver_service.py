"""Waivers from request to end: who may ask, answer and take back, and what depends on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airlock.core.audit import Kind
from airlock.core.dates import end_of_day
from airlock.core.decision import Outcome
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.evidence import Verdict
from airlock.core.policy import Track
from airlock.core.waiver import WaiverRequest, WaiverState
from airlock.services import waivers
from airlock.services.announce import announce, outcome_sentence, seal
from airlock.services.approve import EXPIRED, GRANTED, OPEN, REJECTED, seat_request
from airlock.services.decide import decide
from airlock.services.describe import approval_text
from airlock.services.promote import promote
from airlock.services.questions import waived
from airlock.services.releases import open_case, read_evidence
from airlock.services.requests import refusal_of, request_id_for
from airlock.services.score import score
from tests.support.deployments import (
    WORKLOAD,
    Killed,
    World,
    edit,
    fast_folder,
    make_world,
    policy_data,
    write_yaml,
)

REASON = "Names of applicants stay in the file until the March delivery."
GATES = ("documentation", "performance", "privacy")
DAYS = 24


@pytest.fixture(scope="module")
def pristine() -> Iterator[World]:
    with fast_folder() as folder:
        world = make_world(folder / "0")
        write_yaml(world.policy_file, policy_data(GATES))
        yield world


@pytest.fixture
def world(pristine: World) -> Iterator[World]:
    with fast_folder() as folder:
        yield pristine.copy(folder / "1")


def ask(world: World, *, run: str = "w1", user: str = "dana", **changes: Any) -> WaiverRequest:
    dag_id = "airlock__waiver"
    values: dict[str, Any] = {
        "waiver_id": request_id_for("waiver", world.deployment.settings.deployment, dag_id, run),
        "workload_name": WORKLOAD,
        "rule": "gate-privacy",
        "versions": ">=2,<4",
        "until": "2026-03-01",
        "reason": REASON,
        "requester": user,
        "dag_id": dag_id,
        "run_id": run,
    }
    return waivers.request_waiver(world.deployment, **{**values, **changes})


def grant(world: World, request: WaiverRequest, user: str = "gita", choice: str = "approve") -> WaiverRequest:
    world.asked += 1
    return waivers.answer(
        world.deployment,
        request.waiver_id,
        0,
        user=user,
        choice=choice,
        comment="Agreed with the data office.",
        when=str(world.asked),
    )


def granted(world: World, **kwargs: Any) -> WaiverRequest:
    return grant(world, ask(world, **kwargs))


def blocked(world: World, run: str = "run-1", **kwargs: Any) -> str:
    return world.judged(run=run, track="green", verdicts={"privacy": Verdict.FAILED}, **kwargs)


def state(world: World, waiver_id: str) -> WaiverState:
    return waivers.find_waiver(world.deployment, waiver_id).state(world.clock.now_us())


# The case of the requirement, in one sitting


@pytest.mark.requirement("T-9", "A-8", "E-3")
def test_personal_data_is_a_question_with_an_owner(world: World) -> None:
    """From block to governed exception: blocked, asked, granted, released by a person, and on record."""
    first = blocked(world)
    assert world.decision(first).outcome is Outcome.DENY
    seal(world.deployment, first)

    request = ask(world)
    assert waivers.standing(world.deployment, request.waiver_id).state == OPEN
    question = waivers.question(world.deployment, request.waiver_id, 0)
    assert [person.user for person in question.eligible] == ["gita"]
    for words in ("dana", "gate-privacy", "2026-03-01", "March delivery"):
        assert words in question.subject + question.body
    grant(world, request)
    assert waivers.standing(world.deployment, request.waiver_id).state == GRANTED

    again = blocked(world, run="run-2")
    decision = world.decision(again)
    assert (decision.outcome, decision.track) == (Outcome.PENDING, Track.YELLOW)
    _, text = approval_text(world.deployment, seat_request(world.deployment, again, 0))
    assert f"(**waived** by {request.waiver_id})" in text
    assert "**FAILED** | privacy" in text
    with pytest.raises(RefusedError, match="holds no approval"):
        promote(world.deployment, again)
    world.answer(again, "petra")
    promote(world.deployment, again)
    announce(world.deployment, again)
    seal(world.deployment, again)
    assert world.champion == "2"
    state_now, sentence = outcome_sentence(world.deployment, world.release(again))
    assert state_now == "promoted"
    assert request.waiver_id in sentence
    assert world.events(Kind.RELEASE_DECIDED, again)[0].data["waivers"] == [request.waiver_id]


def test_scoring_goes_on_past_a_waived_gate_and_past_no_other(world: World) -> None:
    release_id = world.frozen()
    world.evidence(release_id, verdicts={"privacy": Verdict.FAILED, "score": None})
    with pytest.raises(RefusedError, match="gate privacy says FAILED"):
        score(world.deployment, release_id)
    case = open_case(world.deployment, release_id)
    record = read_evidence(world.deployment, case)["privacy"]
    assert waivers.waivers_for(world.deployment, record) == []
    request = granted(world)
    (said,) = waivers.waivers_for(world.deployment, record)
    assert request.waiver_id in said
    # The batch of these tests is no table: that it is opened at all says that the gates are passed.
    with pytest.raises(Exception, match="not a parquet file"):
        score(world.deployment, release_id)


# Asking


@pytest.mark.requirement("A-8")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "gate-security"}, "no denying rule or gate"),
        ({"rule": "gate-nothing"}, "no denying rule or gate"),
        ({"rule": "track-red"}, "no denying rule or gate"),
        ({"rule": "gate privacy; --"}, "is no rule"),
        ({"versions": "latest"}, "is no version range"),
        ({"versions": ""}, "is no version range"),
        ({"until": "soon"}, "is no date"),
        ({"until": "9999-12-31"}, "at most 90 days"),
        ({"until": "2025-12-30"}, "over before it begins"),
        ({"reason": "please"}, "at least 20 characters"),
        ({"reason": " " * 50}, "at least 20 characters"),
        ({"reason": "x" * 4001}, "the limit is 4000"),
        ({"reason": "\ud800" + REASON}, "cannot be recorded"),
        ({"requester": ""}, "nobody is known as the requester"),
    ],
)
def test_a_request_that_cannot_be_granted_is_refused_and_recorded(
    world: World, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        ask(world, **changes)
    (refused,) = world.events(Kind.REQUEST_REFUSED)
    assert words in refused.data["problem"]
    assert refusal_of(world.deployment, refused.data["request"])[1] == refused.data["problem"]
    assert waivers.list_waivers(world.deployment) == []


def test_what_the_policy_does_not_list_cannot_be_waived(world: World) -> None:
    edit(world.policy_file, "  - gate-privacy\n", "")
    with pytest.raises(RefusedError, match="gate-privacy cannot be waived under policy"):
        ask(world)


def test_a_repeated_request_is_the_same_request(world: World) -> None:
    first = ask(world)
    world.clock.advance(hours=1)
    assert ask(world) == first
    assert ask(world, reason="Another reason, twenty characters long.") == first
    assert len(waivers.list_waivers(world.deployment)) == 1
    with pytest.raises(NotFoundError):
        ask(world, run="w2", workload_name="unknown")


@pytest.mark.parametrize("day", ["", "2026-02-30", "0000-01-01", "2026-3-1x", "1e9"])
def test_what_is_no_day_is_refused(day: str) -> None:
    with pytest.raises(InvalidInputError, match="is no date"):
        end_of_day(day)


# Answering


@pytest.mark.requirement("A-2", "A-8")
@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("dana", "asked for this waiver and cannot approve"),
        ("ravi", "does not hold the role data-governance"),
        ("vera", "does not hold the role"),
        ("nobody", "holds no governance role"),
    ],
)
def test_only_the_owner_answers_and_never_who_asked(world: World, user: str, words: str) -> None:
    request = ask(world)
    world.set_roles("dana", ["data-governance"])
    with pytest.raises(RefusedError, match=words):
        grant(world, request, user)
    assert world.events(Kind.REQUEST_REFUSED)[0].actor == user
    assert state(world, request.waiver_id) is WaiverState.ASKED


@pytest.mark.requirement("A-2", "A-8")
def test_who_submitted_the_release_cannot_waive_its_rule(world: World) -> None:
    blocked(world, user="gita")
    request = ask(world)
    with pytest.raises(RefusedError, match="submitted a release that this waiver is for"):
        grant(world, request)
    with pytest.raises(RefusedError, match="nobody may answer as data-governance"):
        waivers.question(world.deployment, request.waiver_id, 0)
    other = ask(world, run="w2", versions="3")
    granted_one = grant(world, other)
    later = blocked(world, version="3", run="run-3", user="gita")
    assert granted_one.granted is not None
    assert world.decision(later).outcome is Outcome.DENY, "who granted it cannot rest on it"


def test_the_first_answer_stands(world: World) -> None:
    request = granted(world)
    assert grant(world, request).granted == request.granted
    world.set_roles("ravi", ["data-governance"])
    with pytest.raises(RefusedError, match="gita has already answered"):
        grant(world, request, "ravi", "reject")
    with pytest.raises(RefusedError, match="someone else"):
        grant(world, request, "gita", "reject")
    assert state(world, request.waiver_id) is WaiverState.ACTIVE


@pytest.mark.requirement("A-5", "A-6", "A-8")
def test_a_rejection_explains_itself_and_silence_grants_nothing(world: World) -> None:
    request = ask(world)
    with pytest.raises(RefusedError, match="at least 10 characters"):
        waivers.answer(
            world.deployment, request.waiver_id, 0, user="gita", choice="reject", comment="no", when="1"
        )
    grant(world, request, choice="reject")
    standing = waivers.standing(world.deployment, request.waiver_id)
    assert (standing.state, standing.feedback) == (REJECTED, "Agreed with the data office.")
    silent = ask(world, run="w2")
    world.clock.advance(hours=72)
    assert waivers.standing(world.deployment, silent.waiver_id).state == EXPIRED
    with pytest.raises(RefusedError, match="the time to answer is over"):
        grant(world, silent)
    with pytest.raises(RefusedError, match="time to answer is over"):
        waivers.question(world.deployment, silent.waiver_id, 0)
    assert world.decision(blocked(world)).outcome is Outcome.DENY


@pytest.mark.requirement("E-5", "A-8")
def test_what_people_wrote_about_a_waiver_is_not_in_the_log_in_clear(world: World) -> None:
    granted(world)
    raw = (world.deployment.settings.home / "audit.db").read_bytes()
    assert b"March delivery" not in raw
    assert b"data office" not in raw


# Taking back and ending


@pytest.mark.requirement("A-8")
def test_a_waiver_is_taken_back_by_its_owner_or_requester_with_a_reason(world: World) -> None:
    request = granted(world)
    for user, reason, words in (
        ("ravi", "I do not like this one.", "does not hold the role"),
        ("gita", "no", "at least 10"),
    ):
        with pytest.raises(RefusedError, match=words):
            waivers.revoke(world.deployment, request.waiver_id, user=user, reason=reason, when="1")
    done = waivers.revoke(
        world.deployment, request.waiver_id, user="dana", reason="The names are gone now.", when="2"
    )
    assert done.state(world.clock.now_us()) is WaiverState.REVOKED
    again = waivers.revoke(world.deployment, request.waiver_id, user="gita", reason="Late reason.", when="3")
    assert again == done
    assert world.decision(blocked(world)).outcome is Outcome.DENY


@pytest.mark.requirement("A-7", "A-8")
@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_waiver_that_ends_before_promotion_stops_it(world: World, end: str) -> None:
    request = granted(world, until="2026-01-01")
    release_id = blocked(world)
    world.answer(release_id, "petra")
    if end == "revoked":
        waivers.revoke(world.deployment, request.waiver_id, user="gita", reason="It was a mistake.", when="1")
    else:
        world.clock.advance(hours=24)
    with pytest.raises(RefusedError, match=f"waiver {request.waiver_id} is {end}"):
        promote(world.deployment, release_id)
    assert world.champion == "1"


def test_a_decision_that_claims_a_waiver_nobody_granted_is_not_promoted(world: World) -> None:
    request = granted(world)
    release_id = blocked(world)
    world.answer(release_id, "petra")
    decision = world.decision(release_id)
    forged = decision.model_copy(
        update={"waivers": {"waiver-0000000000": decision.waivers[request.waiver_id]}}
    )
    assert waivers.resting_on(world.deployment, forged, WORKLOAD) == []
    other = decision.model_copy(update={"waivers": {request.waiver_id: "0" * 64}})
    assert waivers.resting_on(world.deployment, other, WORKLOAD) == []


def in_production(world: World) -> tuple[WaiverRequest, str]:
    request = granted(world)
    release_id = blocked(world)
    world.answer(release_id, "petra")
    promote(world.deployment, release_id)
    return request, release_id


@pytest.mark.requirement("A-8", "M-4")
def test_the_end_is_warned_about_once_and_reopens_what_rests_on_it(world: World) -> None:
    request, release_id = in_production(world)
    assert waivers.review(world.deployment) == []
    world.clock.advance(hours=46 * DAYS)
    (warning,) = waivers.review(world.deployment)
    assert "ends on 2026-03-01" in warning
    assert waivers.review(world.deployment) == [], "said once"
    assert waivers.reopened(world.deployment) == []
    world.clock.advance(hours=15 * DAYS)
    ended, opened = waivers.review(world.deployment)
    assert "is expired" in ended
    assert "renew the waiver, or release a version without it" in opened
    assert waivers.review(world.deployment) == []
    (found,) = waivers.reopened(world.deployment)
    assert (found.release_id, found.waiver_id, found.state) == (release_id, request.waiver_id, "expired")
    (event,) = world.events(Kind.RELEASE_REOPENED)
    assert (event.release_id, event.version, event.data["waiver"]) == (release_id, "2", request.waiver_id)
    renewed = granted(world, run="w2", until="2026-05-01")
    assert waivers.reopened(world.deployment) == [], renewed


@pytest.mark.requirement("A-8")
def test_a_new_champion_without_a_waiver_closes_what_was_reopened(world: World) -> None:
    request, _ = in_production(world)
    waivers.revoke(
        world.deployment, request.waiver_id, user="gita", reason="Consent was withdrawn.", when="1"
    )
    assert len(waivers.review(world.deployment)) == 2
    assert len(waivers.reopened(world.deployment)) == 1
    clean = world.judged("3", track="green", run="run-9")
    promote(world.deployment, clean)
    assert waivers.reopened(world.deployment) == []


def test_a_review_that_is_killed_anywhere_is_finished_by_the_next(world: World) -> None:
    in_production(world)
    world.clock.advance(hours=100 * DAYS)
    killed = 0
    while killed < 60:
        killed += 1
        world.failpoints.stop_at(killed, Killed())
        try:
            waivers.review(world.watched())
            break
        except Killed:
            continue
    assert len(world.events(Kind.WAIVER_ENDED)) == 1
    assert len(world.events(Kind.RELEASE_REOPENED)) == 1
    assert decide(world.deployment, world.events(Kind.RELEASE_REOPENED)[0].release_id).waivers


# The auditor's question


@pytest.mark.requirement("E-4", "A-8")
def test_which_rule_was_waived_and_by_whom_is_answered_from_the_events(world: World) -> None:
    given = granted(world)
    refused = grant(world, ask(world, run="w2", rule="gate-privacy:personal-data"), choice="reject")
    release_id = blocked(world)
    answer = waived(world.deployment)
    assert [(one.rule, one.choice) for one in answer.waivers] == [
        ("gate-privacy:personal-data", "rejected"),
        ("gate-privacy", "granted"),
    ]
    found = answer.waivers[1]
    assert (found.waiver_id, found.asked_by, found.answered_by) == (given.waiver_id, "dana", "gita")
    assert (found.reason, found.comment) == (REASON, "Agreed with the data office.")
    assert [use.release_id for use in found.uses] == [release_id]
    assert not answer.waivers[0].uses
    assert not answer.cut
    assert (
        waived(world.deployment, rule="gate-privacy:personal-data").waivers[0].waiver_id == refused.waiver_id
    )
    assert waived(world.deployment, workload="other").waivers == ()
    assert waived(world.deployment, until_us=found.asked_us).waivers == ()
