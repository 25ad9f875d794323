"""Pages and REST: what they say, and that nobody gets past Airflow's own authorisation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airlock.core.audit import Kind
from airlock.core.evidence import Verdict
from airlock.services.deployment import anchors_of
from airlock.services.sequence import Sequencer
from airlock.web import access
from airlock.web.app import create_app
from tests.support.deployments import World, fast_folder, make_world

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


SIGNED = {"/slack/actions"}
"""Routes that believe a signature instead of a login; `test_slack.py` attacks them."""


class User:
    """A user of Airflow, as far as the pages ask."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_name(self) -> str:
        return self.name


class FakeManager:
    """Airflow's auth manager, for one user who may see some DAGs."""

    def __init__(self, dags: set[str]) -> None:
        self.dags = dags

    def get_authorized_dag_ids(self, *, user: Any, method: str) -> set[str]:
        return self.dags

    def is_authorized_dag(self, *, details: Any = None, **_: Any) -> bool:
        return details is None or details.id in self.dags


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    manager = FakeManager({"release__loan-model"})
    monkeypatch.setattr(access, "get_auth_manager", lambda: manager)
    return manager


def client(world: World, user: str = "grace") -> TestClient:
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    sequencer.step()
    sequencer.publish()
    app = create_app()
    app.dependency_overrides[access.reader] = lambda: access.Visitor(world.deployment, User(user))
    return TestClient(app, raise_server_exceptions=False)


def api_routes(app: FastAPI) -> list[APIRoute]:
    return [route for route in app.routes if isinstance(route, APIRoute)]


@pytest.mark.requirement("E-6")
def test_every_route_asks_who_it_is() -> None:
    def asks(route: APIRoute) -> set[Any]:
        found, left = set(), list(route.dependant.dependencies)
        while left:
            dependency = left.pop()
            found.add(dependency.call)
            left += dependency.dependencies
        return found

    routes = [route for route in api_routes(create_app()) if route.path not in SIGNED]
    assert len(routes) >= 8
    for route in routes:
        wanted = access.reader if route.methods <= {"GET", "HEAD"} else access.writer
        assert wanted in asks(route), f"{route.methods} {route.path} is open to everyone"


def test_nothing_is_loaded_from_elsewhere_and_nothing_can_run(world: World, manager: FakeManager) -> None:
    page = client(world).get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "<script" not in page.text
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.requirement("U-1")
def test_an_empty_dashboard_says_what_to_do(world: World, manager: FakeManager) -> None:
    text = client(world).get("/").text
    assert "Nothing waits for anybody." in text
    assert "airlock submit WORKLOAD --version N" in text
    assert "Loan model" in text


@pytest.mark.requirement("A-4", "T-5")
def test_the_review_page_answers_should_i_approve_this(world: World, manager: FakeManager) -> None:
    release_id = world.judged("2", track="red", context=f"Better for new customers. {HOSTILE}")
    text = client(world, "grace").get(f"/releases/{release_id}").text
    assert "waiting for approval" in text
    assert "track red" in text
    assert "performance changes by 30.0 %" in text
    assert "Seat 1: governance-analyst" in text
    assert text.count('value="approve"') == 1  # grace may fill the first seat alone
    assert "does not hold the role risk-officer" in text
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.requirement("A-2")
def test_the_submitter_is_told_why_there_is_no_button(world: World, manager: FakeManager) -> None:
    release_id = world.judged("2", track="red")
    text = client(world, "dana").get(f"/releases/{release_id}").text
    assert 'value="approve"' not in text
    assert "dana submitted this release and cannot approve or reject it" in text


@pytest.mark.requirement("A-4", "U-3")
def test_a_question_is_asked_and_answered_in_place(world: World, manager: FakeManager) -> None:
    release_id = world.judged("2", track="red")
    grace, dana = client(world, "grace"), client(world, "dana")
    same = {"sec-fetch-site": "same-origin"}
    assert "Ask dana something first" in grace.get(f"/releases/{release_id}").text
    asked = grace.post(
        f"/releases/{release_id}/question",
        data={"seat": "1", "text": f"Who checked this? {HOSTILE}"},
        headers=same,
    )
    assert "Your question is recorded" in asked.text
    (event,) = world.events(Kind.QUESTION_ASKED)
    assert (event.actor, event.data["seat"]) == ("grace", 0)
    page = dana.get(f"/releases/{release_id}").text
    assert "Who checked this?" in page
    assert HOSTILE not in page
    (question,) = dana.get(f"/api/releases/{release_id}").json()["asked"]
    path = f"/api/releases/{release_id}/questions/{question['id']}/reply"
    assert dana.post(path, json={"text": "The risk team did."}, headers=same).status_code == 200
    assert "The risk team did." in grace.get(f"/releases/{release_id}").text
    for body in ({"seat": 3, "text": "Which seat is that?"}, {"seat": 1, "text": " "}):
        assert grace.post(f"/api/releases/{release_id}/questions", json=body, headers=same).status_code in (
            400,
            404,
        )
    unknown = f"/api/releases/{release_id}/questions/nothing/reply"
    assert dana.post(unknown, json={"text": "To what?"}, headers=same).status_code == 404
    assert len(world.events(Kind.QUESTION_ASKED)) == 1


@pytest.mark.requirement("U-5")
def test_a_blocked_release_says_what_to_mend_and_how_to_try_again(world: World, manager: FakeManager) -> None:
    release_id = world.judged("2", verdicts={"performance": Verdict.FAILED})
    text = client(world, "dana").get(f"/releases/{release_id}").text
    assert "Why was I blocked?" in text
    assert "fix performance" in text
    assert f"airlock release again {release_id} --version N" in text


@pytest.mark.requirement("E-6")
@pytest.mark.parametrize("path", ["/releases/{}", "/api/releases/{}"])
def test_a_release_of_a_hidden_dag_does_not_exist(world: World, manager: FakeManager, path: str) -> None:
    release_id = world.judged("2")
    manager.dags = {"release__another"}
    answer = client(world).get(path.format(release_id))
    assert answer.status_code == 404
    unknown = client(world).get(path.format("nothing-v1-00000000"))
    assert unknown.text.replace("nothing-v1-00000000", release_id) == answer.text
    assert client(world).get("/api/releases").json()["total"] == 0
    assert client(world).get("/api/overview").json()["workloads"] == []


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://testserver"}, True),
        ({"authorization": "Bearer token"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://testserver"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://testserver"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_request_of_another_site_answers_nothing(
    world: World, manager: FakeManager, headers: dict[str, str], allowed: bool
) -> None:
    browser = client(world)
    form = {"seat": "1", "choice": "approve"}
    for path in ("/releases/nothing/answer", "/api/releases/nothing/answers"):
        sent = {"json": {"seat": 1, "choice": "approve"}} if path.startswith("/api") else {"data": form}
        answer = browser.post(path, headers=headers, **sent)  # type: ignore[arg-type]
        assert answer.status_code == (404 if allowed else 403), answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/releases?offset=-1",
        "/releases?days=x",
        "/?days=0",
        "/api/releases?limit=0",
        "/api/releases?state=maybe",
        "/releases?track=blue",
        "/releases?workload=" + "x" * 300,
    ],
)
def test_bad_input_is_answered_in_words(world: World, manager: FakeManager, path: str) -> None:
    answer = client(world).get(path)
    assert answer.status_code == 422
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path", ["/releases/%2e%2e%2fsecret", "/static/..%2f..%2fapp.py", "/static/%2e%2e/app.py"]
)
def test_paths_lead_nowhere_else(world: World, manager: FakeManager, path: str) -> None:
    answer = client(world).get(path)
    assert answer.status_code == 404
    assert "create_app" not in answer.text


@pytest.mark.parametrize(("place", "linked"), [("iframe", False), ("document", True)])
def test_no_link_of_a_page_in_a_frame_leads_out_of_it(
    world: World, manager: FakeManager, place: str, linked: bool
) -> None:
    """Airflow's frame lets no page open another window or leave the frame, so such a link would be dead."""
    release_id = world.judged("2", track="red")
    text = client(world).get(f"/releases/{release_id}", headers={"sec-fetch-dest": place}).text
    assert ('href="/dags/' in text) is linked
    assert world.release(release_id).run_id in text
    assert "target=" not in text


@pytest.mark.requirement("U-3")
def test_rest_says_what_the_page_says(world: World, manager: FakeManager) -> None:
    release_id = world.judged("2", track="red")
    found = client(world).get(f"/api/releases/{release_id}").json()
    assert (found["state"], found["decision"]["track"], found["seats"][0]["role"]) == (
        "waiting for approval",
        "red",
        "governance-analyst",
    )
    listed = client(world).get("/api/releases", params={"state": "waiting for approval"}).json()
    assert [row["release_id"] for row in listed["releases"]] == [release_id]


@pytest.mark.requirement("U-3")
def test_every_answer_of_rest_is_described_field_by_field() -> None:
    described = create_app().openapi()
    answers = {
        path: content["application/json"]["schema"]
        for path, methods in described["paths"].items()
        for method in methods.values()
        for status, answer in method["responses"].items()
        if status.startswith("2")
        and path.startswith("/api/")
        and "application/json" in (content := answer["content"])
    }
    assert answers.keys() >= {"/api/overview", "/api/releases", "/api/releases/{release_id}"}
    for path, said in answers.items():
        assert "$ref" in (said.get("items") or said), f"{path} answers something that is not described"
    # What evidence keeps in its own words is the only thing without fields of its own.
    models = described["components"]["schemas"]
    open_ones = {
        f"{model}.{name}"
        for model in models
        for name, field in models[model].get("properties", {}).items()
        for part in [field, *field.get("anyOf", []), field.get("items", {})]
        if part.get("additionalProperties") is True
    }
    assert open_ones == {"Review.flips", "Reason.facts", "OrderedReason.facts"}


def test_a_run_leads_to_its_release(world: World, manager: FakeManager) -> None:
    release_id = world.judged("2")
    release = world.release(release_id)
    browser = client(world)
    moved = browser.get(f"/runs/{release.dag_id}/{release.run_id}", follow_redirects=False)
    assert moved.headers["location"] == f"/releases/{release_id}"
    assert browser.get(f"/runs/{release.dag_id}/manual__other").status_code == 404
