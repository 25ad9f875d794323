"""Attacks on the pages: every route, by everybody who should not; hostile text; hostile paths; other sites.

Routes are read from the application, so that a new one is attacked as soon as it exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from typing import Any
from urllib.parse import quote
from zipfile import ZipFile

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airlock.core.audit import Kind
from airlock.core.evidence import Finding, GateResult, Metric, Verdict
from airlock.services.decide import decide
from airlock.services.evaluate import keep_evidence
from airlock.services.releases import open_case
from airlock.web import access, pages, rest
from airlock.web.app import create_app
from tests.support.deployments import World, edit, fast_folder, make_world
from tests.unit.test_web import SIGNED, FakeManager, User, api_routes, client

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"
SAME_SITE = {"sec-fetch-site": "same-origin"}
OPEN = {"/api/openapi.json", "/static"}
"""What needs no login: a description of the interface, and the style of the pages."""


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


@pytest.fixture(scope="module")
def denied(shared: World) -> str:
    """A denied release with files, hostile text in every field that somebody can write."""
    quoted = HOSTILE.replace("'", "''")
    edit(shared.workload_file, "title: Loan model", f"title: '{quoted}'")
    release_id = shared.frozen("2", context=HOSTILE, user="dana")
    case = open_case(shared.deployment, release_id)
    shared.evidence(release_id, relative=0.3, verdicts={"performance": None})
    put = shared.deployment.evidence.put
    result = GateResult(
        verdict=Verdict.FAILED,
        summary=f"summary {HOSTILE}",
        findings=[Finding(id="x", verdict=Verdict.FAILED, message=HOSTILE, where=HOSTILE, fix=HOSTILE)],
        metrics=[
            Metric(name=HOSTILE, value=1.0, threshold=0.5, direction="lower", where=HOSTILE),
            Metric(name="selection_rate", value=0.5, where=f"{HOSTILE}: {HOSTILE}", n=10),
            Metric(name="free", value=2.0, where=HOSTILE),
        ],
        files={
            "report.html": put(b"<script>alert(document.cookie)</script>"),
            "plot.svg": put(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
            "evidently.html": put(b"<html><script>alert(1)</script></html>"),
            "scores.parquet": put(b"rows about people"),
            'a"\r\nSet-Cookie: x=1;.json': put(b"{}"),
        },
        details={"change": {"relative": 0.3}},
    )
    keep_evidence(shared.deployment, case, "performance", config={}, result=result, seconds=0.1)
    decide(shared.deployment, release_id)
    return release_id


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    manager = FakeManager({"release__loan-model"})
    monkeypatch.setattr(access, "get_auth_manager", lambda: manager)
    return manager


def routes(app: FastAPI) -> list[APIRoute]:
    return [route for route in api_routes(app) if route.path not in SIGNED]


def requests_of(app: FastAPI, **values: str) -> list[tuple[str, str]]:
    """Every method and path there is, with its parameters filled in."""
    filled = {"release_id": "nothing-v1-00000000", "digest": "0" * 64, "gate": "performance"}
    filled |= {"dag_id": "release__loan-model", "run_id": "run-1", "question_id": "0" * 16, **values}
    found = []
    for route in routes(app):
        path = re.sub(r"\{(\w+)\}", lambda match: quote(filled[match[1]], safe=""), route.path)
        found += [(method, path) for method in sorted(route.methods)]
    return found


BODIES: dict[str, dict[str, Any]] = {
    "/answer": {"data": {"seat": "1", "choice": "approve", "comment": ""}},
    "/answers": {"json": {"seat": 1, "choice": "approve"}},
    "/again": {"data": {"version": "3"}},
    "/api/again": {"json": {"version": "3"}},
    "/question": {"data": {"seat": "1", "text": HOSTILE}},
    "/questions": {"json": {"seat": 1, "text": HOSTILE}},
    "/reply": {"data": {"text": HOSTILE}},
    "/api/reply": {"json": {"text": HOSTILE}},
}


def body_of(path: str) -> dict[str, Any]:
    name = path[path.rindex("/") :]
    return BODIES.get(f"/api{name}" if path.startswith("/api") else name, BODIES.get(name, {}))


def test_every_route_is_known_to_these_attacks() -> None:
    app = create_app()
    mounted = {route.path for route in app.routes} - {route.path for route in api_routes(app)}  # type: ignore[attr-defined]
    assert mounted <= OPEN
    posts = [path for method, path in requests_of(app) if method == "POST"]
    assert len(requests_of(app)) >= 17
    assert all(body_of(path) for path in posts)
    documented = set(app.openapi()["paths"])
    assert documented >= {route.path for route in routes(app) if route.path.startswith("/api")}


@pytest.mark.requirement("E-6", "A-2")
def test_nobody_gets_anything_without_a_login(shared: World, denied: str) -> None:
    """The real dependency of Airflow, without a token."""
    browser = TestClient(create_app(), raise_server_exceptions=False)
    for method, path in requests_of(create_app(), release_id=denied):
        answer = browser.request(method, path, headers=SAME_SITE, **body_of(path))
        assert answer.status_code == 401, (method, path, answer.status_code)
        assert denied not in answer.text


@pytest.mark.requirement("E-6")
def test_who_may_see_no_runs_gets_nothing(
    shared: World, denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nobody(FakeManager):
        def is_authorized_dag(self, **_: Any) -> bool:
            return False

    nobody = Nobody(set())
    monkeypatch.setattr(access, "get_auth_manager", lambda: nobody)
    app = create_app()
    user = next(
        each.call
        for route in routes(app)
        for dependency in route.dependant.dependencies
        for each in [
            dependency,
            *dependency.dependencies,
            *(d for x in dependency.dependencies for d in x.dependencies),
        ]
        if each.call is not None and getattr(each.call, "__name__", "") == "get_user"
    )
    app.dependency_overrides[user] = lambda: User("nobody")
    browser = TestClient(app, raise_server_exceptions=False)
    for method, path in requests_of(app, release_id=denied):
        answer = browser.request(method, path, headers=SAME_SITE, **body_of(path))
        assert answer.status_code == 403, (method, path, answer.status_code)


@pytest.mark.requirement("E-6")
def test_a_user_of_another_workload_sees_the_same_as_for_nothing(
    shared: World, denied: str, manager: FakeManager
) -> None:
    manager.dags = {"release__another"}
    browser = client(shared, "eve")
    for method, path in requests_of(create_app(), release_id=denied):
        if denied not in path:
            continue
        real = browser.request(method, path, headers=SAME_SITE, **body_of(path))
        none = browser.request(
            method, path.replace(denied, "nothing-v1-00000000"), headers=SAME_SITE, **body_of(path)
        )
        assert real.status_code == none.status_code == 404, (method, path)
        assert real.text == none.text.replace("nothing-v1-00000000", denied)


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize("user", ["dana", "vera", "petra", "stranger"])
def test_the_wrong_people_see_no_button_and_airflow_is_asked_as_themselves(
    shared: World, manager: FakeManager, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_id = shared.judged("3", track="red", run=f"wrong-{user}")
    assert 'value="approve"' not in client(shared, user).get(f"/releases/{release_id}").text
    asked: list[str] = []

    def as_user(deployment: Any, airflow: Any, release: str, *, user: str, **_: Any) -> int:
        asked.append(user)
        return 0

    monkeypatch.setattr(pages, "answer_release", as_user)
    monkeypatch.setattr(rest, "answer_release", as_user)
    monkeypatch.setattr(access.Visitor, "airflow", lambda _: None)
    form = {"seat": "1", "choice": "approve", "user": "grace"}
    client(shared, user).post(f"/releases/{release_id}/answer", headers=SAME_SITE, data=form)
    client(shared, user).post(
        f"/api/releases/{release_id}/answers", headers=SAME_SITE, json={**form, "seat": 1}
    )
    assert asked == [user, user]


def test_nothing_is_changed_by_a_request_of_another_site(
    shared: World, denied: str, manager: FakeManager
) -> None:
    before = len(shared.deployment.audit.events())
    browser = client(shared, "grace")
    hostile_headers: list[dict[str, str]] = [
        {}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "none"},
        {"origin": "null"}, {"origin": "https://evil.example"}, {"origin": "http://testserver.evil.example"},
        {"referer": "http://testserver/"},
    ]  # fmt: skip
    for method, path in requests_of(create_app(), release_id=denied):
        if method == "GET":
            continue
        for headers in hostile_headers:
            answer = browser.request(method, path, headers=headers, **body_of(path))
            assert answer.status_code == 403, (method, path, headers)
    assert len(shared.deployment.audit.events()) == before


@pytest.mark.parametrize(
    "said", ["https://evil.example", "//evil.example", "again://evil.example", "again:" + HOSTILE]
)
def test_no_page_leads_to_another_site(shared: World, denied: str, manager: FakeManager, said: str) -> None:
    page = client(shared).get(f"/releases/{denied}", params={"said": said})
    assert page.status_code == 200
    for target in re.findall(r'(?:href|action|src)="([^"]*)"', page.text):
        assert target.startswith(("/", "#")), target
        assert not target.startswith(("//", "/\\")), target
    for path in ("//evil.example", "/\\evil.example", "/runs/release__loan-model/%2f%2fevil.example"):
        moved = client(shared).get(path, follow_redirects=False)
        assert "evil" not in moved.headers.get("location", "")


@pytest.mark.parametrize("page", ["/releases/{}", "/releases/{}/gates/performance", "/", "/releases"])
def test_text_of_others_stays_text(shared: World, denied: str, manager: FakeManager, page: str) -> None:
    text = client(shared, "grace").get(page.format(denied)).text
    assert "alert(1)" in text
    reader = Tags()
    reader.feed(text)
    assert "script" not in reader.names
    assert reader.names.count("img") == page.count("/gates/"), "only the plot"
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert "49" not in re.findall(r"&gt;(\d+)", text), "what people write is no template"


class Tags(HTMLParser):
    """The elements and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [name for name, _ in attrs]


@pytest.mark.requirement("E-6")
@pytest.mark.parametrize("field", ["workload", "submitter", "gate", "role", "rule"])
def test_filters_are_values_and_never_sql(
    shared: World, denied: str, manager: FakeManager, field: str
) -> None:
    for hostile in (HOSTILE, "' OR 1=1 --", "x'); DROP TABLE release; --"):
        page = client(shared).get("/releases", params={field: hostile[:55]})
        assert page.status_code == 200
        assert "No release matches" in page.text
        assert "<script>alert" not in page.text
    assert client(shared).get("/api/releases").json()["total"] >= 1


@pytest.mark.requirement("E-6")
def test_a_file_is_given_only_to_its_release_and_by_its_digest(
    shared: World, denied: str, manager: FakeManager
) -> None:
    other = shared.judged("3", run="other-files", verdicts={"performance": Verdict.FAILED})
    browser = client(shared)
    files = {file["name"]: file for file in browser.get(f"/api/releases/{denied}/evidence").json()}
    digest = files["scores.parquet"]["digest"]
    assert browser.get(f"/releases/{denied}/evidence/{digest}").content == b"rows about people"
    assert browser.get(f"/releases/{other}/evidence/{digest}").status_code == 404
    stored = shared.deployment.evidence.put(b"of nobody")
    paths = [
        stored, "../../audit.db", "..%2f..%2faudit.db", "%2e%2e%2f%2e%2e%2faudit.db", "....//audit.db",
        digest.upper(),
        digest[:-1], digest + "0", "%00" + digest, "", "~root", "/etc/passwd", "report.html",
    ]  # fmt: skip
    for path in paths:
        for prefix in ("", "/api"):
            answer = browser.get(f"{prefix}/releases/{denied}/evidence/{path}")
            if path == "" and prefix:
                continue  # the list of the files
            assert answer.status_code in (404, 405), path
            assert b"SQLite" not in answer.content


def test_what_opens_can_run_nothing_and_what_cannot_be_trusted_is_downloaded(
    shared: World, denied: str, manager: FakeManager
) -> None:
    browser = client(shared)
    files = browser.get(f"/api/releases/{denied}/evidence").json()
    seen = set()
    for file in files:
        answer = browser.get(f"/releases/{denied}/evidence/{file['digest']}")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox;")
        assert "allow-scripts" not in policy
        assert "script-src" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers
        shown = answer.headers["content-type"].split(";")[0] in ("text/html", "image/svg+xml", "image/png")
        assert shown is file["shown"] is ("attachment" not in answer.headers.get("content-disposition", ""))
        seen.add((file["name"], shown))
    assert ("report.html", True) in seen
    assert ("evidently.html", False) in seen, "a report of somebody else needs scripts: it is not opened here"
    assert any(name.startswith('a"') for name, _ in seen)


@pytest.mark.requirement("E-6")
def test_a_read_of_what_can_hold_people_is_recorded_before_it_is_given(
    shared: World, denied: str, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = client(shared, "vera")
    files = {file["name"]: file["digest"] for file in browser.get(f"/api/releases/{denied}/evidence").json()}

    def reads() -> list[dict[str, Any]]:
        found = shared.deployment.audit.events(kinds=[Kind.AUDIT_READ], actor="vera")
        return [entry.event.data for entry in found]

    before = len(reads())
    browser.get(f"/releases/{denied}/evidence/{files['plot.svg']}")
    assert len(reads()) == before
    browser.get(f"/releases/{denied}/evidence/{files['scores.parquet']}")
    last = reads()[-1]
    assert (len(reads()), last["question"]) == (before + 1, "evidence-file")
    assert last["arguments"]["file"] == "scores.parquet"
    assert last["arguments"]["release"] == denied

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("airlock.services.evidence_files.record_access", broken)
    refused = browser.get(f"/releases/{denied}/evidence/{files['scores.parquet']}")
    assert refused.status_code == 500
    assert b"rows about people" not in refused.content


@pytest.mark.requirement("E-3", "E-6")
def test_the_pack_is_downloaded_verified_and_recorded(
    shared: World, denied: str, manager: FakeManager
) -> None:
    browser = client(shared, "grace")
    for path in (f"/releases/{denied}/pack", f"/api/releases/{denied}/pack"):
        answer = browser.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"] == f'attachment; filename="{denied}.zip"'
        assert "pack.json" in ZipFile(BytesIO(answer.content)).namelist()
    taken = [
        entry.event.data for entry in shared.deployment.audit.events(kinds=[Kind.AUDIT_READ], actor="grace")
    ]
    assert [data["arguments"]["release"] for data in taken if data["question"] == "evidence-pack"] == [
        denied
    ] * 2


@pytest.mark.requirement("A-7")
def test_evidence_that_was_changed_is_not_shown(manager: FakeManager) -> None:
    with fast_folder() as folder:
        world = make_world(folder / "world")
        release_id = world.judged("2", verdicts={"performance": Verdict.FAILED})
        world.evidence_file(world.release(release_id).gates[0].digest).write_bytes(b"{}")
        for path in (
            "/releases/{}",
            "/releases/{}/gates/performance",
            "/api/releases/{}",
            "/api/releases/{}/why",
        ):
            answer = client(world).get(path.format(release_id))
            assert answer.status_code == 500
            assert "was changed on disk" in answer.text


def test_two_tabs_at_once_give_one_answer_and_say_so(
    shared: World, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Airflow does for the second tab (409), and the page of a seat that was filled meanwhile."""
    release_id = shared.judged("3", track="red", run="tabs")

    def through_airflow(deployment: Any, airflow: Any, release: str, **said: Any) -> int:
        shared.answer(release, said["user"], said["seat"] - 1, said["choice"].lower(), said["comment"])
        return int(said["seat"]) - 1

    monkeypatch.setattr(pages, "answer_release", through_airflow)
    monkeypatch.setattr(access.Visitor, "airflow", lambda _: None)
    form = {"seat": "1", "choice": "approve", "comment": "Looked at it."}
    first, second = client(shared, "grace"), client(shared, "omar")
    assert 'value="approve"' in second.get(f"/releases/{release_id}").text
    done = first.post(f"/releases/{release_id}/answer", headers=SAME_SITE, data=form, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, f"/releases/{release_id}?said=approve")
    late = second.post(f"/releases/{release_id}/answer", headers=SAME_SITE, data=form)
    assert late.status_code == 403
    assert "seat 1 is already filled by grace" in late.text
    assert len(shared.events(Kind.APPROVAL_RECORDED, release_id)) == 1
    assert "approved by grace" in second.get(f"/releases/{release_id}").text
