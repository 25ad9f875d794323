"""A release in words, for people who have to decide about it."""

from __future__ import annotations

from airlock.core.decision import Decision
from airlock.core.evidence import Evidence, Verdict
from airlock.core.rules import Reason
from airlock.services.approve import SeatRequest
from airlock.services.deployment import Deployment
from airlock.services.releases import open_case, read_evidence


def markdown(text: str) -> str:
    """Text of other people, made harmless inside a Markdown table or paragraph."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def approval_text(deployment: Deployment, request: SeatRequest) -> tuple[str, str]:
    """Subject and Markdown body of the question for one seat (requirement A-4)."""
    case = open_case(deployment, request.release.release_id)
    evidence = read_evidence(deployment, case)
    release, decision = request.release, request.decision
    subject = f"{case.workload.title}: approve version {release.version} as {request.seat.role}?"
    people = ", ".join(person.name for person in request.eligible)
    champion = case.manifest.champion
    against = f"champion version {champion.version}" if champion else "no champion: this is the first release"
    seat = f"Seat {request.index + 1} of {len(decision.seats)}"
    closes = f"Unanswered, it is closed in {_hours(request.seconds_left)}; it is never approved by silence."
    digests = f"manifest `{decision.manifest_digest[:16]}…`, evidence `{decision.evidence_digest[:16]}…`"
    what = f"version **{release.version}** of **{markdown(case.workload.title)}**"
    asks = f"**{markdown(release.submitter)}** asks to put {what} into production ({against})."
    parts = [
        asks,
        f"**Track {decision.track}, risk {decision.tier}.** {markdown(decision.sentence)}",
        f"**Why your role:** {markdown(request.seat.reason)}. {seat}; anyone of: {markdown(people)}.",
        f"**Context:** {markdown(release.context) or 'none was given'}",
        _gate_table(evidence),
        _reason_list(decision),
        f"To reject, say in the comment what has to change. {closes}",
        *_conditions(case.policy.approval.condition_days),
        f"Release `{release.release_id}`, {digests}, policy {decision.policy_version}",
    ]
    return subject, "\n\n".join(parts)


def _conditions(days: float | None) -> list[str]:
    """How to approve on a condition, where the policy takes that."""
    if days is None:
        return []
    how = f"To approve on a condition, fill in both fields for it; its day is at most {days:g} days from now."
    return [f"{how} If nobody confirms by then that it is met, the approval is revoked."]


def _gate_table(evidence: dict[str, Evidence]) -> str:
    """Every gate, those with something to say first."""
    order = sorted(evidence.items(), key=lambda item: item[1].verdict is Verdict.PASSED)
    rows = [
        f"| {record.verdict if record.verdict is Verdict.PASSED else f'**{record.verdict}**'} "
        f"| {gate.replace('_', ' ')} | {markdown(record.result.summary)} |"
        for gate, record in order
    ]
    return "\n".join(["| verdict | gate | what it says |", "|---|---|---|", *rows])


def _reason_list(decision: Decision) -> str:
    fired = [
        f"- **{reason.rule}**: {markdown(reason.message)}{_waived(reason)}"
        for reason in decision.reasons
        if reason.fired
    ]
    return "Rules that fired:\n\n" + "\n".join(fired or ["- none"])


def _waived(reason: Reason) -> str:
    return f" (**waived** by {', '.join(reason.waived_by)})" if reason.waived_by else ""


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f} hours" if round(hours) > 1 else f"{seconds / 60:.0f} minutes"
