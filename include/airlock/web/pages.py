"""The pages: dashboard, releases, one release, and answering in place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from airlock.core.release import State
from airlock.services.overview import Filter
from airlock.services.watch import answer_release
from airlock.web import views
from airlock.web.access import Reader, Writer
from airlock.web.rendering import link, render

router = APIRouter(default_response_class=HTMLResponse)

PAGE = 50
Track = Literal["", "green", "yellow", "red"]


def _page(request: Request, template: str, **values: Any) -> str:
    return render(template, root=request.scope.get("root_path", ""), **values)


@router.get("/")
def dashboard(request: Request, visitor: Reader, days: Annotated[int, Query(ge=1, le=3650)] = 90) -> str:
    """What is governed, what waits, and how well it flows."""
    return _page(request, "dashboard.html.j2", **views.dashboard(visitor, days=days), viewer=visitor.name)


@router.get("/releases")
def releases(
    request: Request,
    visitor: Reader,
    *,
    workload: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=40)] = "",
    track: Annotated[Track, Query()] = "",
    submitter: Annotated[str, Query(max_length=200)] = "",
    gate: Annotated[str, Query(max_length=60)] = "",
    role: Annotated[str, Query(max_length=60)] = "",
    days: Annotated[int, Query(ge=0, le=3650)] = 0,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> str:
    """Releases, newest first, narrowed by what is given."""
    now = visitor.deployment.clock.now_us()
    wanted = Filter(
        workload=workload,
        state=state,
        track=track,
        submitter=submitter,
        gate=gate,
        role=role,
        since_us=now - days * 86_400_000_000 if days else 0,
    )
    chosen = {
        "workload": workload, "state": state, "track": track, "submitter": submitter, "gate": gate,
        "role": role, "days": days,
    }  # fmt: skip
    found = views.release_list(visitor, wanted, limit=PAGE, offset=offset)
    return _page(
        request,
        "releases.html.j2",
        **found,
        chosen=chosen,
        states=[str(each) for each in State],
        viewer=visitor.name,
    )


@router.get("/releases/{release_id}")
def release(request: Request, visitor: Reader, release_id: str, said: Annotated[str, Query()] = "") -> str:
    """Should I approve this? One page with everything that answers it."""
    page = views.review(visitor, release_id)
    return _page(
        request, "release.html.j2", **page, said=said in ("approve", "reject") and said, problem=None
    )


@router.get("/runs/{dag_id}/{run_id}")
def run(request: Request, visitor: Reader, dag_id: str, run_id: str) -> Response:
    """The release of a DAG run: where the tab of a run in Airflow leads."""
    release_id = views.release_of_run(visitor, dag_id, run_id)
    return RedirectResponse(f"{request.scope.get('root_path', '')}{link('releases', release_id)}", 307)


@router.post("/releases/{release_id}/answer")
def answer(
    request: Request,
    visitor: Writer,
    release_id: str,
    *,
    seat: Annotated[int, Form(ge=1, le=100)],
    choice: Annotated[Literal["approve", "reject"], Form()],
    comment: Annotated[str, Form(max_length=20_000)] = "",
) -> Response:
    """Approve or reject in place; Airflow's own rules and the audit store decide whether it counts."""
    visitor.release(release_id)
    answer_release(
        visitor.deployment,
        visitor.airflow(),
        release_id,
        user=visitor.name,
        choice=choice.title(),
        comment=comment,
        seat=seat,
    )
    return RedirectResponse(
        f"{request.scope.get('root_path', '')}{link('releases', release_id, said=choice)}", status_code=303
    )
