"""A deployment with releases in every state, as much like a real one as a page can tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from airlock.core.canonical import canonical_json
from airlock.core.evidence import SCORE, Finding, GateResult, Metric, Verdict
from airlock.gates import gate_text
from airlock.reporting.gate_report import GateView, report_files
from airlock.services.announce import seal
from airlock.services.approve import answer
from airlock.services.decide import decide
from airlock.services.deployment import Deployment, anchors_of
from airlock.services.evaluate import keep_evidence
from airlock.services.incidents import open_incident
from airlock.services.promote import promote
from airlock.services.releases import open_case
from airlock.services.sequence import Sequencer
from airlock.web import access
from airlock.web.app import create_app
from tests.support.deployments import (
    START_US,
    WORKLOAD,
    World,
    make_world,
    policy_data,
    workload_data,
    write_yaml,
)
from tests.support.ports import free_port

GATES = ("documentation", "performance", "bias", "drift", "explainability", "cost")
LONG = "pneumonoultramicroscopicsilicovolcanoconiosis" * 4
CONTEXT = (
    "Refit on the newest quarter. Brokers ask for faster answers; the boosted model ranks better where the "
    "documents are incomplete, and nothing else changed.\n\nCredit risk has seen the scores of October."
)
FEATURES = {"income": 0.31, "debt": 0.27}
GROUPS = {"Black": (79, 0.886, 0.896), "not Black": (717, 0.972, 0.971)}


@dataclass
class Gallery:
    """The deployment, its releases by what they show, and where the pages are."""

    world: World
    releases: dict[str, str]
    url: str = ""


def make_gallery(root: Path) -> Gallery:
    """Fill a deployment; nothing is scored, all evidence goes through the services."""
    world = make_world(root)
    policy = policy_data(GATES)
    policy["roles"]["risk-officer"]["gates"].append("bias")
    policy["waivers"]["waivable"].append("gate-bias")
    write_yaml(world.policy_file, policy)
    shown = workload_data(title="Mortgage approval", owner="credit-models", value_per_day_usd=1800)
    write_yaml(world.workload_file, shown)
    long = f"a-{'very-' * 9}long-name"
    write_yaml(world.workload_file.with_name(f"{long}.yaml"), workload_data(name=long, title=LONG[:120]))
    for version in range(4, 16):
        world.registry.register(str(version))
    found: dict[str, str] = {}
    for number in range(4):
        world.clock.us = START_US + number * 7 * 86_400_000_000
        promoted = _judged(world, str(number + 2), run=f"past-{number}", shift=number / 200, relative=0.02)
        promote(world.deployment, promoted)
        seal(world.deployment, promoted)
        found["promoted"] = promoted
        world.clock.advance(hours=6)
    world.clock.advance(hours=60)
    found["rejected"] = _judged(world, "6", run="rejected", relative=0.3)
    world.answer(found["rejected"], "grace", 0, "reject", "Show a month of shadow traffic first.")
    seal(world.deployment, found["rejected"])
    found["denied"] = _judged(world, "7", run="denied", relative=0.3, ratio=0.704)
    seal(world.deployment, found["denied"])
    found["expired"] = _judged(world, "8", run="expired", relative=0.3)
    world.clock.advance(hours=73)
    seal(world.deployment, found["expired"])
    found["failed"] = world.submit("9", run="failed", context="")
    seal(world.deployment, found["failed"])
    open_incident(
        world.deployment, workload=WORKLOAD, version="5", action="alert", severity="high",
        summary="Approvals of one broker fell by a half since Tuesday.", cause="prediction_drift",
        detected_us=world.clock.now_us(), release_id=found["promoted"],
    )  # fmt: skip
    for name in ("waiting", "keyboard", "phone"):
        found[name] = _judged(world, "10", run=name, relative=0.3, context=CONTEXT)
    found["long"] = _judged(world, "11", run="long", relative=0.1, context=LONG * 10, words=LONG)
    world.clock.advance(hours=5)
    found["checking"] = world.frozen("12", run="checking", context="Nothing is known yet.")
    sequence(world)
    return Gallery(world, found)


def sequence(world: World) -> None:
    """Sign what has happened, so that the pages see it."""
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    sequencer.step()
    sequencer.publish()


def _judged(
    world: World,
    version: str,
    *,
    run: str,
    relative: float,
    ratio: float = 0.912,
    shift: float = 0.0,
    context: str = "A test.",
    words: str = "",
) -> str:
    """A release with evidence of every gate, decided."""
    release_id = world.frozen(version, run=run, context=context)
    case = open_case(world.deployment, release_id)
    for gate, result in _results(ratio, shift, relative, words).items():
        files = {}
        if gate != SCORE:
            text = gate_text(gate)
            view = GateView(gate, text.title, text.why, text.good, text.fix, result, {}, release_id)
            files = {name: world.deployment.evidence.put(one) for name, one in report_files(view).items()}
        if gate == "explainability":
            files["explanation.json"] = world.deployment.evidence.put(canonical_json(_explained()))
        if gate == SCORE:
            files["scores.parquet"] = world.deployment.evidence.put(b"scores")
        kept = result.model_copy(update={"files": files})
        keep_evidence(world.deployment, case, gate, config={}, result=kept, seconds=1.5)
    decide(world.deployment, release_id)
    return release_id


def _explained() -> dict[str, Any]:
    before = {"income": 0.24, "debt": 0.33}
    return {"candidate": {"share": FEATURES}, "champion": {"share": before}}


def _metric(name: str, value: float, limit: float | None = None, **more: Any) -> Metric:
    return Metric(name=name, value=value, threshold=limit, n=more.pop("n", 796), **more)


def _results(ratio: float, shift: float, relative: float, words: str) -> dict[str, GateResult]:
    fair = ratio >= 0.8
    unfair = Finding(
        id="four-fifths", verdict=Verdict.FAILED, where="black",
        message=f"Black get the favourable outcome in 63.3 % of 79 cases: ratio {ratio}, below 0.8.",
        fix="see which features carry the difference, or try a lower decision threshold",
    )  # fmt: skip
    group_metrics = [
        metric
        for group, (n, rate, before) in GROUPS.items()
        for metric in (
            _metric(
                "selection_rate",
                rate,
                where=f"black: {group}",
                n=n,
                interval=(rate - 0.04, min(1.0, rate + 0.03)),
            ),
            _metric("champion.selection_rate", before, where=f"black: {group}", n=n),
            _metric("impact_ratio", round(rate / 0.972, 3), where=f"black: {group}", n=n),
        )
    ]
    return {
        "documentation": GateResult(
            verdict=Verdict.PASSED, summary=words or "The model card has all 5 sections."
        ),
        "performance": GateResult(
            verdict=Verdict.PASSED,
            summary=words or "Every floor is reached; ROC AUC is better than the champion's on these rows.",
            metrics=[
                _metric("roc_auc", 0.79 + shift, 0.6, direction="higher", interval=(0.719 + shift, 0.86)),
                _metric("accuracy", 0.88 + shift, 0.85, direction="higher", interval=(0.86, 0.917)),
                _metric("brier", 0.091),
            ],
            details={"primary_metric": "roc_auc", "change": {"relative": relative, "direction": "better"}},
        ),
        "bias": GateResult(
            verdict=Verdict.PASSED if fair else Verdict.FAILED,
            summary=unfair.message if not fair else "No protected group is left behind.",
            findings=[] if fair else [unfair],
            metrics=[
                _metric(
                    "demographic_parity_ratio", ratio - shift, 0.8, direction="higher", where="black",
                    interval=(0.66, 1.0),
                ),
                *group_metrics,
            ],
        ),
        "drift": GateResult(
            verdict=Verdict.WARNED,
            summary="1 of 12 features has moved: income.",
            findings=[
                Finding(id="moved", verdict=Verdict.WARNED, where=words or "income", message="PSI is 0.22.")
            ],
            metrics=[_metric("drift_share", 0.083, 0.15, direction="lower")],
        ),
        "explainability": GateResult(
            verdict=Verdict.PASSED,
            summary="Most weight: income 31 %, debt 27 %.",
            metrics=[_metric("rank_correlation", 0.6, 0.5, direction="higher", n=5)],
        ),
        "cost": GateResult(
            verdict=Verdict.PASSED,
            summary="A request costs 8e-08 USD.",
            metrics=[_metric("cost_per_request_usd", 8.05e-08, 0.001, direction="lower")],
        ),
        SCORE: GateResult(
            verdict=Verdict.PASSED, summary="796 rows scored in the sandbox.", details=_scored()
        ),
    }  # fmt: skip


def _scored() -> dict[str, Any]:
    change = {
        "architecture": True, "from_estimator": "LogisticRegression",
        "to_estimator": "GradientBoostingClassifier",
        "new_features": [], "removed_features": [], "threshold": 0.05, "hyperparameters": ["C", "max_depth"],
        "values": ["C: 0.1 → none", "max_depth: none → 3"],
    }  # fmt: skip
    flips = {
        "task": "classification", "rows": 796, "changed": 23, "to_favourable": 12, "to_unfavourable": 11,
        "now_right": 12, "now_wrong": 11,
        "groups": [
            _moved("Black", 79, 2, 3),
            _moved("not Black", 717, 10, 8),
        ],
        "kinds": [{"feature": "debt", "cases": "37 to 75", "rows": 217, "changed": 12}],
    }  # fmt: skip
    return {"change": change, "flips": flips}


def _moved(group: str, rows: int, up: int, down: int) -> dict[str, Any]:
    counts = {"rows": rows, "changed": up + down, "to_favourable": up, "to_unfavourable": down}
    return {"attribute": "black", "group": group, **counts}


class _Airflow:
    """Airflow's API as far as the pages use it: what it does in the end is ask the services."""

    def __init__(self, world: World, user: str) -> None:
        self._world, self._user = world, user

    def wait_for_seat(self, *_: Any) -> None:
        """Seats are always there."""

    def answer(self, dag_id: str, run_id: str, task: str, index: int, **said: Any) -> None:
        """What the seat's task does when somebody answers."""
        (release_id,) = {
            entry.event.release_id
            for entry in self._world.deployment.audit.events(workload=WORKLOAD)
            if entry.event.data.get("run_id") == run_id and entry.event.release_id
        }
        answer(
            self._world.deployment, release_id, index, user=self._user, choice=said["choice"].lower(),
            comment=said["comment"], when=run_id, condition=said["condition"], until=said["until"],
        )  # fmt: skip
        sequence(self._world)

    def asks_again(self, *_: Any) -> bool:
        """No answer is ever lost."""
        return False

    def trigger(self, dag_id: str, conf: dict[str, Any], *, run_id: str = "") -> dict[str, str]:
        """What the first task of a run does."""
        run_id = run_id or f"again-{conf['version']}"
        self._world.submit(conf["version"], run=run_id, user=self._user, context=conf["context"])
        sequence(self._world)
        return {"dag_run_id": run_id}


class _User:
    def __init__(self, name: str) -> None:
        self._name = name

    def get_name(self) -> str:
        return self._name


@dataclass(frozen=True)
class _Visitor(access.Visitor):
    world: World | None = None

    def may_read(self, dag_id: str) -> bool:
        return bool(dag_id)

    @property
    def dags(self) -> set[str]:  # type: ignore[override]  # Airflow is not asked
        return {f"release__{path.stem}" for path in self.deployment.config.workload_files()}

    def airflow(self) -> Any:
        assert self.world is not None
        return _Airflow(self.world, self.name)


@contextmanager
def served(gallery: Gallery) -> Iterator[Gallery]:
    """The pages on a free port, as the user whom the cookie ``as`` names."""
    app = create_app()
    deployment: Deployment = gallery.world.deployment

    def who(request: Request) -> access.Visitor:
        return _Visitor(deployment, _User(request.cookies.get("as", "grace")), gallery.world)

    app.dependency_overrides[access.reader] = who
    root = FastAPI()
    root.mount("/airlock", app)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(root, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.05)
        yield replace(gallery, url=f"http://127.0.0.1:{port}/airlock")
    finally:
        server.should_exit = True
        thread.join(10)
