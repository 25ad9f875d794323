"""A release whose workload names its training command is trained again, once, before it is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlock.core.audit import Kind
from airlock.core.decision import Outcome
from airlock.core.errors import NotFoundError, RefusedError, UnavailableError
from airlock.core.evidence import Evidence, Verdict
from airlock.gates import load_gate
from airlock.gates.base import Stage
from airlock.services.decide import decide
from airlock.services.evaluate import evaluate
from airlock.services.lineage import read_links
from airlock.services.releases import open_case
from airlock.services.reproduce import reproduce
from airlock.services.score import score
from airlock.services.training import CODE
from tests.support.deployments import World, fast_folder, shipped_gates, workload_data, write_yaml
from tests.support.rehearsals import CHAMPION, make_stage, shipped_rules

pytestmark = [pytest.mark.requirement("G-11"), pytest.mark.slow]

GATE = "reproducibility"
SPEC = {"seed": 0, "code": "loan", "command": ["python", "train.py", "{data}", "{model}"]}


def policy() -> dict[str, Any]:
    """The shipped rules with the gate of these tests beside two that come before scoring."""
    data = shipped_rules()
    data["gates"][GATE] = shipped_gates()[GATE]
    data["roles"]["ml-platform-engineer"]["gates"] = [GATE]
    return data


def stage(root: Path, described: dict[str, Any] | None = None, **changes: Any) -> World:
    spec = {**SPEC, **changes.pop("spec", {})}
    world = make_stage(root, workload={"training": spec}, policy=policy(), **changes)
    write_code(world, described or {})
    return world


def write_code(world: World, described: dict[str, Any]) -> None:
    code = world.config / "workloads" / "loan"
    code.mkdir(exist_ok=True)
    (code / "train.py").write_text(json.dumps({**CHAMPION, **described}))


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "world"


def checked(world: World, version: str = "2") -> str:
    """A release whose first gates have answered."""
    release_id = world.frozen(version)
    for gate in open_case(world.deployment, release_id).policy.gates:
        if load_gate(gate).STAGE is Stage.BEFORE_SCORING:
            evaluate(world.deployment, release_id, gate)
    return release_id


def judged(world: World) -> Evidence:
    release_id = checked(world)
    reproduce(world.deployment, release_id)
    score(world.deployment, release_id)
    return evaluate(world.deployment, release_id, GATE)


def test_a_version_that_its_command_makes_again_passes(root: Path) -> None:
    world = stage(root)
    evidence = judged(world)
    assert not [one for one in evidence.result.findings if one.id in ("other-model", "retraining")]
    assert "Trained again: of 600 rows 0.00%" in evidence.result.summary or evidence.result.findings
    assert evidence.result.details["retrained"]["metrics"] == {"rows": 600}


def test_a_version_that_its_command_does_not_make_fails_and_is_denied(root: Path) -> None:
    world = stage(root, {"skill": 0.2})
    release_id = checked(world)
    reproduce(world.deployment, release_id)
    score(world.deployment, release_id)
    evaluate(world.deployment, release_id, "performance")
    evidence = evaluate(world.deployment, release_id, GATE)
    assert evidence.verdict is Verdict.FAILED
    decision = decide(world.deployment, release_id)
    assert decision.outcome is Outcome.DENY
    assert any("gives another model" in reason.message for reason in decision.reasons)


def test_a_command_that_fails_is_an_error_that_says_how_it_ended(root: Path) -> None:
    evidence = judged(stage(root, {"fails": "ValueError: no column income"}))
    assert evidence.verdict is Verdict.ERROR
    assert "no column income" in evidence.result.summary
    (finding,) = [one for one in evidence.result.findings if one.id == "retraining"]
    assert "epoch 1" in finding.fix


def test_what_the_command_was_refused_is_told(root: Path) -> None:
    evidence = judged(stage(root, {"attempts": ["connect to 10.0.0.1:443"]}))
    assert any(one.id == "training-attempt" for one in evidence.result.findings)


def test_it_is_trained_once_whatever_is_repeated(root: Path) -> None:
    world = stage(root)
    release_id = checked(world)
    first = reproduce(world.deployment, release_id)
    write_code(world, {"skill": 0.2})  # the frozen code counts, whatever stands in the folder now
    assert reproduce(world.deployment, release_id).digest == first.digest
    assert len(world.events(Kind.RELEASE_RETRAINED, release_id)) == 1


def test_the_frozen_code_is_run_and_not_what_stands_in_the_folder_now(root: Path) -> None:
    world = stage(root)
    release_id = checked(world)
    write_code(world, {"skill": 0.2})
    reproduce(world.deployment, release_id)
    score(world.deployment, release_id)
    evidence = evaluate(world.deployment, release_id, GATE)
    assert not [one for one in evidence.result.findings if one.id == "other-model"]


def test_nothing_is_trained_before_the_files_were_checked(root: Path) -> None:
    world = stage(root)
    release_id = world.frozen("2")
    with pytest.raises(RefusedError, match="has not answered"):
        reproduce(world.deployment, release_id)
    assert world.events(Kind.RELEASE_RETRAINED, release_id) == []


def test_without_the_task_the_gate_cannot_judge(root: Path) -> None:
    world = stage(root)
    release_id = checked(world)
    score(world.deployment, release_id)
    evidence = evaluate(world.deployment, release_id, GATE)
    assert evidence.verdict is Verdict.ERROR
    assert "was not trained again" in evidence.result.summary


def test_without_a_command_nothing_is_trained_and_the_gate_does_what_it_did(root: Path) -> None:
    world = stage(root, spec={"command": []})
    release_id = checked(world)
    assert CODE not in open_case(world.deployment, release_id).manifest.code
    with pytest.raises(NotFoundError, match="no training command"):
        reproduce(world.deployment, release_id)
    score(world.deployment, release_id)
    assert evaluate(world.deployment, release_id, GATE).verdict.allows


@pytest.mark.requirement("G-2")
def test_code_and_parameters_are_part_of_the_lineage(root: Path) -> None:
    world = stage(root)
    case = open_case(world.deployment, world.frozen("2"))
    links = read_links(world.deployment.evidence, case.manifest)
    (code,) = [link for link in links if link.tool == "files"]
    assert code.kind == "code"
    assert not code.broken
    (world.config / "workloads" / "loan" / "train.py").write_text("{}")
    other = open_case(world.deployment, world.frozen("2", run="run-2"))
    assert other.manifest.digest != case.manifest.digest
    assert other.manifest.code[CODE] != case.manifest.code[CODE]


def test_a_store_that_does_not_answer_leaves_no_verdict_and_is_tried_again(root: Path) -> None:
    world = stage(root)
    release_id = checked(world)
    real = world.deployment.sandbox.run

    def away(*_: Any) -> Any:
        raise UnavailableError("the disk is full")

    world.deployment.sandbox.run = away  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        reproduce(world.deployment, release_id)
    assert world.events(Kind.RELEASE_RETRAINED, release_id) == []
    world.deployment.sandbox.run = real  # type: ignore[method-assign]
    assert reproduce(world.deployment, release_id).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"code": "nowhere"}, "is not there"),
        ({"code": "../policies"}, "leaves"),
        ({"code": None}, "nobody says where the training code is"),
    ],
)
def test_code_that_is_not_where_the_workload_says_stops_the_release(
    root: Path, spec: dict[str, Any], words: str
) -> None:
    world = stage(root, spec=spec)
    with pytest.raises(Exception, match=words):
        world.frozen("2")


def test_the_code_can_lie_in_the_repository_of_the_lineage(root: Path) -> None:
    world = stage(root)
    repository = world.deployment.settings.data_root / "code"
    repository.mkdir()
    (repository / "train.py").write_text(json.dumps(CHAMPION))
    spec = {**SPEC, "code": None}
    write_yaml(world.workload_file, workload_data(training=spec, lineage={"repository": "code"}))
    case = open_case(world.deployment, world.frozen("2"))
    assert CODE in case.manifest.code
