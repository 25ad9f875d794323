"""The decision: a pure function of manifest, evidence and policy.

The same evidence under the same policy gives the same bytes, today and in ten years.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import digest_of
from airlock.core.errors import UnavailableError
from airlock.core.evidence import SCORE, Evidence, Verdict
from airlock.core.facts import build_facts
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy, Seat, Tier, Track
from airlock.core.risk import RiskScore, risk_score
from airlock.core.rules import Engine, FactSet, Reason, Session, evaluate_phase, policy_digest
from airlock.core.waiver import GATE, NEVER, Waiver, covering, waive_gate
from airlock.core.workload import Workload

Level = TypeVar("Level", Tier, Track)


class Outcome(StrEnum):
    """What a release may do now."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    PENDING = "PENDING"


class AskedSeat(Seat):
    """A seat of a release, with the rules that asked for it."""

    rules: list[str] = []


class Decision(Value):
    """What was decided about a release, and everything it rests on.

    ``track`` is ``None`` when gates gave no answer and what they would have measured could still make it
    heavier; such a release is denied. ``waivers`` maps the id of each waiver it rests on to its digest.
    ``as_of`` is the day on which rules had to be in force.
    """

    release_id: str
    outcome: Outcome
    track: Track | None
    tier: Tier
    reasons: list[Reason]
    seats: list[AskedSeat]
    manifest_digest: str
    evidence: dict[str, str]
    policy_version: str
    policy_digest: str
    as_of: date
    waivers: dict[str, str] = {}
    risk: Annotated[RiskScore | None, Field(exclude_if=lambda value: value is None)] = None

    @property
    def evidence_digest(self) -> str:
        """One digest over all evidence and the waivers beside it, which approvals bind to."""
        return digest_of({**self.evidence, **{f"waiver:{key}": value for key, value in self.waivers.items()}})

    @property
    def sentence(self) -> str:
        """The one sentence why."""
        fired = [reason for reason in self.reasons if reason.fired]
        if self.outcome is Outcome.DENY:
            return next(reason.message for reason in fired if reason.denies)
        heaviest = [reason for reason in fired if reason.effect == f"track {self.track}"]
        if heaviest:
            return heaviest[0].message
        # Nothing asked for a heavier track: say what the next heavier one would have needed.
        lighter = [reason.message for reason in self.reasons if reason.effect == f"track {Track.YELLOW}"]
        return "; ".join(lighter) or "no rule asks for people"


def required_gates(policy: Policy) -> list[str]:
    """Gates whose evidence must be there, and the scoring pass.

    What can never be waived comes first, because it is what people are told; then by name: a bundle that was
    stored has lost the order in which it was written.
    """
    return [*sorted(policy.gates, key=lambda gate: (f"{GATE}{gate}" not in NEVER, gate)), SCORE]


def _gate_reasons(
    policy: Policy, evidence: Mapping[str, Evidence], waivers: Sequence[Waiver]
) -> list[Reason]:
    """Structural rules no policy can switch off: each gate must have answered, and with yes or a waiver."""
    reasons = []
    for gate in required_gates(policy):
        record = evidence.get(gate)
        if record is None:
            continue
        if not record.verdict.allows:
            fixes = [finding.fix for finding in record.result.findings if finding.fix]
            reasons.append(
                Reason(
                    rule=f"gate-{gate}",
                    effect="deny",
                    message=record.result.summary,
                    fix=fixes[0] if fixes else "",
                    waived_by=[waiver.waiver_id for waiver in waive_gate(record, waivers)],
                    owner=policy.owner_of_gate(gate) or "",
                    facts=_beyond_limits(record),
                )
            )
    missing = [gate for gate in required_gates(policy) if gate not in evidence]
    if missing:
        reasons.append(
            Reason(
                rule="gates-complete",
                effect="deny",
                message=f"no evidence from {', '.join(missing)}",
                fix=""
                if reasons
                else "look at these tasks in Airflow, mend the cause, then submit the release again",
            )
        )
    return reasons


def _beyond_limits(record: Evidence) -> dict[str, Any]:
    """The numbers of a gate that are on the wrong side of their limits, and the limits."""
    found: dict[str, Any] = {}
    for metric in record.result.metrics:
        if metric.value is None or metric.threshold is None or metric.direction == "none":
            continue
        beyond = metric.value - metric.threshold
        if (beyond < 0) if metric.direction == "higher" else (beyond > 0):
            name = f"{metric.name} {metric.where}".strip()
            found |= {name: metric.value, f"limit of {name}": metric.threshold}
    return found


def decide(
    *,
    manifest: Manifest,
    workload: Workload,
    policy: Policy,
    evidence: Mapping[str, Evidence],
    engine: Engine,
    as_of: date,
    waivers: Sequence[Waiver] = (),
) -> Decision:
    """Judge a release.

    ``as_of`` is the day on which rules must not have expired. It is an input, and the decision keeps it, so
    that the same evidence gives the same decision in ten years.
    ``waivers`` are those in force for it. The decision names the ones it rests on; given these alone, or
    together with others that are not needed, it is the same.

    Laws: adding a failing gate never makes the outcome lighter; no evidence at all is ``DENY``;
    the result does not depend on the order of ``evidence``; evidence counts only for its own gate and
    manifest.
    """
    released = manifest.digest
    evidence = {
        name: record
        for name, record in evidence.items()
        if record.gate == name and record.manifest_digest == released
    }
    waivers = usable(waivers, manifest, policy)
    facts = FactSet(build_facts(manifest=manifest, workload=workload, policy=policy, evidence=evidence))
    session = engine.begin(policy, facts)
    run = partial(evaluate_phase, policy=policy, session=session, facts=facts, as_of=as_of)
    reasons = _gate_reasons(policy, evidence, waivers)
    measured = all(
        gate in evidence and evidence[gate].verdict is not Verdict.ERROR for gate in required_gates(policy)
    )
    tier_reasons = run("tier")
    tier = heaviest(tier_reasons, Tier)
    reasons += tier_reasons
    facts.learn("risk", "tier", str(tier))
    score = _assess(facts, manifest, policy, evidence)
    foreign = _foreign(policy, session)
    track_reasons = [*run("track"), *(reason for reason in foreign if reason.effect.startswith("track "))]
    if measured:
        denials = [*run("deny"), *(reason for reason in foreign if reason.effect == "deny")]
        denials = [_waive(reason, waivers) for reason in denials]
        resting = _waiver_reasons(policy, reasons + denials, waivers)
        track: Track | None = heaviest([*track_reasons, *resting], Track)
        warnings = [*run("warn"), *(reason for reason in foreign if reason.effect == "warn")]
        reasons += [*track_reasons, *denials, *resting, *warnings, *run("seats")]
    else:
        # Rules that ask for what was not measured say nothing; red is known all the same, being heaviest.
        known = [reason for reason in track_reasons if reason.effect != "deny"]
        track = Track.RED if heaviest(known, Track) is Track.RED else None
        reasons += [reason for reason in known if reason.fired]

    denied = any(reason.denies for reason in reasons)
    used = {waiver_id for reason in reasons for waiver_id in reason.waived_by}
    seats = [] if denied or track is None else asked_seats(policy, track, reasons)
    outcome = Outcome.DENY if denied or track is None else Outcome.PENDING if seats else Outcome.ALLOW
    return Decision(
        release_id=manifest.release_id,
        outcome=outcome,
        track=track,
        tier=tier,
        reasons=reasons,
        seats=seats,
        manifest_digest=released,
        evidence={name: evidence[name].digest for name in sorted(evidence)},
        policy_version=policy.version,
        policy_digest=policy_digest(policy),
        as_of=as_of,
        waivers={waiver.waiver_id: waiver.digest for waiver in waivers if waiver.waiver_id in used},
        risk=score,
    )


def _assess(
    facts: FactSet, manifest: Manifest, policy: Policy, evidence: Mapping[str, Evidence]
) -> RiskScore | None:
    """The risk score, which rules may ask for from now on; ``None`` when the policy has none."""
    if policy.risk is None:
        return None
    score = risk_score(
        policy.risk,
        tier=facts.flat["risk.tier"],
        unanswered=len(manifest.unanswered) / len(manifest.asked) if manifest.asked else 0.0,
        evidence=evidence,
        history=manifest.risk_history,
    )
    for name, value in score.facts.items():
        facts.learn("risk", name, value)
    return score


def tier_of(policy: Policy, facts: FactSet, session: Session, as_of: date) -> Tier:
    """The risk tier that follows from the facts; a rule in error counts as the heaviest there is."""
    return heaviest(evaluate_phase("tier", policy=policy, session=session, facts=facts, as_of=as_of), Tier)


def usable(waivers: Sequence[Waiver], manifest: Manifest, policy: Policy) -> list[Waiver]:
    """The waivers a release may rest on under its policy, by id."""
    candidate = {
        "workload": manifest.workload,
        "version": manifest.candidate.version,
        "submitter": manifest.submitter,
    }
    found = {
        waiver.waiver_id: waiver
        for waiver in waivers
        if waiver.is_for(**candidate) and policy.waiver_role(waiver.rule) == waiver.role
    }
    return [found[waiver_id] for waiver_id in sorted(found)]


def _waive(reason: Reason, waivers: Sequence[Waiver]) -> Reason:
    """A rule that denies, waived if somebody allowed it. A rule in error stays."""
    if not reason.denies or reason.error or reason.rule in NEVER:
        return reason
    waiver = covering(waivers, reason.rule)
    return reason if waiver is None else reason.model_copy(update={"waived_by": [waiver.waiver_id]})


def _waiver_reasons(policy: Policy, reasons: Sequence[Reason], waivers: Sequence[Waiver]) -> list[Reason]:
    """A release that rests on a waiver never passes without a person: the policy says on which track."""
    used = {waiver_id: reason for reason in reasons for waiver_id in reason.waived_by}
    return [
        Reason(
            rule=f"waiver:{waiver.waiver_id}",
            effect=f"track {'yellow' if policy.waivers is None else policy.waivers.at_least}",
            message=f"it rests on waiver {waiver.waiver_id} of {waiver.granted_by} ({waiver.role}): "
            f"{waiver.rule} may fail for versions {waiver.versions}",
            fix=used[waiver.waiver_id].fix or "mend what is waived",
        )
        for waiver in waivers
        if waiver.waiver_id in used
    ]


def _foreign(policy: Policy, session: Session) -> list[Reason]:
    """Reasons of rules outside YAML; what an engine cannot say denies, and so does a name used twice."""
    if not policy.rego:
        return []
    try:
        found = list(session.foreign())
    except UnavailableError:
        raise  # nothing is decided while a server does not answer; the task is tried again
    except Exception as error:  # noqa: BLE001  # rules that cannot be evaluated deny, whatever the reason
        return [
            Reason(
                rule="rego",
                effect="deny",
                message=f"the rules in Rego could not be evaluated: {error}",
                fix="see `airlock policy check`; where a fact was not measured, fix that gate first",
                error=True,
            )
        ]
    known = {rule.id for rule in policy.rules}
    for reason in found:
        if reason.rule in known:
            message = f"the id {reason.rule} belongs to a rule in YAML and to one in Rego"
            return [Reason(rule="rego", effect="deny", message=message, fix="rename one", error=True)]
    return found


def asked_seats(policy: Policy, track: Track, reasons: Sequence[Reason]) -> list[AskedSeat]:
    """Who must approve: the seats of the track, and those that rules ask for in addition.

    A rule that asks for a role which is asked already adds nobody: the role answers once, unless one
    source alone asks for it several times.
    """
    fired = {reason.rule: reason.effect for reason in reasons if reason.fired}
    for_track = [rule for rule, effect in fired.items() if effect == f"track {track}"]
    seats = [
        AskedSeat(role=seat.role, reason=seat.reason, rules=for_track)
        for seat in policy.approval.seats[track]
    ]
    if "seats" not in fired.values():
        return seats
    for rule in policy.rules:
        if fired.get(rule.id) != "seats":
            continue
        left = list(range(len(seats)))
        for seat in rule.effect.seats or []:
            same = next((index for index in left if seats[index].role == seat.role), None)
            if same is None:
                seats.append(AskedSeat(role=seat.role, reason=seat.reason, rules=[rule.id]))
            else:
                left.remove(same)
                seats[same] = seats[same].model_copy(update={"rules": [*seats[same].rules, rule.id]})
    return seats


def heaviest(reasons: Sequence[Reason], levels: type[Level]) -> Level:
    """The heaviest level whose rule fired; a rule in error counts as the heaviest there is."""
    effects = {reason.effect for reason in reasons if reason.fired}
    order = list(levels)
    if "deny" in effects:
        return order[-1]
    return order[max((order.index(levels(effect.split()[1])) for effect in effects), default=0)]


def gate_verdicts(policy: Policy, evidence: Mapping[str, Evidence]) -> dict[str, Verdict | None]:
    """Verdict of each required gate; ``None`` where it has not answered."""
    return {gate: evidence[gate].verdict if gate in evidence else None for gate in required_gates(policy)}
