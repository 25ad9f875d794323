"""REST: what the pages show, as JSON, under the same authorisation (requirement U-3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from airlock.core.release import State
from airlock.services.overview import Filter
from airlock.services.watch import answer_release
from airlock.web import views
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


_FAILURES: dict[int | str, dict[str, Any]] = {code: {"model": Failure} for code in (401, 403, 404, 422, 503)}


class AnswerBody(BaseModel):
    """A person's answer for a seat of a release."""

    seat: Annotated[int, Field(ge=1, le=100, description="number of the seat, from 1")]
    choice: Literal["approve", "reject"]
    comment: Annotated[str, Field(max_length=4000, description="why; a rejection must explain itself")] = ""


@router.get("/overview", responses=_FAILURES, summary="Inventory, what waits, and measures")
def overview(visitor: Reader, days: Annotated[int, Query(ge=1, le=3650)] = 90) -> dict[str, Any]:
    """The dashboard as data: workloads, releases that wait, lead and waiting times, gates, audit state."""
    return views.dashboard(visitor, days=days)


@router.get("/releases", responses=_FAILURES, summary="Releases, newest first")
def releases(
    visitor: Reader,
    *,
    workload: str = "",
    state: Annotated[State | None, Query()] = None,
    track: Annotated[Literal["green", "yellow", "red", ""], Query()] = "",
    submitter: str = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """One page of the releases that this user may see."""
    wanted = Filter(workload=workload, state=str(state or ""), track=track, submitter=submitter)
    return views.release_list(visitor, wanted, limit=limit, offset=offset)


@router.get("/releases/{release_id}", responses=_FAILURES, summary="One release, with everything behind it")
def release(visitor: Reader, release_id: str) -> dict[str, Any]:
    """What the review page shows: decision, reasons, gates with numbers and limits, answers, history."""
    return views.review(visitor, release_id)


@router.post("/releases/{release_id}/answers", responses=_FAILURES, summary="Approve or reject")
def answer(visitor: Writer, release_id: str, body: AnswerBody) -> dict[str, Any]:
    """Answer for a seat, as the user who is logged in, through Airflow's own API."""
    visitor.release(release_id)
    index = answer_release(
        visitor.deployment,
        visitor.airflow(),
        release_id,
        user=visitor.name,
        choice=body.choice.title(),
        comment=body.comment,
        seat=body.seat,
    )
    return {"release": release_id, "seat": index + 1, "choice": body.choice}
