"""Preflight of a version: the very services of the release DAG, over ports that forget.

What is said here and what the release decides agree because they are the same functions on the same
content. Nothing is recorded, nothing in the registry changes, and no Airflow is needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from airlock.adapters.scratch import ReadOnlyRegistry, ScratchAudit, ScratchEvidence, scratch_id
from airlock.core.decision import AskedSeat, Decision
from airlock.core.errors import RefusedError
from airlock.core.evidence import SCORE, Evidence
from airlock.core.policy import Track
from airlock.core.preflight import Level, Note, Preflight, reason_notes
from airlock.gates import load_gate
from airlock.gates.base import Stage
from airlock.services.decide import compute
from airlock.services.deployment import Deployment
from airlock.services.evaluate import evaluate
from airlock.services.preflight import Places, needed_seat, result_notes, unheld
from airlock.services.releases import Case, open_case, read_evidence
from airlock.services.reproduce import REPRODUCED, reproduce
from airlock.services.retrained import RETRAIN
from airlock.services.score import score
from airlock.services.submit import freeze, submit
from airlock.services.training import CODE
from airlock.services.waivers import in_force

SUBMITTER = "preflight"
"""Who submits where nobody says; no person is called so, and so nobody is left out of a seat."""


@dataclass(frozen=True)
class Rehearsal:
    """What would be submitted, and how far to go.

    Attributes:
        full: run the models in the sandbox and every gate; else only gates that need no scores.
    """

    workload: str
    version: str
    batch: str = ""
    context: str = ""
    submitter: str = SUBMITTER
    answers: Mapping[str, object] | None = None
    full: bool = True


def rehearse(deployment: Deployment, wanted: Rehearsal) -> Preflight:
    """Judge a version as its release would be judged.

    Raises:
        NotFoundError: there is no such workload, version or batch.
        RefusedError: the version is quarantined.
        ConfigurationError: workload, policy, suite or people cannot be used.
        UnavailableError: the registry does not answer.
    """
    with _scratch(deployment) as (scratch, audit):
        seconds: dict[str, float] = {}
        case = _frozen(scratch, wanted, seconds)
        refused = _run_gates(scratch, case, seconds, full=wanted.full)
        case = open_case(scratch, case.release.release_id)
        evidence = read_evidence(scratch, case)
        decision = compute(scratch, case, in_force(scratch, case))
        answer = _answer(deployment, case, evidence, decision, refused, full=wanted.full)
        unknown = [*answer.unknown]
        if audit.missing:
            unknown.append(f"waivers and past scores: the audit store was not read ({audit.missing})")
        return answer.model_copy(update={"unknown": unknown, "seconds": seconds})


@contextmanager
def _scratch(deployment: Deployment) -> Iterator[tuple[Deployment, ScratchAudit]]:
    with tempfile.TemporaryDirectory(prefix="airlock-preflight-") as folder:
        audit = ScratchAudit(deployment.audit)
        yield (
            replace(
                deployment,
                audit=audit,
                evidence=ScratchEvidence(deployment.evidence, Path(folder)),
                registry=ReadOnlyRegistry(deployment.registry),
            ),
            audit,
        )


def _frozen(scratch: Deployment, wanted: Rehearsal, seconds: dict[str, float]) -> Case:
    started = time.perf_counter()
    release_id = scratch_id(wanted.workload, wanted.version)
    submit(
        scratch,
        release_id=release_id,
        workload_name=wanted.workload,
        version=wanted.version,
        batch=wanted.batch,
        context=wanted.context,
        submitter=wanted.submitter,
        dag_id="preflight",
        run_id="preflight",
        answers=wanted.answers,
    )
    freeze(scratch, release_id)
    seconds["freeze"] = round(time.perf_counter() - started, 3)
    return open_case(scratch, release_id)


def _run_gates(scratch: Deployment, case: Case, seconds: dict[str, float], *, full: bool) -> str:
    """Run what the DAG would run, in its order; why it stopped, in words, when it did."""
    release_id = case.release.release_id
    stages: dict[Stage, list[str]] = {stage: [] for stage in Stage}
    for gate in case.policy.gates:
        stages[load_gate(gate).STAGE].append(gate)
    for gate in stages[Stage.BEFORE_SCORING]:
        _timed(scratch, release_id, gate, seconds)
    if not full:
        return "the models were not run; --full runs them in the sandbox"
    started = time.perf_counter()
    try:
        scored = score(scratch, release_id)
    except RefusedError as error:
        return error.what
    seconds[SCORE] = round(time.perf_counter() - started, 3)
    if not scored.verdict.allows:
        return scored.result.summary
    if REPRODUCED in case.policy.gates and CODE in case.manifest.code:
        started = time.perf_counter()
        reproduce(scratch, release_id)
        seconds[RETRAIN] = round(time.perf_counter() - started, 3)
    for gate in stages[Stage.AFTER_SCORING]:
        _timed(scratch, release_id, gate, seconds)
    return ""


def _timed(scratch: Deployment, release_id: str, gate: str, seconds: dict[str, float]) -> None:
    started = time.perf_counter()
    evaluate(scratch, release_id, gate)
    seconds[gate] = round(time.perf_counter() - started, 3)


def _answer(
    deployment: Deployment,
    case: Case,
    evidence: dict[str, Evidence],
    decision: Decision,
    stopped: str,
    *,
    full: bool,
) -> Preflight:
    places = Places(deployment.settings.config_dir, case.workload)
    people = deployment.config.people()
    notes: list[Note] = []
    for gate, record in evidence.items():
        waived = next((reason.waived_by for reason in decision.reasons if reason.rule == f"gate-{gate}"), [])
        for note in result_notes(gate, record.result, places.of_gate(gate)):
            lighter = waived and note.level is Level.ERROR
            notes.append(note.model_copy(update={"level": Level.WARNING}) if lighter else note)
    # Short of --full some gates were not asked: then the missing answers say nothing about the release.
    reasons = [reason for reason in decision.reasons if full or reason.rule != "gates-complete"]
    sure = full or any(reason.denies for reason in reasons)
    told = [reason for reason in reasons if not reason.error and reason.rule != "gates-complete"]
    notes += reason_notes(told, *places.field("risk"))
    asked: Sequence[AskedSeat] = decision.seats
    if not sure:
        asked = [AskedSeat(**seat.to_data()) for seat in case.policy.approval.seats[_at_least(decision)]]
    submitter = case.manifest.submitter
    seats = [needed_seat(seat, seat.rules, people, submitter=submitter) for seat in asked]
    return Preflight(
        workload=case.workload.name,
        version=case.release.version,
        policy=case.policy.version,
        outcome=decision.outcome if sure else None,
        track=decision.track,
        at_least=decision.track or _at_least(decision),
        tier=decision.tier,
        risk=decision.risk if not stopped else None,
        seats=seats,
        notes=[*notes, *unheld(seats, people, deployment.settings.config_dir)],
        reasons=reasons,
        unknown=[stopped] if stopped else [],
    )


def _at_least(decision: Decision) -> Track:
    """The heaviest track that a rule asks for already."""
    order = list(Track)
    fired = [
        Track(reason.effect.split()[1])
        for reason in decision.reasons
        if reason.fired and reason.effect.startswith("track ")
    ]
    return max(fired, key=order.index, default=Track.GREEN)
