"""``airlock waiver``, and ``policy publish``, ``replay``, ``canary`` and ``zombies``, as people see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlock.core.evidence import Verdict
from airlock.reporting.replay import render_replay
from airlock.services import waivers
from airlock.services.promote import promote
from airlock.services.replay import replay
from tests.support.commands import Cli
from tests.support.deployments import WORKLOAD, World, fast_folder, policy_data, write_yaml
from tests.unit.test_replay import other, pristine, put_canary
from tests.unit.test_waiver_service import ask, blocked, grant

_ = pristine


@pytest.fixture
def world(pristine: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:  # the fixture
    with fast_folder() as folder:
        copied = pristine.copy(folder / "1")
        for name, value in copied.deployment.settings.environment().items():
            monkeypatch.setenv(name, value)
        yield copied


def bundle(world: World, version: str = "1.1.0", **limits: float) -> Path:
    data = policy_data(("documentation", "performance", "privacy"), version=version)
    for name, value in limits.items():
        data["limits"][name]["value"] = value
    return write_yaml(world.config / "policies" / version / "policy.yaml", data).parent


@pytest.mark.requirement("A-8")
def test_waivers_are_listed_and_shown_with_what_rests_on_them(world: World, cli: Cli) -> None:
    (request,) = waivers.list_waivers(world.deployment)
    release_id = blocked(world, run="again")
    world.answer(release_id, "petra")
    promote(world.deployment, release_id)
    listed = cli("waiver", "list", "--format", "json").json
    # The command reads the real clock, and by that the waiver of this story has long ended.
    (row,) = listed["waivers"]
    assert (row["waiver"], row["state"], row["in_production"]) == (request.waiver_id, "expired", [release_id])
    assert listed["reopened"][0]["release_id"] == release_id
    assert "reopened" in cli("waiver", "list").err
    shown = cli("waiver", "show", request.waiver_id)
    for words in ("granted by gita (data-governance)", "March delivery", release_id, "2026-03-01"):
        assert words in re.sub(r"\s+", " ", shown.err)
    grant(world, ask(world, run="no"), choice="reject")
    assert len(cli("waiver", "list", "--format", "json").json["waivers"]) == 1
    assert len(cli("waiver", "list", "--all", "--format", "json").json["waivers"]) == 2
    assert cli("waiver", "show", "waiver-0000000000").code == 2


@pytest.mark.requirement("A-8")
def test_a_request_that_cannot_be_granted_is_refused_before_airflow_is_asked(world: World, cli: Cli) -> None:
    asked = (
        "waiver",
        "request",
        WORKLOAD,
        "--version-range",
        "2",
        "--until",
        "2026-01-10",
        "--reason",
        "x" * 30,
    )
    result = cli(*asked, "--rule", "gate-security")
    assert result.code == 3
    assert "no denying rule or gate" in result.err
    (request,) = waivers.list_waivers(world.deployment)
    late = cli("waiver", "approve", request.waiver_id, "--user", "gita")
    assert late.code != 0


@pytest.mark.requirement("P-4")
def test_replay_is_a_table_json_and_a_page(world: World, cli: Cli, tmp_path: Path) -> None:
    folder = bundle(world, red_change=0.08)
    data = cli("policy", "replay", str(folder), "--format", "json").json
    assert (data["total"], data["same"], len(data["changed"])) == (5, 4, 1)
    assert data["changed"][0]["changed"] == ["track", "seats"]
    page = tmp_path / "replay.html"
    shown = cli("policy", "replay", "1.1.0", "--output", str(page))
    assert "1 decided differently" in re.sub(r"\s+", " ", shown.err)
    text = page.read_text(encoding="utf-8")
    assert "track-red fires now" in text
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="', text), "it loads nothing"
    assert cli("policy", "replay", "1.1.0", "--since", "soon").code == 1
    assert cli("policy", "replay", "9.9.9").code == 2


@pytest.mark.requirement("P-4")
def test_the_page_escapes_what_others_wrote_and_says_when_nothing_changes(world: World) -> None:
    report = replay(world.deployment, other(red_change=0.08))
    hostile = report.changed[0].model_copy(update={"why": ["<script>alert(1)</script>"]})
    values = {"version": "1.1.0", "digest": "0" * 64, "description": "<b>", "total": 5, "since": "ever"}
    page = render_replay(**values, changed=[hostile], unsure=[hostile], failed={"<i>": "<u>"})  # type: ignore[arg-type]
    assert not re.search(r"<(script|b|i|u)>", page)
    same = render_replay(**values, changed=[], unsure=[], failed={})  # type: ignore[arg-type]
    assert "every release would have the same outcome" in same


@pytest.mark.requirement("P-4", "P-5")
def test_canary_and_zombies_say_what_they_saw(world: World, cli: Cli) -> None:
    assert cli("policy", "canary").code == 2
    put_canary(world, red_change=0.08)
    world.judged(run="tried", track="yellow")
    world.judged(run="denied-too", track="green", verdicts={"documentation": Verdict.FAILED})
    report = cli("policy", "canary", "--format", "json").json
    assert (report["policy"], report["total"], report["agreed"]) == ("1.1.0", 2, 1)
    assert "1 disagree" in re.sub(r"\s+", " ", cli("policy", "canary").err)
    found = cli("policy", "zombies", "1.0.0", "--format", "json").json
    verdicts = {rule["rule"]: rule["verdict"] for rule in found["rules"]}
    assert verdicts["track-first"] == "never fires"
    assert found["gates"]["gate-documentation"] == 2
    assert "never fires" in cli("policy", "zombies", "1.0.0", "--all").err


@pytest.mark.requirement("P-3")
def test_publish_previews_what_changes_and_who_is_asked(world: World, cli: Cli) -> None:
    bundle(world, red_change=0.08)
    data = cli("policy", "publish", "1.1.0", "--preview", "--format", "json").json
    assert (data["predecessor"], data["seats"], data["request"]) == ("1.0.0", ["risk-officer"], None)
    assert cli("policy", "publish", "1.0.0", "--preview").code == 3
