"""REST: what the pages show, as JSON, under the same authorisation (requirement U-3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from airlock.core.release import State
from airlock.services.ask import ask, reply
from airlock.services.blocked import Blocked, submit_again, why_blocked
from airlock.services.evidence_files import EvidenceFile, list_files
from airlock.services.overview import Filter
from airlock.services.watch import answer_release
from airlock.web import files, lists, schema, views
from airlock.web.access import Reader, Writer

router = APIRouter()


class ErrorBody(BaseModel):
    """What is wrong, where, and how to fix it."""

    what: str
    where: str
    fix: str


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


_FAILURES: dict[int | str, dict[str, Any]] = {
    code: {"model": Failure} for code in (400, 401, 403, 404, 409, 422, 503)
}


class AnswerBody(BaseModel):
    """A person's answer for a seat of a release."""

    seat: Annotated[int, Field(ge=1, le=100, description="number of the seat, from 1")]
    choice: Literal["approve", "reject"]
    comment: Annotated[str, Field(max_length=4000, description="why; a rejection must explain itself")] = ""
    condition: Annotated[str, Field(max_length=4000, description="what has to be done for it to stay")] = ""
    until: Annotated[
        str,
        Field(max_length=40, description="last day to do it, or a moment (UTC): 2026-03-31T14:30"),
    ] = ""


class QuestionBody(BaseModel):
    """A question to the submitter, before answering for a seat."""

    seat: Annotated[int, Field(ge=1, le=100, description="number of the seat, from 1")]
    text: Annotated[str, Field(min_length=1, max_length=4000)]


class ReplyBody(BaseModel):
    """What somebody answers to a question."""

    text: Annotated[str, Field(min_length=1, max_length=4000)]


class AgainBody(BaseModel):
    """What is different when a release is submitted again; what is empty stays as it was."""

    version: Annotated[str, Field(pattern=r"^([1-9][0-9]{0,8})?$", description="version in the registry")] = (
        ""
    )
    batch: Annotated[str, Field(max_length=60, description="evaluation batch")] = ""
    context: Annotated[str, Field(max_length=4000, description="why this release")] = ""


class Submitted(BaseModel):
    """The release that was started; it is on record as soon as the first task of its run has ended."""

    release: str
    run_id: str


@router.get(
    "/overview",
    response_model=schema.Dashboard,
    responses=_FAILURES,
    summary="Inventory, what waits, and measures",
)
def overview(visitor: Reader, days: Annotated[int, Query(ge=1, le=3650)] = 90) -> dict[str, Any]:
    """The dashboard as data: workloads, releases that wait, lead and waiting times, gates, audit state."""
    return lists.dashboard(visitor, days=days)


@router.get(
    "/releases", response_model=schema.Releases, responses=_FAILURES, summary="Releases, newest first"
)
def releases(
    visitor: Reader,
    *,
    workload: str = "",
    state: Annotated[State | None, Query()] = None,
    track: Annotated[Literal["green", "yellow", "red", ""], Query()] = "",
    submitter: str = "",
    gate: Annotated[str, Query(max_length=60, description="refused by this gate")] = "",
    role: Annotated[str, Query(max_length=60, description="waits for this role")] = "",
    rule: Annotated[str, Query(max_length=60, description="denied by this rule")] = "",
    escaped: Annotated[bool, Query(description="went into production and had to be looked at again")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """One page of the releases that this user may see."""
    wanted = Filter(
        workload=workload,
        state=str(state or ""),
        track=track,
        submitter=submitter,
        gate=gate,
        role=role,
        rule=rule,
        escaped=escaped,
    )
    return lists.release_list(visitor, wanted, limit=limit, offset=offset)


@router.get(
    "/workloads", response_model=schema.Workloads, responses=_FAILURES, summary="Everything that is governed"
)
def workloads(visitor: Reader) -> dict[str, Any]:
    """Each workload with champion, risk tier, last release, drift, open incidents and waivers."""
    return lists.workload_list(visitor)


@router.get(
    "/incidents", response_model=schema.Incidents, responses=_FAILURES, summary="Incidents, open ones first"
)
def incidents(visitor: Reader, workload: Annotated[str, Query(max_length=200)] = "") -> dict[str, Any]:
    """Incidents of what this user may see."""
    return lists.incident_list(visitor, workload=workload)


@router.get(
    "/waivers", response_model=schema.Waivers, responses=_FAILURES, summary="Waivers, those in force first"
)
def waivers(visitor: Reader, workload: Annotated[str, Query(max_length=200)] = "") -> dict[str, Any]:
    """Waivers of what this user may see."""
    return lists.waiver_list(visitor, workload=workload)


@router.get("/audit", response_model=schema.AuditState, responses=_FAILURES, summary="State of the audit log")
def audit(visitor: Reader) -> dict[str, Any]:
    """Size, newest checkpoint, what waits to be signed, and how far each anchor has it."""
    return lists.audit_state(visitor)


@router.get(
    "/releases/{release_id}",
    response_model=schema.Review,
    responses=_FAILURES,
    summary="One release, with everything behind it",
)
def release(visitor: Reader, release_id: str) -> dict[str, Any]:
    """What the review page shows: decision, reasons, gates with numbers and limits, answers, history."""
    return views.review(visitor, release_id)


@router.get("/releases/{release_id}/why", responses=_FAILURES, summary="Why was I blocked?")
def why(visitor: Reader, release_id: str) -> Blocked:
    """What stopped a release: rules, values, remedies, what a lighter track needs, how to try again."""
    visitor.release(release_id)
    return why_blocked(visitor.deployment, release_id)


@router.get(
    "/releases/{release_id}/gates/{gate}",
    response_model=schema.GatePage,
    responses=_FAILURES,
    summary="One gate of a release",
)
def gate(visitor: Reader, release_id: str, gate: str) -> dict[str, Any]:
    """Every number of the gate with its interval, limit and past, its findings, and its files."""
    return views.gate_page(visitor, release_id, gate)


@router.get("/releases/{release_id}/evidence", responses=_FAILURES, summary="Files of a release")
def evidence_files(visitor: Reader, release_id: str) -> list[EvidenceFile]:
    """Manifest, decision, and each gate's evidence and files, by digest."""
    return list_files(visitor.deployment, visitor.release(release_id))


@router.get(
    "/releases/{release_id}/evidence/{digest}",
    responses=_FAILURES | {200: {"content": {"application/octet-stream": {}}, "description": "the file"}},
    response_class=Response,
    summary="One file of a release",
)
def evidence_file(visitor: Reader, release_id: str, digest: str) -> Response:
    """The content, verified against its digest; a read is recorded, unless it is of a report or plot."""
    return files.evidence_response(visitor, release_id, digest)


@router.get(
    "/releases/{release_id}/pack",
    responses=_FAILURES | {200: {"content": {"application/zip": {}}, "description": "the pack"}},
    response_class=Response,
    summary="The evidence pack of a release",
)
def pack(visitor: Reader, release_id: str) -> Response:
    """Made now from the signed log, and verified. That it was taken is recorded."""
    return files.pack_response(visitor, release_id)


@router.post(
    "/releases/{release_id}/again",
    status_code=202,
    responses=_FAILURES,
    summary="Submit a stopped release again",
)
def again(visitor: Writer, release_id: str, body: AgainBody) -> Submitted:
    """Start a new release as the user who is logged in, through Airflow's own API."""
    visitor.release(release_id)
    new, run_id = submit_again(
        visitor.deployment,
        visitor.airflow(),
        release_id,
        version=body.version,
        batch=body.batch,
        context=body.context,
    )
    return Submitted(release=new, run_id=run_id)


@router.post("/releases/{release_id}/answers", responses=_FAILURES, summary="Approve or reject")
def answer(visitor: Writer, release_id: str, body: AnswerBody) -> schema.AnswerReceipt:
    """Answer for a seat, as the user who is logged in, through Airflow's own API."""
    visitor.release(release_id)
    index = answer_release(
        visitor.deployment,
        visitor.airflow(),
        release_id,
        user=visitor.name,
        choice=body.choice.title(),
        comment=body.comment,
        condition=body.condition,
        until=body.until,
        seat=body.seat,
    )
    return schema.AnswerReceipt(release=release_id, seat=index + 1, choice=body.choice)


@router.post("/releases/{release_id}/questions", responses=_FAILURES, summary="Ask the submitter")
def question(visitor: Writer, release_id: str, body: QuestionBody) -> schema.QuestionReceipt:
    """Ask something before answering, on record; the same words again change nothing."""
    visitor.release(release_id)
    asked = ask(visitor.deployment, release_id, body.seat - 1, user=visitor.name, text=body.text)
    return schema.QuestionReceipt(release=release_id, question=asked)


@router.post(
    "/releases/{release_id}/questions/{question_id}/reply", responses=_FAILURES, summary="Answer a question"
)
def question_reply(
    visitor: Writer, release_id: str, question_id: str, body: ReplyBody
) -> schema.QuestionReceipt:
    """Answer a question, on record."""
    visitor.release(release_id)
    reply(visitor.deployment, release_id, question_id, user=visitor.name, text=body.text)
    return schema.QuestionReceipt(release=release_id, question=question_id)
