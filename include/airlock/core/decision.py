"""The decision: a pure function of manifest, evidence and policy.

The same evidence under the same policy gives the same bytes, today and in ten years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field

from airlock.core.base import Value, trusted
from airlock.core.canonical import digest_of
from airlock.core.errors import UnavailableError
from airlock.core.evidence import SCORE, Evidence, Verdict
from airlock.core.facts import build_facts
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy, Seat, Tier, Track
from airlock.core.risk import RiskScore, risk_score
from airlock.core.rules import (
    Engine,
    FactSet,
    PerValue,
    Reason,
    Said,
    Session,
    ask_phase,
    content_digest,
    evaluate_phase,
    in_words,
)
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


def _required(policy: Policy) -> list[str]:
    return [*sorted(policy.gates, key=lambda gate: (f"{GATE}{gate}" not in NEVER, gate)), SCORE]


_required_gates: PerValue[Policy, list[str]] = PerValue(_required)


def required_gates(policy: Policy) -> list[str]:
    """Gates whose evidence must be there, and the scoring pass.

    What can never be waived comes first, because it is what people are told; then by name: a bundle that was
    stored has lost the order in which it was written.
    """
    return _required_gates(policy)


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


@dataclass(frozen=True)
class Ruling:
    """What follows for a release, before anything of it is put in words.

    Attributes:
        said: what gates, rules and waivers say, in the order in which people are told.
        words: puts one of them in words.
        used: the waivers it rests on.
        evidence: what counted: the records of its own gates and manifest.
    """

    outcome: Outcome
    track: Track | None
    tier: Tier
    said: list[Said]
    words: Callable[[Said], Reason]
    seats: list[AskedSeat]
    used: list[Waiver]
    evidence: Mapping[str, Evidence]
    risk: RiskScore | None

    @property
    def fired(self) -> list[Reason]:
        """What fired, in words."""
        return [self.words(one) for one in self.said if one.fired]


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
    ruling = rule_on(
        manifest=manifest,
        workload=workload,
        policy=policy,
        evidence=evidence,
        engine=engine,
        as_of=as_of,
        waivers=waivers,
    )
    return Decision(
        release_id=manifest.release_id,
        outcome=ruling.outcome,
        track=ruling.track,
        tier=ruling.tier,
        reasons=[ruling.words(one) for one in ruling.said],
        seats=ruling.seats,
        manifest_digest=content_digest(manifest),
        evidence={name: content_digest(ruling.evidence[name]) for name in sorted(ruling.evidence)},
        policy_version=policy.version,
        policy_digest=content_digest(policy),
        as_of=as_of,
        waivers={waiver.waiver_id: waiver.digest for waiver in ruling.used},
        risk=ruling.risk,
    )


def rule_on(
    *,
    manifest: Manifest,
    workload: Workload,
    policy: Policy,
    evidence: Mapping[str, Evidence],
    engine: Engine,
    as_of: date,
    waivers: Sequence[Waiver] = (),
) -> Ruling:
    """What ``decide`` decides, for those who do not read all of its reasons."""
    released = content_digest(manifest)
    evidence = {
        name: record
        for name, record in evidence.items()
        if record.gate == name and record.manifest_digest == released
    }
    waivers = usable(waivers, manifest, policy)
    facts = FactSet(build_facts(manifest=manifest, workload=workload, policy=policy, evidence=evidence))
    session = engine.begin(policy, facts)
    run = partial(ask_phase, policy=policy, session=session, facts=facts, as_of=as_of)
    words = partial(in_words, facts=facts, session=session)
    said: list[Said] = [*_gate_reasons(policy, evidence, waivers)]
    tier_said = run("tier")
    tier = heaviest(tier_said, Tier)
    said += tier_said
    facts.learn("risk", {"tier": str(tier)})
    score = _assess(facts, manifest, policy, evidence)
    foreign = _foreign(policy, session)
    track_said = [*run("track"), *(reason for reason in foreign if reason.effect.startswith("track "))]
    if _all_measured(policy, evidence):
        denials = [*run("deny"), *(reason for reason in foreign if reason.effect == "deny")]
        denials = [_waive(one, waivers, words) for one in denials]
        resting = _waiver_reasons(
            policy, map(words, (one for one in [*said, *denials] if one.waived_by)), waivers
        )
        track: Track | None = heaviest([*track_said, *resting], Track)
        warnings = [*run("warn"), *(reason for reason in foreign if reason.effect == "warn")]
        said += [*track_said, *denials, *resting, *warnings, *run("seats")]
    else:
        # Rules that ask for what was not measured say nothing; red is known all the same, being heaviest.
        known = [one for one in track_said if one.effect != "deny"]
        track = Track.RED if heaviest(known, Track) is Track.RED else None
        said += [one for one in known if one.fired]

    denied = any(one.denies for one in said)
    used = {waiver_id for one in said for waiver_id in one.waived_by}
    seats = [] if denied or track is None else asked_seats(policy, track, said)
    return Ruling(
        outcome=Outcome.DENY if denied or track is None else Outcome.PENDING if seats else Outcome.ALLOW,
        track=track,
        tier=tier,
        said=said,
        words=words,
        seats=seats,
        used=[waiver for waiver in waivers if waiver.waiver_id in used],
        evidence=evidence,
        risk=score,
    )


def _all_measured(policy: Policy, evidence: Mapping[str, Evidence]) -> bool:
    return all(
        gate in evidence and evidence[gate].verdict is not Verdict.ERROR for gate in required_gates(policy)
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
    facts.learn("risk", score.facts)
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


def _waive(said: Said, waivers: Sequence[Waiver], words: Callable[[Said], Reason]) -> Said:
    """A rule that denies, waived if somebody allowed it. A rule in error stays."""
    if not said.denies or said.error or said.rule in NEVER:
        return said
    waiver = covering(waivers, said.rule)
    return said if waiver is None else words(said).model_copy(update={"waived_by": [waiver.waiver_id]})


def _waiver_reasons(policy: Policy, waived: Iterable[Reason], waivers: Sequence[Waiver]) -> list[Reason]:
    """A release that rests on a waiver never passes without a person: the policy says on which track."""
    used = {waiver_id: one for one in waived for waiver_id in one.waived_by}
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


def asked_seats(policy: Policy, track: Track, said: Sequence[Said]) -> list[AskedSeat]:
    """Who must approve: the seats of the track, and those that rules ask for in addition.

    A rule that asks for a role which is asked already adds nobody: the role answers once, unless one
    source alone asks for it several times.
    """
    fired = {one.rule: one.effect for one in said if one.fired}
    wanted = f"track {track.value}"
    for_track = [rule for rule, effect in fired.items() if effect == wanted]
    seats = [_asked(seat, for_track) for seat in policy.approval.seats[track]]
    if "seats" not in fired.values():
        return seats
    for rule, asked in _asking(policy).items():
        if fired.get(rule) != "seats":
            continue
        left = list(range(len(seats)))
        for seat in asked:
            same = next((index for index in left if seats[index].role == seat.role), None)
            if same is None:
                seats.append(_asked(seat, [rule]))
            else:
                left.remove(same)
                seats[same] = _asked(seat, [*seats[same].rules, rule])
    return seats


_asking: PerValue[Policy, dict[str, list[Seat]]] = PerValue(
    lambda policy: {rule.id: rule.effect.seats for rule in policy.rules if rule.effect.seats}
)
"""The seats of each rule that asks for some."""


def _asked(seat: Seat, rules: list[str]) -> AskedSeat:
    return trusted(AskedSeat, {**seat.__dict__, "rules": rules}, _SEAT)


_SEAT = set(AskedSeat.model_fields)


def heaviest(said: Iterable[Said], levels: type[Level]) -> Level:
    """The heaviest level whose rule fired; a rule in error counts as the heaviest there is."""
    fired = [_WEIGHT[one.effect] for one in said if one.fired]
    order = _ORDER[levels]
    heavy: Level = order[max(fired) if fired else 0]
    return heavy


_ORDER: Mapping[type, list[Any]] = {Tier: list(Tier), Track: list(Track)}
_WEIGHT = {
    f"{name} {level}": place
    for name, levels in (("tier", Tier), ("track", Track))
    for place, level in enumerate(levels)
} | {"deny": len(Track) - 1}  # there are as many tiers as tracks


def gate_verdicts(policy: Policy, evidence: Mapping[str, Evidence]) -> dict[str, Verdict | None]:
    """Verdict of each required gate; ``None`` where it has not answered."""
    return {gate: evidence[gate].verdict if gate in evidence else None for gate in required_gates(policy)}
