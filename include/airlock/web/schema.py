"""What REST answers, field by field, for OpenAPI; a field that is not described here is never sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airlock.core.approvals import Answer
from airlock.core.decision import AskedSeat
from airlock.core.evidence import Finding
from airlock.core.risk import RiskScore
from airlock.core.rules import Reason
from airlock.services.blocked import Blocked
from airlock.services.measures import Flow

Us = Annotated[int, Field(description="microseconds since 1970, UTC")]
Span = Annotated[float, Field(description="a span of time, microseconds")]
Tone = Literal["good", "bad", "warn", "plain"]


class Answered(BaseModel):
    """The base of every answer: closed, so that a new field of a page is described before it is sent."""

    model_config = ConfigDict(extra="forbid")


# Lists and dashboard


class ReleaseRow(Answered):
    """A release in a list."""

    release_id: str
    workload: str
    version: str
    submitter: str
    submitted_us: Us
    decided_us: Us | None
    deadline_us: Us | None
    ended_us: Us | None
    outcome: str | None
    track: str | None
    tier: str | None
    sentence: str
    state: str
    quarantined: bool


class ListedRelease(ReleaseRow):
    """A release with the seats that were asked."""

    open_roles: Annotated[list[str], Field(description="roles that are waited for")]
    seats: int


class WaitingRelease(ListedRelease):
    """A release that waits for people."""

    cost_usd: Annotated[float | None, Field(description="cost of the wait so far; null where nobody knows")]


class Releases(Answered):
    """One page of releases."""

    now_us: Us
    releases: list[ListedRelease]
    total: int
    limit: int
    offset: int


class WorkloadRow(Answered):
    """One workload, with what is open about it."""

    name: str
    title: str
    owner: str
    problem: Annotated[str, Field(description="why its file cannot be used; empty when it can")]
    champion: Annotated[str, Field(description="version in production; empty for none")]
    since_us: Us
    tier: str
    last: ReleaseRow | None
    waiting: int
    drift: Annotated[str, Field(description="newest answer about drift; empty when nobody looked")]
    drift_us: Us
    incidents: int
    waivers: int
    day_usd: Annotated[float | None, Field(description="what a day without its release costs")]


class Workloads(Answered):
    """Everything that is governed."""

    now_us: Us
    workloads: list[WorkloadRow]


class IncidentRow(Answered):
    """One incident."""

    incident: str
    workload: str
    version: str
    release: str
    severity: str
    state: str
    summary: str
    action: str
    owner: str
    role: str
    opened_us: Us
    deadline_us: Us
    overdue: bool


class Incidents(Answered):
    """Incidents, open ones first."""

    now_us: Us
    incidents: list[IncidentRow]
    total: int


class WaiverRow(Answered):
    """One waiver."""

    waiver: str
    workload: str
    rule: str
    versions: str
    state: str
    by: str
    role: str
    granted_by: str
    until_us: Us
    reason: str


class Waivers(Answered):
    """Waivers, those in force first."""

    now_us: Us
    waivers: list[WaiverRow]
    total: int


class AnchorRow(Answered):
    """How far an anchor outside has the log."""

    name: str
    entries: int
    behind: int


class AuditState(Answered):
    """The signed log."""

    entries: int
    root: str
    note: Annotated[str, Field(description="newest signed checkpoint")]
    waiting: Annotated[int, Field(description="events that are not in the signed log yet")]
    lag_us: Span
    anchors: list[AnchorRow]


class GateFlow(Answered):
    """What one gate said in a span of time."""

    gate: str
    n: int
    failed: int
    errors: int
    warned: int
    seconds: Annotated[float, Field(description="mean of a run")]
    after_us: Annotated[float, Field(description="mean from submission to its answer, microseconds")]


class RuleFlow(Answered):
    """How many releases a rule denied."""

    rule: str
    n: int


class MeasuresSaid(Answered):
    """The governance measures of a span of time."""

    since_us: Us
    submitted: int
    promoted: int
    without_people: int
    stopped: int
    lead_times: Annotated[list[Flow], Field(description="submission to champion, by track")]
    waiting_times: Annotated[list[Flow], Field(description="question to answer, by role")]
    gates: list[GateFlow]
    rules: list[RuleFlow]
    escapes: int
    asked: int
    waited_us: Span
    cost_usd: float
    priced: int


class Dashboard(Answered):
    """What waits, what is open, how well it flows, and the state of the audit log."""

    now_us: Us
    days: int
    workloads: list[WorkloadRow]
    workload_count: int
    waiting: list[WaitingRelease]
    waiting_count: int
    incident_count: int
    waiver_count: int
    drifted_count: int
    recent: list[ListedRelease]
    measures: MeasuresSaid
    audit: AuditState


# One release


class Tile(Answered):
    """One of the few numbers that matter."""

    value: str
    label: str
    note: str
    tone: Tone
    target: str


class Difference(Answered):
    """What differs from the champion in one respect."""

    what: str
    text: str
    changed: bool
    more: list[str]
    left: int


class Bar(Answered):
    """A bar and its interval, in units of a picture."""

    value: float
    low: float
    high: float


class Place(Bar):
    """Value, interval and limit on a line."""

    limit: float


class Spark(Answered):
    """The way of a number through earlier releases."""

    points: str
    x: float
    y: float
    limit: float | None
    words: str


class Number(Answered):
    """A number of a gate."""

    name: str
    where: Annotated[str, Field(description="group or slice it is about; empty for all")]
    value: float | None
    lower: float | None
    upper: float | None
    threshold: float | None
    direction: str
    unit: str
    n: int | None
    engine: str
    tone: Tone
    plot: Place | None
    trend: Spark | None


class FileLink(Answered):
    """A file of a gate's evidence."""

    name: str
    digest: str
    shown: bool


class GateAnswer(Answered):
    """One gate of a release."""

    gate: str
    verdict: str
    summary: str
    findings: list[Finding]
    limited: Annotated[list[Number], Field(description="numbers with a limit")]
    others: list[Number]
    left: Annotated[int, Field(description="numbers that only the page of the gate has")]
    plot: str
    files: list[FileLink]


class GateText(Answered):
    """What a gate is for."""

    title: str
    why: str
    good: str
    fix: str


class GatePage(Answered):
    """One gate with everything it measured."""

    release: str
    title: str
    workload: str
    version: str
    text: GateText | None
    gate: GateAnswer
    viewer: str


class GroupRow(Answered):
    """How one group of people fares."""

    group: str
    n: int | None
    rate: float
    before: float | None
    ratio: float | None
    bar: Bar


class Attribute(Answered):
    """A protected attribute."""

    attribute: str
    groups: list[GroupRow]


class FeatureShare(Answered):
    """How much a feature weighs, now and in the champion."""

    name: str
    share: float | None
    before: float | None
    bar: Bar


class Explanation(Answered):
    """What the model looks at."""

    problem: str
    features: list[FeatureShare]
    more: int
    agreement: Number | None


class InterviewAnswer(Answered):
    """A question of the questionnaire."""

    question: str
    why: str
    answer: bool | float | str | None
    asked: bool


class ReleaseWaiver(WaiverRow):
    """A waiver beside a release."""

    rests: Annotated[bool, Field(description="whether the release rests on it")]


class Comment(Answered):
    """What somebody wrote about an earlier release."""

    user: str
    role: str
    choice: str
    text: str


class EarlierRelease(Answered):
    """A release of the workload before this one."""

    release_id: str
    version: str
    state: str
    track: str | None
    sentence: str
    submitter: str
    submitted_us: Us
    comments: list[Comment]


class Reply(Answered):
    """An answer to a question."""

    user: str
    text: str
    at_us: Us


class Asked(Answered):
    """A question of somebody who was asked to approve."""

    id: str
    seat: int
    user: str
    text: str
    at_us: Us
    answers: list[Reply]


class OrderedReason(Reason):
    """A reason that fired."""

    tiered: Annotated[bool, Field(description="it is about how risky the use is")]


class DecisionSaid(Answered):
    """The decision, with its reasons."""

    release_id: str
    outcome: str
    track: str | None
    tier: str
    reasons: list[Reason]
    seats: list[AskedSeat]
    manifest_digest: str
    evidence: dict[str, str]
    policy_version: str
    policy_digest: str
    as_of: str
    waivers: dict[str, str]
    risk: RiskScore | None = None
    sentence: str
    ordered: Annotated[list[OrderedReason], Field(description="what fired, what asks for people first")]
    evidence_digest: str


class SeatSaid(Answered):
    """One seat: who fills it, and whether the one who asks may."""

    number: int
    role: str
    reason: str
    filled_by: str | None
    condition: str
    condition_until: str
    rejected_by: str
    comment: str
    eligible: list[str]
    may_answer: bool
    problem: str
    acts_for: str


class Digests(Answered):
    """What an approval is bound to."""

    manifest: str
    artifact: str
    policy: str


class Review(Answered):
    """Everything about one release; what is not known yet is empty or null."""

    now_us: Us
    release: str
    workload: str
    title: str
    version: str
    submitter: str
    submitted_us: Us
    context: str
    batch: str
    state: str
    why: str
    run: Annotated[str, Field(description="path of its run in Airflow")]
    run_id: str
    champion: str | None
    decision: DecisionSaid | None
    blocked: Blocked | None
    flips: Annotated[dict[str, Any] | None, Field(description="decisions that change, as evidence has them")]
    explanation: Explanation | None
    glance: list[Tile]
    changes: list[Difference]
    groups: list[Attribute]
    gates: list[GateAnswer]
    pending: Annotated[list[str], Field(description="gates that have not answered")]
    seats: list[SeatSaid]
    questions: list[InterviewAnswer]
    waivers: list[ReleaseWaiver]
    earlier: list[EarlierRelease]
    asked: list[Asked]
    may_ask: bool
    answers: list[Answer]
    viewer: str
    digests: Digests | None = None
    policy_version: str = ""
    deadline_us: Us | None = None
    condition_days: float | None = None


# Receipts


class AnswerReceipt(Answered):
    """An answer that counts."""

    release: str
    seat: int
    choice: Literal["approve", "reject"]


class QuestionReceipt(Answered):
    """A question, or an answer to one, that is on record."""

    release: str
    question: str
