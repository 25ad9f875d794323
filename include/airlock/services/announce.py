"""Say what happened, and close the books of a release."""

from __future__ import annotations

from airlock.core.audit import Kind
from airlock.core.canonical import digest_of
from airlock.core.decision import Decision
from airlock.core.release import Release, State
from airlock.services.deployment import Deployment
from airlock.services.releases import find_release, quorum_of, read_decision, state_of


def outcome_sentence(
    deployment: Deployment, release: Release, *, ended: bool = False, quote: bool = True
) -> tuple[State, str]:
    """The state of a release and the one sentence why.

    ``ended`` when its run is about to be over. Without ``quote`` nothing that a person wrote is repeated:
    what is recorded a second time could not be erased.
    """
    state = state_of(deployment, release)
    state = state.at_end if ended else state
    decision = read_decision(deployment, release)
    if state in (State.REFUSED, State.ROLLED_BACK):
        return state, _undone(release, state)
    if decision is None:
        return state, "the release could not be judged; see the failed task in Airflow"
    if state is State.FAILED:
        return (
            state,
            "it was allowed, but its promotion did not end; see the task `promote` in Airflow",
        )
    if state in (State.REJECTED, State.EXPIRED):
        return state, _unapproved(deployment, release, decision, quote=quote)
    if state is State.PROMOTED and (people := _approvers(release)):
        return state, f"{decision.sentence}; approved by {people}"
    return state, decision.sentence


def _unapproved(deployment: Deployment, release: Release, decision: Decision, *, quote: bool) -> str:
    quorum = quorum_of(deployment, release, decision)
    if quorum.rejected_by:
        role = next(answer.role for answer in release.answers if answer.user == quorum.rejected_by)
        said = f": {quorum.comment}" if quote else ""
        return f"rejected by {quorum.rejected_by} ({role}){said}"
    missing = ", ".join(decision.seats[seat].role for seat in quorum.open_seats)
    return f"closed without an answer of {missing}; {decision.sentence}"


def _undone(release: Release, state: State) -> str:
    """Why it did not go into production, or what took over; a reason stands where it can be erased."""
    if state is State.REFUSED:
        return "; ".join(release.all(Kind.PROMOTION_REFUSED)[-1].data["problems"])
    event = release.all(Kind.ROLLBACK_FINISHED)[-1]
    data = event.data
    into = f"version {data['to']} took over" if data["to"] else "nothing is in production"
    if data["how"] == "constant":
        into = f"every request is answered with {data['constant']}"
    return f"taken out of production by {event.actor}: {into}; see {data['incident']}"


def _approvers(release: Release) -> str:
    """Who had approved when the promotion started, with their roles."""
    finished = release.first(Kind.PROMOTION_FINISHED)
    said = {answer.user: f"{answer.who} ({answer.role})" for answer in reversed(release.answers)}
    users = [] if finished is None else finished.data["approved_by"]
    return " and ".join(said[user] for user in users)


def fixes(decision: Decision | None) -> list[str]:
    """How to fix what was denied, without repetitions."""
    reasons = [] if decision is None else decision.reasons
    found = [reason.fix for reason in reasons if reason.denies and reason.fix]
    return list(dict.fromkeys(found))


def announce(deployment: Deployment, release_id: str) -> str:
    """Record and return the message about the end of a release (requirement T-5)."""
    release = find_release(deployment, release_id)
    message, recorded = (_message(deployment, release, quote=quote) for quote in (True, False))
    state = state_of(deployment, release).at_end
    deployment.record(
        Kind.RELEASE_ANNOUNCED,
        f"release/{release_id}/announced/{digest_of(recorded)[:16]}",
        release_id=release_id,
        workload=release.workload,
        version=release.version,
        data={"state": str(state), "message": recorded[:4000]},
    )
    return message


def _message(deployment: Deployment, release: Release, *, quote: bool) -> str:
    state, sentence = outcome_sentence(deployment, release, ended=True, quote=quote)
    lines = [f"{release.workload} version {release.version}: {state}. {sentence}"]
    lines += [f"How to fix it: {fix}" for fix in fixes(read_decision(deployment, release))]
    return "\n".join(lines)


def seal(deployment: Deployment, release_id: str) -> str:
    """Record the final state with the digests of everything it rests on.

    Raises:
        NotFoundError: the release was never accepted, so there is nothing to seal.
    """
    release = find_release(deployment, release_id)
    state, sentence = outcome_sentence(deployment, release, ended=True, quote=False)
    frozen, decided = release.first(Kind.RELEASE_FROZEN), release.first(Kind.RELEASE_DECIDED)
    data = {
        "state": str(state),
        "sentence": sentence[:1000],
        "manifest": None if frozen is None else frozen.data["manifest"],
        "decision": None if decided is None else decided.data["decision"],
        "evidence": {line.gate: line.digest for line in release.gates},
    }
    deployment.record(
        Kind.RELEASE_SEALED,
        f"release/{release_id}/sealed/{digest_of(data)[:16]}",
        release_id=release_id,
        workload=release.workload,
        version=release.version,
        data=data,
    )
    return str(state)
