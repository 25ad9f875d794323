"""The pages: dashboard, releases, one release, and answering in place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from airlock.core.release import State
from airlock.services.ask import ask, reply
from airlock.services.blocked import submit_again
from airlock.services.overview import Filter
from airlock.services.watch import answer_release
from airlock.web import files, lists, views
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
    return _page(request, "dashboard.html.j2", **lists.dashboard(visitor, days=days), viewer=visitor.name)


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
    rule: Annotated[str, Query(max_length=60)] = "",
    escaped: bool = False,
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
        rule=rule,
        escaped=escaped,
        since_us=now - days * 86_400_000_000 if days else 0,
    )
    chosen = {
        "workload": workload, "state": state, "track": track, "submitter": submitter, "gate": gate,
        "role": role, "rule": rule, "escaped": "true" if escaped else "",
        "days": days,
    }  # fmt: skip
    found = lists.release_list(visitor, wanted, limit=PAGE, offset=offset)
    return _page(
        request,
        "releases.html.j2",
        **found,
        chosen=chosen,
        states=[str(each) for each in State],
        viewer=visitor.name,
    )


@router.get("/workloads")
def workloads(request: Request, visitor: Reader) -> str:
    """Everything that is governed, what needs attention first."""
    return _page(request, "workloads.html.j2", **lists.workload_list(visitor), viewer=visitor.name)


@router.get("/incidents")
def incidents(request: Request, visitor: Reader, workload: Annotated[str, Query(max_length=200)] = "") -> str:
    """Incidents, open ones first."""
    found = lists.incident_list(visitor, workload=workload)
    return _page(request, "incidents.html.j2", **found, chosen=workload, viewer=visitor.name)


@router.get("/waivers")
def waivers(request: Request, visitor: Reader, workload: Annotated[str, Query(max_length=200)] = "") -> str:
    """Waivers, those in force first."""
    found = lists.waiver_list(visitor, workload=workload)
    return _page(request, "waivers.html.j2", **found, chosen=workload, viewer=visitor.name)


@router.get("/audit")
def audit(request: Request, visitor: Reader) -> str:
    """The state of the audit log: newest checkpoint, anchors, what waits."""
    return _page(request, "audit.html.j2", audit=lists.audit_state(visitor), viewer=visitor.name)


@router.get("/releases/{release_id}")
def release(request: Request, visitor: Reader, release_id: str, said: Annotated[str, Query()] = "") -> str:
    """Should I approve this? One page with everything that answers it."""
    page = views.review(visitor, release_id)
    notice = _SAID.get(said.partition(":")[0], "")
    again = said.partition(":")[2] if said.startswith("again:") else ""
    # Airflow shows the page in a frame from which no link leads out: there it names the run instead.
    framed = request.headers.get("sec-fetch-dest") == "iframe"
    return _page(request, "release.html.j2", **page, notice=notice, again=again, framed=framed)


_SAID = {
    "approve": "Your approval is recorded and counts.",
    "reject": "Your rejection is recorded; the submitter gets your words.",
    "question": "Your question is recorded; the submitter is told.",
    "reply": "Your answer is recorded; it stands beside the question.",
    "again": "It is submitted again; the new release appears as soon as Airflow has started its run.",
}


@router.get("/releases/{release_id}/gates/{gate}")
def gate(request: Request, visitor: Reader, release_id: str, gate: str) -> str:
    """One gate of a release: every number with its limit and its past, the plot, the files."""
    return _page(request, "gate.html.j2", **views.gate_page(visitor, release_id, gate))


@router.get("/releases/{release_id}/evidence/{digest}", response_class=Response)
def evidence(visitor: Reader, release_id: str, digest: str) -> Response:
    """A file of this release: reports and images are shown, everything else is downloaded."""
    return files.evidence_response(visitor, release_id, digest)


@router.get("/releases/{release_id}/pack", response_class=Response)
def pack(visitor: Reader, release_id: str) -> Response:
    """The evidence pack, made now, verified, and downloaded."""
    return files.pack_response(visitor, release_id)


@router.post("/releases/{release_id}/again")
def again(
    request: Request,
    visitor: Writer,
    release_id: str,
    *,
    version: Annotated[str, Form(max_length=20)] = "",
    batch: Annotated[str, Form(max_length=60)] = "",
    context: Annotated[str, Form(max_length=20_000)] = "",
) -> Response:
    """Submit a stopped release again, as the user who is logged in, through Airflow's own API."""
    visitor.release(release_id)
    new, _ = submit_again(
        visitor.deployment, visitor.airflow(), release_id, version=version, batch=batch, context=context
    )
    return _back(request, release_id, said=f"again:{new}")


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
    condition: Annotated[str, Form(max_length=20_000)] = "",
    until: Annotated[str, Form(max_length=40)] = "",
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
        condition=condition if choice == "approve" else "",
        until=until if choice == "approve" and condition.strip() else "",
    )
    return _back(request, release_id, said=choice)


@router.post("/releases/{release_id}/question")
def question(
    request: Request,
    visitor: Writer,
    release_id: str,
    *,
    seat: Annotated[int, Form(ge=1, le=100)],
    text: Annotated[str, Form(max_length=20_000)],
) -> Response:
    """Ask the submitter something before answering; the question stands on record."""
    visitor.release(release_id)
    ask(visitor.deployment, release_id, seat - 1, user=visitor.name, text=text)
    return _back(request, release_id, said="question")


@router.post("/releases/{release_id}/questions/{question_id}/reply")
def question_reply(
    request: Request,
    visitor: Writer,
    release_id: str,
    question_id: str,
    *,
    text: Annotated[str, Form(max_length=20_000)],
) -> Response:
    """Answer a question, on record."""
    visitor.release(release_id)
    reply(visitor.deployment, release_id, question_id, user=visitor.name, text=text)
    return _back(request, release_id, said="reply")


def _back(request: Request, release_id: str, **query: str) -> Response:
    """To the page of a release, and never anywhere else: its path is made here."""
    return RedirectResponse(
        f"{request.scope.get('root_path', '')}{link('releases', release_id, **query)}", status_code=303
    )
