"""The review page and the page of a gate, as plain data; REST gives the same data as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airlock.core.approvals import Answer, QuorumState
from airlock.core.audit import Kind
from airlock.core.dates import due_words
from airlock.core.errors import NotFoundError
from airlock.core.release import State
from airlock.gates import gate_names, gate_text
from airlock.services.announce import outcome_sentence
from airlock.services.approve import own_objection
from airlock.services.ask import Question, questions_of
from airlock.services.blocked import STOPPED, explain
from airlock.services.one_moment import at_one_moment
from airlock.services.overview import reading
from airlock.services.past import comments_on, earlier_releases, trends
from airlock.services.releases import (
    deadline_us,
    open_case,
    panel_for,
    quorum_of,
    read_decision,
    read_evidence,
)
from airlock.services.waivers import list_waivers
from airlock.services.watch import pending_gates
from airlock.web import sections
from airlock.web.lists import DAG_PREFIX, stands, waiver_data
from airlock.web.rendering import airflow_run

if TYPE_CHECKING:
    from airlock.core.decision import Decision
    from airlock.core.release import Release
    from airlock.core.rules import Reason
    from airlock.services.releases import Case
    from airlock.web.access import Visitor

Data = dict[str, Any]

RUN_WINDOW = 1000
"""Newest releases of a workload among which the one of a run is looked for."""


def review(visitor: Visitor, release_id: str) -> Data:
    """Everything an approver needs about one release (requirement A-4), read from audit and evidence."""
    visitor = replace(visitor, deployment=at_one_moment(visitor.deployment))
    deployment = visitor.deployment
    release = visitor.release(release_id)
    state, why = outcome_sentence(deployment, release)
    page = _head(visitor, release, state, why)
    if release.first(Kind.RELEASE_FROZEN) is None:
        if state in STOPPED:
            page["blocked"] = explain(release, state, why).to_data()
        return page
    case = open_case(deployment, release_id)
    evidence = read_evidence(deployment, case)
    decision = read_decision(deployment, release)
    with reading(deployment) as overview:
        earlier = earlier_releases(overview, release)
        past = trends(deployment, overview, earlier)
    champion = case.manifest.champion
    page |= {
        "title": case.workload.title,
        "champion": None if champion is None else champion.version,
        "glance": sections.glance(evidence),
        "changes": sections.changes(case, evidence),
        "flips": sections.flips(evidence),
        "groups": sections.groups(evidence),
        "explanation": sections.explanation(deployment.evidence, evidence),
        "gates": sections.gates(evidence, past),
        "pending": pending_gates(deployment, release),
        "questions": _questionnaire(case),
        "waivers": _waivers(visitor, case, decision),
        "earlier": _earlier(visitor, release, earlier),
        "digests": {
            "manifest": case.manifest.digest,
            "artifact": case.manifest.candidate.sha256,
            "policy": case.manifest.policy_digest,
        },
        "policy_version": case.manifest.policy_version,
    }
    if decision is not None:
        page["decision"] = _decision(decision)
        page["seats"] = _seats(visitor, release, decision, state)
        page["deadline_us"] = deadline_us(release)
        page["condition_days"] = case.policy.approval.condition_days
    if state in STOPPED:
        page["blocked"] = explain(
            release, state, why, case=case, evidence=evidence, decision=decision
        ).to_data()
    return page


def _head(visitor: Visitor, release: Release, state: State, why: str) -> Data:
    """What is known from the moment of submission, and an empty place for everything else."""
    return {
        "now_us": visitor.deployment.clock.now_us(),
        "release": release.release_id,
        "workload": release.workload,
        "title": release.workload,
        "version": release.version,
        "submitter": release.submitter,
        "submitted_us": release.submitted_us,
        "context": release.context,
        "batch": release.batch,
        "state": str(state),
        "why": why,
        "run": airflow_run(release.dag_id, release.run_id),
        "run_id": release.run_id,
        "champion": None,
        "decision": None,
        "blocked": None,
        "flips": None,
        "explanation": None,
        **{name: [] for name in ("glance", "changes", "groups", "gates", "pending", "seats", "questions")},
        **{name: [] for name in ("waivers", "earlier")},
        "asked": [_asked(question) for question in questions_of(release)],
        "may_ask": visitor.person is not None and visitor.person.active,
        "answers": [answer.to_data() for answer in release.answers],
        "viewer": visitor.name,
    }


def _asked(question: Question) -> Data:
    """A question of an approver, with what was answered to it."""
    return {
        "id": question.question_id,
        "seat": question.seat + 1,
        "user": question.user,
        "text": question.text,
        "at_us": question.asked_us,
        "answers": [{"user": user, "text": text, "at_us": at_us} for user, text, at_us in question.answers],
    }


def gate_page(visitor: Visitor, release_id: str, gate: str) -> Data:
    """One gate of a release with all its numbers, their past, and its files.

    Raises:
        NotFoundError: the gate has not answered for this release.
    """
    visitor = replace(visitor, deployment=at_one_moment(visitor.deployment))
    deployment = visitor.deployment
    release = visitor.release(release_id)
    line = next((line for line in release.gates if line.gate == gate), None)
    if line is None:
        raise NotFoundError(f"gate {gate[:60]} has no answer for {release_id}", fix="see the release")
    case = open_case(deployment, release_id)
    record = read_evidence(deployment, case)[gate]
    with reading(deployment) as overview:
        past = trends(deployment, overview, earlier_releases(overview, release))
    return {
        "release": release_id,
        "title": case.workload.title,
        "workload": release.workload,
        "version": release.version,
        "text": _gate_text(gate),
        "gate": sections.gate(record, past, digest=line.digest),
        "viewer": visitor.name,
    }


def _gate_text(gate: str) -> Data | None:
    """Why a gate matters, what good looks like and how to fix it; ``None`` for what is no gate."""
    if gate not in gate_names():
        return None
    text = gate_text(gate)
    return {"title": text.title, "why": text.why, "good": text.good, "fix": text.fix}


def _questionnaire(case: Case) -> list[Data]:
    """The questions of the policy that were asked or answered, with the answers."""
    answers, asked = case.manifest.answers, set(case.manifest.asked)
    return [
        {
            "question": question.text,
            "why": question.why,
            "answer": answers.get(question.id),
            "asked": question.id in asked,
        }
        for question in case.policy.interview
        if question.id in answers or question.id in asked
    ]


def _waivers(visitor: Visitor, case: Case, decision: Decision | None) -> list[Data]:
    """Waivers that the release rests on, and those of its workload that are in force or asked for."""
    now = visitor.deployment.clock.now_us()
    rests = set() if decision is None else set(decision.waivers)
    return [
        {**waiver_data(one, now), "rests": one.waiver_id in rests}
        for one in list_waivers(visitor.deployment, case.workload.name)
        if one.waiver_id in rests or stands(one.state(now))
    ]


def _earlier(visitor: Visitor, release: Release, rows: list[Data]) -> list[Data]:
    """The releases before this one, with what people wrote about them."""
    said = comments_on(visitor.deployment, release.workload, rows)
    return [{**row, "comments": said.get(row["release_id"], [])} for row in rows]


def release_of_run(visitor: Visitor, dag_id: str, run_id: str) -> str:
    """Id of the release that a DAG run opened.

    Raises:
        NotFoundError: that run opened none, or this user may not see it.
    """
    if visitor.may_read(dag_id):
        deployment = visitor.deployment
        workload = dag_id.removeprefix(DAG_PREFIX)
        for entry in deployment.audit.events(
            workload=workload, kinds=[Kind.RELEASE_SUBMITTED], newest_first=True, limit=RUN_WINDOW
        ):
            data = entry.event.data
            if (data["dag_id"], data["run_id"]) == (dag_id, run_id):
                return entry.event.release_id
    raise NotFoundError(
        f"run {run_id} of {dag_id} opened no release",
        fix="a release begins when the task `submit` of the run has ended",
    )


def _weight(reason: Reason) -> int:
    return ("deny", "track", "seats", "warn", "tier").index(reason.effect.split()[0])


def _decision(decision: Decision) -> Data:
    data = decision.to_data()
    data["sentence"] = decision.sentence
    fired = [reason for reason in decision.reasons if reason.fired]
    # What asks for people first; how risky the use is was known before this release.
    data["ordered"] = [
        {**reason.to_data(), "tiered": reason.effect.startswith("tier")}
        for reason in sorted(fired, key=_weight)
    ]
    data["evidence_digest"] = decision.evidence_digest
    return data


def _seats(visitor: Visitor, release: Release, decision: Decision, state: State) -> list[Data]:
    """Each seat: who fills it, who may, and whether the one who looks may."""
    quorum = quorum_of(visitor.deployment, release, decision)
    panel = panel_for(visitor.deployment, release)
    given: dict[int, Answer] = {answer.seat: answer for answer in release.answers}
    seats = []
    for index, seat in enumerate(decision.seats):
        answer = given.get(index)
        filled = quorum.filled.get(index)
        problem, acts_for = "" if state is State.WAITING and filled is None else "closed", ""
        if not problem:
            problem, acts_for = own_objection(visitor.deployment, release, decision, index, visitor.name)
        seats.append(
            {
                "number": index + 1,
                "role": seat.role,
                "reason": seat.reason,
                "filled_by": answer.who if answer and filled else filled,
                "condition": answer.condition if answer and filled else "",
                "condition_until": due_words(answer.condition_until_us)
                if answer and answer.condition
                else "",
                "rejected_by": quorum.rejected_by if answer and answer.user == quorum.rejected_by else "",
                "comment": answer.comment if answer else "",
                "eligible": [person.name for person in panel.eligible(seat.role)],
                "may_answer": not problem,
                "problem": problem,
                "acts_for": acts_for,
            }
        )
    if quorum.state is QuorumState.GRANTED:
        return [{**seat, "may_answer": False} for seat in seats]
    return seats
