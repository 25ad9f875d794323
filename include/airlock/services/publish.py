"""Publishing policies: a bundle counts once it is published, and never changes afterwards (P-2, P-3).

The first bundles of a deployment are published by its first release, because somebody has to begin; the event
says so. From then on each new version needs the approval of everybody who owns something that it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airlock.core.approvals import Panel, QuorumState, person_objection
from airlock.core.audit import Event, Kind
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError
from airlock.core.policy import Policy, Track
from airlock.core.policy_diff import Change, diff
from airlock.services.approve import EXPIRED, GRANTED, OPEN, REJECTED, Standing
from airlock.services.deployment import Deployment
from airlock.services.describe import markdown
from airlock.services.panel import request_panel
from airlock.services.requests import (
    Question,
    answer_problem,
    eligible_people,
    refuse,
    words_problem,
)

SENTENCES = 30
"""Changes named in an event; all of them stand in the evidence."""

REQUESTS = (Kind.POLICY_REQUESTED, Kind.POLICY_APPROVED, Kind.POLICY_REJECTED)


def version_key(version: str) -> tuple[int, ...]:
    """Sorts 1.10.0 after 1.9.0."""
    return tuple(int(part) for part in version.split("."))


def changes(old: Policy, new: Policy) -> list[Change]:
    """Every difference between two policies but the version itself."""
    # Both as they are stored: canonical JSON has one kind of number, so 1.0 in a file comes back as 1.
    old, new = (Policy.from_bytes(policy.to_bytes()) for policy in (old, new))
    return [change for change in diff(old, new) if change.section != "version"]


def owners(change: Change, old: Policy) -> list[str]:
    """The roles that answer for a change.

    What nobody owns, everybody with a seat on the heaviest track answers for. So do they for what is new,
    beside the owner that it names: its author chose that one, and could choose a friend.
    """
    if change.owner and not change.owner_is_new:
        return [change.owner]
    everybody = {seat.role for seat in old.approval.seats[Track.RED]}
    return sorted(everybody | {change.owner} if change.owner else everybody)


def roles_asked(found: list[Change], old: Policy) -> list[str]:
    """The roles whose approval these changes need, each once; a seat for each."""
    return sorted({role for change in found or [_NOTHING] for role in owners(change, old)})


_NOTHING = Change(section="version", subject="version", sentence="only the version changes")


def published(deployment: Deployment) -> dict[str, str]:
    """Every published version and its digest, oldest version first."""
    found: dict[str, str] = {}
    for entry in deployment.audit.events(kinds=[Kind.POLICY_PUBLISHED]):
        if entry.event.deployment == deployment.settings.deployment:
            for version, digest in entry.event.data["policies"].items():
                found.setdefault(version, digest)
    return dict(sorted(found.items(), key=lambda item: version_key(item[0])))


def published_policy(deployment: Deployment, version: str) -> Policy:
    """A published policy as it was published, whatever stands on disk now.

    Raises:
        NotFoundError: it was never published here.
    """
    known = published(deployment)
    if version not in known:
        raise NotFoundError(
            f"policy {version} was never published here", fix=f"published: {', '.join(known) or 'none yet'}"
        )
    return Policy.from_bytes(deployment.evidence.get(known[version]))


def require_published(deployment: Deployment, policy: Policy) -> None:
    """Refuse a policy that is not the one that was published under its version.

    Where nothing was ever published, the bundles that workloads name now are published here, by nobody.

    Raises:
        RefusedError: it was never published, or the folder says something else than what was published.
    """
    known = published(deployment)
    if not known:
        known = _bootstrap(deployment, policy)
    if policy.version not in known:
        raise RefusedError(
            f"policy {policy.version} is not published",
            where=f"policies/{policy.version}",
            fix=f"publish it with `airlock policy publish {policy.version}`; published: {', '.join(known)}",
        )
    if not _same(deployment, known[policy.version], policy):
        was = Policy.from_bytes(deployment.evidence.get(known[policy.version]))
        found = [change.sentence for change in changes(was, policy)]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""  # noqa: PLR2004  # three are enough
        raise RefusedError(
            f"policy {policy.version} was edited after it was published: {'; '.join(found[:3])}{more}",
            where=f"policies/{policy.version}",
            fix="put the folder back as it was, and publish the change as a new version in its own folder",
        )


def is_published(deployment: Deployment, policy: Policy) -> bool:
    """Whether exactly this content was published under its version."""
    digest = published(deployment).get(policy.version)
    return digest is not None and _same(deployment, digest, policy)


def _same(deployment: Deployment, digest: str, policy: Policy) -> bool:
    # A later Airlock may write a new field with its default, which changes the bytes and not the policy.
    return digest == policy.digest or Policy.from_bytes(deployment.evidence.get(digest)) == policy


def _bootstrap(deployment: Deployment, policy: Policy) -> dict[str, str]:
    """Publish what there is when a deployment begins, all at once: a kill leaves nothing half done."""
    versions = {policy.version: policy}
    for path in deployment.config.workload_files():
        workload = deployment.config.load_workload(path)
        if workload.policy not in versions and workload.policy in deployment.config.policy_versions():
            versions[workload.policy] = deployment.config.policy(workload.policy)
    data = {
        "policies": {
            version: deployment.evidence.put(versions[version].to_bytes()) for version in sorted(versions)
        },
        "first": True,
        "sentence": "the first policies of this deployment: there was nothing before that could have owners",
    }
    try:
        deployment.record(Kind.POLICY_PUBLISHED, "policy/first", data=data)
    except ConflictError:
        return published(deployment)  # another release began in the same moment, with other content
    return published(deployment)


# Asking


@dataclass(frozen=True)
class PolicyRequest:
    """The request to publish a version, as its events tell it.

    Attributes:
        requested: who asked for what.
        answers: everything that was answered, in order; which of it counts is computed.
    """

    requested: Event
    answers: list[Event] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        """Its id."""
        return str(self.requested.data["request"])

    @property
    def version(self) -> str:
        """The version that is to be published."""
        return str(self.requested.data["version"])

    @property
    def digest(self) -> str:
        """What is to be published; answers bind to it."""
        return str(self.requested.data["digest"])

    @property
    def seats(self) -> list[str]:
        """Roles that are asked, one for each seat."""
        return list(self.requested.data["seats"])

    @property
    def until_us(self) -> int:
        """When the time to answer is over."""
        return self.requested.occurred_us + int(self.requested.data["answer_hours"] * 3600 * 1_000_000)


def list_requests(deployment: Deployment) -> list[PolicyRequest]:
    """Requests to publish, in the order they were asked."""
    found: dict[str, PolicyRequest] = {}
    for entry in deployment.audit.events(kinds=REQUESTS):
        event = entry.event
        if event.deployment != deployment.settings.deployment:
            continue
        if event.kind is Kind.POLICY_REQUESTED:
            found.setdefault(str(event.data["request"]), PolicyRequest(event))
        elif (known := found.get(str(event.data["request"]))) is not None:
            known.answers.append(event)
    return list(found.values())


def find_request(deployment: Deployment, request_id: str) -> PolicyRequest:
    """One request to publish.

    Raises:
        NotFoundError: nobody asked for it here.
    """
    for request in list_requests(deployment):
        if request.request_id == request_id:
            return request
    raise NotFoundError(f"there is no request {request_id!r} to publish a policy")


def publish_problem(deployment: Deployment, policy: Policy) -> str:
    """Why a bundle cannot be published, in a sentence; empty when it can be asked for."""
    known = published(deployment)
    if policy.version in known:
        same = known[policy.version] == policy.digest
        return f"policy {policy.version} is already published" + ("" if same else ", and this is another one")
    if known and version_key(policy.version) < version_key(list(known)[-1]):
        return f"policy {policy.version} is older than the published {list(known)[-1]}; versions grow"
    return ""


def preview(deployment: Deployment, policy: Policy) -> tuple[str, list[Change], list[str]]:
    """The predecessor of a policy, what it changes, and the roles that are asked."""
    known = published(deployment)
    if not known:
        return "", [], roles_asked([], policy)
    before = published_policy(deployment, list(known)[-1])
    found = changes(before, policy)
    return before.version, found, roles_asked(found, before)


def request_publication(
    deployment: Deployment, *, request_id: str, policy: Policy, requester: str, dag_id: str, run_id: str
) -> PolicyRequest:
    """Ask to publish a bundle. Repeating it for the same DAG run changes nothing.

    Args:
        deployment: where.
        request_id: id that follows from the run.
        policy: the bundle as it stands on disk, checked.
        requester: who asks, as authenticated by Airflow; never one of those who approve.
        dag_id: the DAG that was started.
        run_id: the run of it.

    Raises:
        RefusedError: it cannot be published; recorded.
    """
    known = [one for one in list_requests(deployment) if one.request_id == request_id]
    if known:
        return known[0]
    problem = "" if requester else "nobody is known as the requester; start the DAG as a logged-in user"
    if problem := problem or publish_problem(deployment, policy):
        raise refuse(deployment, request_id, problem, user=requester, what="publish", when=run_id)
    predecessor, found, seats = preview(deployment, policy)
    event = deployment.record(
        Kind.POLICY_REQUESTED,
        f"policy/{request_id}/requested",
        actor=requester,
        data={
            "request": request_id,
            "version": policy.version,
            "digest": deployment.evidence.put(policy.to_bytes()),
            "predecessor": predecessor,
            "changes": deployment.evidence.put(canonical_json([change.to_data() for change in found])),
            "sentences": [change.sentence[:300] for change in found[:SENTENCES]],
            "seats": seats,
            "answer_hours": policy.approval.expires_hours,
            "dag_id": dag_id,
            "run_id": run_id,
        },
    ).event
    return PolicyRequest(event)


def changes_of(deployment: Deployment, request: PolicyRequest) -> list[Change]:
    """All changes that a request is about."""
    data = parse_json(deployment.evidence.get(str(request.requested.data["changes"])))
    return [Change.model_validate(change) for change in data]


# Answering


@dataclass(frozen=True)
class Tally:
    """Which seats count, by whose answer, and whether it is decided."""

    state: QuorumState
    filled: dict[int, Event]
    rejection: Event | None = None


def tally(deployment: Deployment, request: PolicyRequest) -> Tally:
    """Count the audited answers, with the roles people hold now; one person fills one seat."""
    panel = _panel(deployment, request)
    filled: dict[int, Event] = {}
    for event in request.answers:
        seat = event.data["seat"]
        if not _counts(event, request) or seat in filled or _twice(_persons(event), seat, filled):
            continue
        role, acts_for = request.seats[seat], str(event.data.get("acts_for", ""))
        if person_objection(event.actor, role, panel, acts_for=acts_for, at_us=event.occurred_us):
            continue
        if event.kind is Kind.POLICY_REJECTED:
            return Tally(QuorumState.REJECTED, filled, event)
        filled[seat] = event
    done = bool(request.seats) and len(filled) == len(request.seats)
    return Tally(QuorumState.GRANTED if done else QuorumState.OPEN, filled)


def _counts(event: Event, request: PolicyRequest) -> bool:
    seat = event.data["seat"]
    return isinstance(seat, int) and 0 <= seat < len(request.seats) and event.data["digest"] == request.digest


def _persons(event: Event) -> set[str]:
    """Everybody whose one seat an answer takes."""
    return {event.actor, str(event.data.get("acts_for", ""))} - {""}


def _twice(persons: set[str], seat: int, filled: Mapping[int, Event]) -> str:
    """Why these people may not fill a seat beside another, in a sentence; empty when they may."""
    for other, event in filled.items():
        if other != seat and (both := persons & _persons(event)):
            return f"{min(both)} already fills seat {other + 1}; one person fills one seat"
    return ""


def _panel(deployment: Deployment, request: PolicyRequest) -> Panel:
    """Who may answer now, by the rules of the policy before: a new one does not let its own deputies in."""
    before = str(request.requested.data["predecessor"])
    days = published_policy(deployment, before).approval.delegate_days if before else None
    return request_panel(deployment, {request.requested.actor: "asked to publish this"}, days)


def question(deployment: Deployment, request_id: str, index: int) -> Question:
    """What the holders of one role are asked about a new policy.

    Raises:
        NotFoundError: unknown request or seat.
        RefusedError: nobody may answer, or the time is over.
    """
    request = find_request(deployment, request_id)
    if not 0 <= index < len(request.seats):
        raise NotFoundError(f"request {request_id} has no seat {index + 1}")
    role = request.seats[index]
    people = eligible_people(_panel(deployment, request), role, request_id)
    left = (request.until_us - deployment.clock.now_us()) / 1_000_000
    if left <= 0:
        raise RefusedError("the time to answer is over", where=request_id, fix="ask again")
    found = changes_of(deployment, request)
    before = str(request.requested.data["predecessor"]) or "none"
    old = published_policy(deployment, before) if before != "none" else _policy_of(deployment, request)
    yours = [change for change in found if role in owners(change, old)]
    others = [change for change in found if role not in owners(change, old)]
    who = markdown(request.requested.actor)
    names = markdown(", ".join(person.name for person in people))
    binds = "Published, a version never changes; workloads are judged by it once their file names it."
    parts = [
        f"**{who}** asks to publish policy **{request.version}** after {before}.",
        f"**What you answer for as {role}:**\n\n{_listed(yours)}",
        f"**What else changes:**\n\n{_listed(others)}",
        f"Anyone of: {names}. {binds}",
        "To reject, say in the comment what has to change. Unanswered, it is closed; silence publishes none.",
        f"Request `{request_id}`, digest `{request.digest[:16]}…`",
    ]
    return Question(f"Publish policy {request.version} as {role}?", "\n\n".join(parts), people, left)


def _listed(found: list[Change]) -> str:
    lines = [f"- {markdown(change.sentence)}" for change in found[:SENTENCES]]
    more = [f"- and {len(found) - SENTENCES} more"] if len(found) > SENTENCES else []
    return "\n".join(lines + more) or "- nothing"


def answer(
    deployment: Deployment, request_id: str, index: int, *, user: str, choice: str, comment: str, when: str
) -> None:
    """Record one person's answer for one seat.

    Raises:
        RefusedError: it must not count; the refusal is recorded.
        NotFoundError: unknown request.
    """
    request = find_request(deployment, request_id)
    approves = choice == "approve"
    problem, acting = _answer_problem(
        deployment, request, index, user=user, approves=approves, comment=comment
    )
    if problem:
        raise refuse(deployment, request_id, problem, user=user, what=choice, when=when)
    kind = Kind.POLICY_APPROVED if approves else Kind.POLICY_REJECTED
    data = {
        "request": request_id,
        "seat": index,
        "role": request.seats[index],
        "digest": request.digest,
        "comment": comment,
        **acting,
    }
    deployment.record(kind, f"policy/{request_id}/seat/{index}/{user}", actor=user, data=data)


def _answer_problem(
    deployment: Deployment, request: PolicyRequest, index: int, *, user: str, approves: bool, comment: str
) -> tuple[str, dict[str, str]]:
    """Why an answer must not count, and what to record of whom its giver acts for."""
    if not 0 <= index < len(request.seats):
        return f"seat {index + 1} does not exist", {}
    if deployment.clock.now_us() >= request.until_us:
        return "the time to answer is over", {}
    person, acting = answer_problem(_panel(deployment, request), user, request.seats[index])
    filled = tally(deployment, request).filled
    problem = _twice({user, *acting.values()}, index, filled)
    if index in filled and filled[index].actor != user:
        problem = f"seat {index + 1} is already filled by {filled[index].who}"
    minimum = 0 if approves else _policy_of(deployment, request).approval.minimum_comment
    return problem or words_problem(comment, minimum=minimum, what="comment") or person, acting


def seats_for(deployment: Deployment, request: PolicyRequest, user: str) -> list[int]:
    """Open seats that a person may fill, for themselves or for whom they act for."""
    panel, filled = _panel(deployment, request), tally(deployment, request).filled
    return [
        seat
        for seat, role in enumerate(request.seats)
        if seat not in filled and not answer_problem(panel, user, role)[0]
    ]


def _policy_of(deployment: Deployment, request: PolicyRequest) -> Policy:
    return Policy.from_bytes(deployment.evidence.get(request.digest))


def standing(deployment: Deployment, request_id: str) -> Standing:
    """Where the request stands, from audited answers alone."""
    request = find_request(deployment, request_id)
    now = tally(deployment, request)
    if now.rejection is not None:
        return Standing(REJECTED, f"rejected by {now.rejection.who}", str(now.rejection.data["comment"]))
    if now.state is QuorumState.GRANTED:
        people = ", ".join(now.filled[seat].who for seat in sorted(now.filled))
        return Standing(GRANTED, f"approved by {people}")
    if deployment.clock.now_us() >= request.until_us:
        return Standing(EXPIRED, "nobody answered in time, so the request is closed")
    waiting = ", ".join(role for seat, role in enumerate(request.seats) if seat not in now.filled)
    return Standing(OPEN, f"waiting for {waiting}")


def publish(deployment: Deployment, request_id: str) -> Event:
    """Publish what was asked for, if the audited answers allow it and the folder still says the same.

    Repeating it, also after a kill, publishes once.

    Raises:
        RefusedError: the answers are not there, the folder changed, or a newer version was published.
    """
    request = find_request(deployment, request_id)
    key = f"policy/published/{request.version}"
    if (done := deployment.find(key)) is not None and done.data["request"] == request_id:
        return done
    now = standing(deployment, request_id)
    policy = _policy_of(deployment, request)
    problem = "" if now.state == GRANTED else f"it is not approved: {now.sentence}"
    problem = problem or publish_problem(deployment, policy)
    if not problem and _on_disk(deployment, request.version) != request.digest:
        problem = f"the folder of {request.version} changed after it was asked for; ask again"
    if problem:
        raise refuse(deployment, request_id, problem, user="system", what="publish", when="published")
    approved = tally(deployment, request).filled
    data = {
        "policies": {request.version: request.digest},
        "first": False,
        "request": request_id,
        "requested_by": request.requested.actor,
        "predecessor": request.requested.data["predecessor"],
        "changes": request.requested.data["changes"],
        "sentences": request.requested.data["sentences"],
        "approved_by": {request.seats[seat]: event.actor for seat, event in sorted(approved.items())},
    }
    try:
        return deployment.record(Kind.POLICY_PUBLISHED, key, data=data).event
    except ConflictError as error:
        raise RefusedError(
            f"policy {request.version} was published by another request", where=request_id
        ) from error


def _on_disk(deployment: Deployment, version: str) -> str:
    try:
        return deployment.config.policy(version).digest
    except (NotFoundError, InvalidInputError):
        return ""
