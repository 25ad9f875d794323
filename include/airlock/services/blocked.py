"""Why was I blocked? What stopped a release, how to fix each part, and how to try again (requirement U-5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airlock.adapters.airflow_api import AirflowClient
from airlock.core.approvals import Answer
from airlock.core.audit import Kind
from airlock.core.base import Value
from airlock.core.decision import Decision
from airlock.core.errors import ConflictError, InvalidInputError
from airlock.core.evidence import Evidence, Finding, Verdict
from airlock.core.policy import Policy, Track
from airlock.core.release import Release, State
from airlock.core.rules import Reason
from airlock.services.announce import outcome_sentence
from airlock.services.deployment import Deployment
from airlock.services.releases import (
    Case,
    find_release,
    open_case,
    read_decision,
    read_evidence,
)
from airlock.services.watch import start_release

STOPPED = (
    State.DENIED,
    State.QUARANTINED,
    State.REJECTED,
    State.EXPIRED,
    State.REFUSED,
    State.FAILED,
)
"""States of a release that ended without going into production."""

_GATE = "gate-"
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Measured(Value):
    """A number that a rule read, and the limit beside it where it has one."""

    name: str
    value: str
    limit: str = ""


class Obstacle(Value):
    """One thing that stopped the release.

    Attributes:
        rule: id of the rule or ``gate-NAME``; empty for what no rule says.
        title: what it is about, in a few words.
        message: what was found.
        fix: how to fix it.
        owner: the role that answers for the rule, to ask.
        values: what was measured, and the limits.
        findings: single findings of a gate, each with its own remedy.
        waiver: the command that asks for a waiver; empty where nobody may give one.
    """

    rule: str
    title: str
    message: str
    fix: str = ""
    owner: str = ""
    values: list[Measured] = []
    findings: list[Finding] = []
    waiver: str = ""


class Feedback(Value):
    """What a person who rejected it asks for."""

    user: str
    role: str
    text: str


class Lighter(Value):
    """What a lighter track would need: each reason why the release is heavier, and its remedy."""

    track: str
    asks: list[str]
    needs: list[Measured]


class Blocked(Value):
    """The whole answer to "why was I blocked?"."""

    release: str
    workload: str
    version: str
    state: str
    sentence: str
    obstacles: list[Obstacle]
    feedback: list[Feedback]
    lighter: list[Lighter]
    command: str


def why_blocked(deployment: Deployment, release_id: str) -> Blocked:
    """What stopped a release.

    Raises:
        NotFoundError: there is no such release.
        ConflictError: nothing stopped it.
        IntegrityError: evidence was changed.
    """
    release = find_release(deployment, release_id)
    state, sentence = outcome_sentence(deployment, release)
    if state not in STOPPED:
        raise ConflictError(
            f"release {release_id} is not stopped: it is {state}", fix="see `airlock release show`"
        )
    if release.first(Kind.RELEASE_FROZEN) is None:
        return explain(release, state, sentence)
    case = open_case(deployment, release_id)
    evidence, decision = read_evidence(deployment, case), read_decision(deployment, release)
    return explain(release, state, sentence, case=case, evidence=evidence, decision=decision)


def explain(
    release: Release,
    state: State,
    sentence: str,
    *,
    case: Case | None = None,
    evidence: Mapping[str, Evidence] | None = None,
    decision: Decision | None = None,
) -> Blocked:
    """The answer from what was read already; the same inputs give the same answer."""
    obstacles = [*_refusals(release, state)]
    if case is not None and decision is not None:
        obstacles += _denials(case, evidence or {}, decision)
    if not obstacles:
        obstacles = [_without_rule(state, sentence)]
    return Blocked(
        release=release.release_id,
        workload=release.workload,
        version=release.version,
        state=str(state),
        sentence=sentence,
        obstacles=obstacles,
        feedback=[_feedback(answer) for answer in release.answers if answer.choice == "reject"],
        lighter=[] if case is None or decision is None else lighter_tracks(case.policy, decision),
        command=f"airlock release again {release.release_id} --version N",
    )


def _feedback(answer: Answer) -> Feedback:
    return Feedback(user=answer.user, role=answer.role, text=answer.comment)


def _refusals(release: Release, state: State) -> Iterator[Obstacle]:
    if state is not State.REFUSED:
        return
    for problem in release.all(Kind.PROMOTION_REFUSED)[-1].data["problems"]:
        yield Obstacle(
            rule="",
            title="Promotion refused",
            message=str(problem),
            fix="what was approved is not what would be promoted; submit it as it is now",
        )


_WITHOUT_RULE = {
    State.EXPIRED: (
        "Nobody answered in time",
        "tell the people who are asked before you submit again; they are named under Who decides",
    ),
    State.REJECTED: ("Rejected", "do what the rejection asks for, then submit again"),
    State.FAILED: (
        "It could not be judged, or its promotion did not end",
        "look at the failed task of its run in Airflow; when the cause is mended, clear it or submit again",
    ),
}


def _without_rule(state: State, sentence: str) -> Obstacle:
    title, fix = _WITHOUT_RULE.get(state, ("Stopped", "submit again when the cause is mended"))
    return Obstacle(rule="", title=title, message=sentence, fix=fix)


def _denials(case: Case, evidence: Mapping[str, Evidence], decision: Decision) -> list[Obstacle]:
    """Denying rules in the order of the decision, gates with all that they found."""
    found = []
    for reason in decision.reasons:
        if not reason.denies:
            continue
        gate = reason.rule.removeprefix(_GATE)
        record = evidence.get(gate) if reason.rule.startswith(_GATE) else None
        findings = [] if record is None else _refusing(record)
        title = f"Gate {gate.replace('_', ' ')}" if record else reason.title or reason.rule
        found.append(
            Obstacle(
                rule=reason.rule,
                title=title,
                message=reason.message,
                fix=reason.fix,
                owner=reason.owner,
                values=measured(reason),
                findings=findings,
                waiver=_waiver_command(case, reason.rule, record),
            )
        )
    return found


def _refusing(record: Evidence) -> list[Finding]:
    return [finding for finding in record.result.findings if not finding.verdict.allows]


def _waiver_command(case: Case, rule: str, record: Evidence | None) -> str:
    if case.policy.waiver_role(rule) is None or (record is not None and record.verdict is Verdict.ERROR):
        return ""
    return (
        f"airlock waiver request {case.workload.name} --rule {rule} "
        f"--version-range {case.release.version} --until DAY --reason WHY"
    )


def measured(reason: Reason) -> list[Measured]:
    """What a rule read, each number with the limit that the reason names for it."""
    limits = {
        name.removeprefix("limit of "): value
        for name, value in reason.facts.items()
        if name.startswith("limit of ")
    }
    return [
        Measured(name=_words(name), value=_text(value), limit=_text(limits[name]) if name in limits else "")
        for name, value in reason.facts.items()
        if not name.startswith("limit of ")
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float) and value != int(value):
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def lighter_tracks(policy: Policy, decision: Decision) -> list[Lighter]:
    """For each track lighter than the one computed, everything that would have to be otherwise.

    Laws: a green release has none; the needs of a lighter track contain those of a heavier one.
    """
    if decision.track is None:
        return []
    order = list(Track)
    place = order.index(decision.track)
    found = []
    for lighter in reversed(order[:place]):
        heavier = {f"track {track}" for track in order[order.index(lighter) + 1 :]}
        needs = [reason for reason in decision.reasons if reason.fired and reason.effect in heavier]
        found.append(
            Lighter(
                track=str(lighter),
                asks=[seat.role for seat in policy.approval.seats[lighter]],
                needs=[
                    Measured(name=reason.message, value=reason.fix or "cannot be changed by a submitter")
                    for reason in needs
                ],
            )
        )
    return found


def submit_again(
    deployment: Deployment,
    client: AirflowClient,
    release_id: str,
    *,
    version: str = "",
    batch: str = "",
    context: str = "",
) -> tuple[str, str]:
    """Submit a release again as the client's user, with what is given and the rest as it was before.

    Returns:
        Id of the new release, and of its DAG run.

    Raises:
        ConflictError: the release was not stopped.
        InvalidInputError: the version is no number of a version.
        RefusedError: Airflow does not let this user submit.
        NotFoundError: the registry has no such version.
    """
    why_blocked(deployment, release_id)
    release = find_release(deployment, release_id)
    chosen = version.strip() or release.version
    if not _VERSION.fullmatch(chosen):
        raise InvalidInputError(f"{chosen[:40]!r} is no version", fix="give the number that MLflow shows")
    workload = deployment.config.workload(release.workload)
    deployment.registry.version(workload.model.registered_model, chosen)
    frozen = release.first(Kind.RELEASE_FROZEN)
    answers = {} if frozen is None else open_case(deployment, release_id).manifest.answers
    return start_release(
        deployment,
        client,
        workload.name,
        version=chosen,
        batch=batch.strip() or release.batch,
        context=context.strip() or release.context,
        answers=answers,
    )
