"""What the pages show, as plain data; REST gives the same data as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airlock.core.approvals import Answer, QuorumState, objection
from airlock.core.audit import Kind
from airlock.core.errors import NotFoundError
from airlock.core.evidence import Evidence, Metric, most_urgent_first
from airlock.core.release import State
from airlock.services.announce import outcome_sentence
from airlock.services.overview import (
    DAY_US,
    Filter,
    count,
    inventory,
    list_page,
    measures,
    open_overview,
    workload_names,
)
from airlock.services.releases import deadline_us, open_case, quorum_of, read_decision, read_evidence
from airlock.services.watch import pending_gates
from airlock.web.rendering import airflow_run

if TYPE_CHECKING:
    from airlock.core.decision import Decision
    from airlock.core.release import Release
    from airlock.web.access import Visitor

Data = dict[str, Any]

DASHBOARD_ROWS = 20
RUN_WINDOW = 1000
"""Newest releases of a workload among which the one of a run is looked for."""

DAG_PREFIX = "release__"


def visible(visitor: Visitor) -> frozenset[str] | None:
    """Workloads the user may see; ``None`` when that is all of them."""
    names = workload_names(visitor.deployment)
    seen = frozenset(name for name in names if f"{DAG_PREFIX}{name}" in visitor.dags)
    return None if len(seen) == len(names) else seen


def dashboard(visitor: Visitor, *, days: int) -> Data:
    """Inventory, what waits, measures and the state of the audit log."""
    deployment, now = visitor.deployment, visitor.deployment.clock.now_us()
    overview = open_overview(deployment)
    seen = Filter(visible=visible(visitor))
    window = Filter(visible=seen.visible, since_us=now - days * DAY_US)
    waiting = Filter(visible=seen.visible, state=str(State.WAITING))
    return {
        "now_us": now,
        "days": days,
        "workloads": [asdict(line) for line in inventory(deployment, overview, seen)],
        "waiting": list_page(overview, waiting, now_us=now, limit=DASHBOARD_ROWS),
        "waiting_count": count(overview, waiting, now_us=now),
        "recent": list_page(overview, seen, now_us=now, limit=DASHBOARD_ROWS),
        "measures": asdict(measures(overview, window, now_us=now)),
        "audit": audit_state(visitor),
    }


def audit_state(visitor: Visitor) -> Data:
    """Size of the log, what waits to be taken into it, and how far each anchor has it."""
    log = visitor.deployment.log
    head, waiting, now = log.head(), log.waiting(), visitor.deployment.clock.now_us()
    return {
        "entries": head.size,
        "root": head.root.hex(),
        "waiting": waiting.count,
        "lag_us": 0 if waiting.since_us is None else max(0, now - waiting.since_us),
        "anchors": [
            {"name": name, "entries": size, "behind": head.size - size}
            for name, size in sorted(log.receipts().items())
        ],
    }


def release_list(visitor: Visitor, wanted: Filter, *, limit: int, offset: int) -> Data:
    """One page of releases."""
    now = visitor.deployment.clock.now_us()
    overview = open_overview(visitor.deployment)
    seen = Filter(**{**asdict(wanted), "visible": visible(visitor)})
    return {
        "now_us": now,
        "releases": list_page(overview, seen, now_us=now, limit=limit, offset=offset),
        "total": count(overview, seen, now_us=now),
        "limit": limit,
        "offset": offset,
    }


def review(visitor: Visitor, release_id: str) -> Data:
    """Everything an approver needs about one release (requirement A-4), read from audit and evidence."""
    deployment = visitor.deployment
    release = visitor.release(release_id)
    state, why = outcome_sentence(deployment, release)
    page: Data = {
        "now_us": deployment.clock.now_us(),
        "release": release_id,
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
        "champion": None,
        "gates": [],
        "pending": [],
        "decision": None,
        "changes": None,
        "seats": [],
        "answers": [answer.to_data() for answer in release.answers],
        "blocked": state in (State.DENIED, State.QUARANTINED, State.REJECTED, State.REFUSED, State.FAILED),
        "viewer": visitor.name,
    }
    if release.first(Kind.RELEASE_FROZEN) is None:
        return page
    case = open_case(deployment, release_id)
    evidence = read_evidence(deployment, case)
    decision = read_decision(deployment, release)
    champion = case.manifest.champion
    page |= {
        "title": case.workload.title,
        "champion": None if champion is None else champion.version,
        "gates": _gates(evidence),
        "pending": pending_gates(deployment, release),
        "changes": _changes(evidence),
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
    return page


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


def _changes(evidence: dict[str, Evidence]) -> Data | None:
    record = evidence.get("score")
    found = None if record is None else record.result.details.get("change")
    return found or None


def _gates(evidence: dict[str, Evidence]) -> list[Data]:
    """Each gate with its numbers, those with something to say first."""
    return [
        {
            "gate": record.gate,
            "verdict": str(record.verdict),
            "summary": record.result.summary,
            "findings": [finding.to_data() for finding in record.result.findings],
            "limited": [_metric(metric) for metric in record.result.metrics if metric.threshold is not None],
            "others": [_metric(metric) for metric in record.result.metrics if metric.threshold is None],
            "files": sorted(record.result.files),
        }
        for record in most_urgent_first(evidence.values())
    ]


def _metric(metric: Metric) -> Data:
    low, high = metric.interval or (None, None)
    return {
        "name": metric.name,
        "where": metric.where,
        "value": metric.value,
        "lower": low,
        "upper": high,
        "threshold": metric.threshold,
        "direction": metric.direction,
        "unit": metric.unit,
        "n": metric.n,
        "engine": metric.engine,
        "plot": _plot(metric),
    }


_WIDTH = 120.0


def _plot(metric: Metric) -> Data | None:
    """Where value, interval and limit stand on a line of ``_WIDTH`` units."""
    if metric.value is None or metric.threshold is None:
        return None
    low, high = metric.interval or (metric.value, metric.value)
    points = (metric.value, low, high, metric.threshold)
    start, end = min(points), max(points)
    room = (end - start) * 0.15 or abs(end) * 0.1 or 1.0
    start, end = start - room, end + room

    def at(value: float) -> float:
        return round(_WIDTH * (value - start) / (end - start), 1)

    return {"value": at(metric.value), "low": at(low), "high": at(high), "limit": at(metric.threshold)}


def _decision(decision: Decision) -> Data:
    data = decision.to_data()
    data["sentence"] = decision.sentence
    data["evidence_digest"] = decision.evidence_digest
    return data


def _seats(visitor: Visitor, release: Release, decision: Decision, state: State) -> list[Data]:
    """Each seat: who fills it, who may, and whether the one who looks may."""
    quorum = quorum_of(visitor.deployment, release, decision)
    people = visitor.deployment.config.people()
    given: dict[int, Answer] = {answer.seat: answer for answer in release.answers}
    seats = []
    for index, seat in enumerate(decision.seats):
        answer = given.get(index)
        filled = quorum.filled.get(index)
        problem = "" if state is State.WAITING and filled is None else "closed"
        if not problem:
            problem = _own_objection(visitor, release, decision, index, quorum.filled)
        seats.append(
            {
                "number": index + 1,
                "role": seat.role,
                "reason": seat.reason,
                "filled_by": filled,
                "rejected_by": quorum.rejected_by if answer and answer.user == quorum.rejected_by else "",
                "comment": answer.comment if answer else "",
                "eligible": [
                    person.name for person in people.holders(seat.role) if person.user != release.submitter
                ],
                "may_answer": not problem,
                "problem": problem,
            }
        )
    if quorum.state is QuorumState.GRANTED:
        return [{**seat, "may_answer": False} for seat in seats]
    return seats


def _own_objection(
    visitor: Visitor, release: Release, decision: Decision, index: int, filled: dict[int, str]
) -> str:
    """Why the one who looks may not fill this seat; empty when it is theirs to fill."""
    asked = Answer(
        release_id=release.release_id,
        seat=index,
        user=visitor.name,
        role=decision.seats[index].role,
        choice="approve",
        comment="",
        manifest_digest=decision.manifest_digest,
        evidence_digest=decision.evidence_digest,
        policy_digest=decision.policy_digest,
    )
    earlier = [answer for answer in release.answers if answer.user in filled.values()]
    return objection(
        asked,
        decision=decision,
        people=visitor.deployment.config.people(),
        submitter=release.submitter,
        earlier=earlier,
    )
