"""Production logs for tests: written by the recorder itself, read from a folder of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from airlock.core.audit import Event
from airlock.core.production import DAY_US, HOUR_US, Window, microseconds
from airlock.core.signals import Signal
from airlock.core.workload import Workload
from airlock.ports import SandboxRequest, SandboxResult
from airlock.record import Recorder
from airlock.services.adopt import adopt
from airlock.services.deployment import Deployment
from airlock.services.monitor import evaluate_window, read_window
from tests.support.deployments import (
    WORKLOAD,
    World,
    make_world,
    policy_data,
    shipped_policy,
    workload_data,
    write_yaml,
)

MONDAY_US = microseconds("2026-03-02")
WEEK = Window(start_us=MONDAY_US, end_us=MONDAY_US + 7 * DAY_US)
NOW_US = WEEK.end_us + 6 * 3_600_000_000


def logged_workload(**monitoring: Any) -> Workload:
    """The small workload, logged in ``log``."""
    return Workload.model_validate(
        workload_data(monitoring={"log": {"parquet": "log"}, "minimum_rows": 20, **monitoring})
    )


def write_log(
    folder: Path, rows: Iterable[Mapping[str, Any]], labels: Iterable[tuple[str, Any, int]] = ()
) -> Recorder:
    """Record rows and outcomes, and wait until they are on the disk."""
    recorder = Recorder(folder, version="1", policy="1.0.0", flush_seconds=0.05)
    for row in rows:
        recorder.record(**row)
    for name, value, when in labels:
        recorder.label(name, value, time_us=when)
    assert recorder.close(20)
    return recorder


def rows_of_week(n: int = 70, **changes: Any) -> list[dict[str, Any]]:
    """Rows spread over the week, a tenth of a day apart."""
    return [
        {
            "features": {"income": 10.0 + i % 7, "debt": float(i % 5)},
            "attributes": {"group": i % 2},
            "score": (i % 10) / 10,
            "decision": int(i % 10 >= 5),
            "prediction_id": f"p{i}",
            "latency_ms": 3.0,
            "cost_usd": 0.001,
            "caller": "branch",
            "unit": "retail",
            "time_us": MONDAY_US + i * DAY_US // 10,
            **changes,
        }
        for i in range(n)
    ]


def likely(frame: pd.DataFrame) -> Any:
    """What the small model says: the richer and the less indebted, the likelier."""
    income, debt = (
        pd.to_numeric(frame[name], errors="coerce").to_numpy("float64") for name in ("income", "debt")
    )
    return 1 / (1 + np.exp(-((income - 13) / 2 - (debt - 2) / 2)))


class SmallModel:
    """Stands in for the sandbox: scores and explains with the small model, or fails as it is told."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        self.runs += 1
        if self.error is not None:
            raise self.error
        rows = pd.read_parquet(request.inputs["evaluation"])
        score = likely(rows)
        pd.DataFrame(
            {"candidate_score": score, "candidate_prediction": (score >= 0.5).astype(int)}
        ).to_parquet(output / "scores.parquet")
        parts = pd.DataFrame(
            {"income": (rows["income"] - 13) / 2, "debt": (2 - rows["debt"]) / 2, "_base": 0.0}
        )
        parts.head(request.job["shap_rows"]).to_parquet(output / "shap.parquet")
        return SandboxResult(isolation=["no network"], level="process", seconds=0.1, stdout="", stderr="")


def people(n: int, seed: int, *, income: float = 13.0, wrong: float = 0.0) -> pd.DataFrame:
    """Applicants with their outcome, which the small model predicts well but for a share ``wrong``."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"income": rng.normal(income, 3, n), "debt": rng.normal(2, 1, n), "group": rng.integers(0, 2, n)}
    )
    outcome = rng.random(n) < likely(frame)
    flipped = rng.random(n) < wrong
    return frame.assign(y=np.where(flipped, ~outcome, outcome).astype(int))


def production_policy() -> dict[str, Any]:
    """The small policy with the shipped section about production and its rules."""
    shipped = shipped_policy()
    assert shipped.monitoring is not None
    acting = [rule.to_data() for rule in shipped.rules if rule.effect.action is not None]
    for rule in acting:
        rule["effect"] = {"action": rule["effect"]["action"]}
    small = policy_data()
    names = ("new_champion_windows", "collapse")
    return {
        **small,
        "limits": small["limits"] | {name: shipped.limits[name].to_data() for name in names},
        "rules": [*small["rules"], *acting],
        "monitoring": shipped.monitoring.to_data(),
    }


@dataclass
class Production:
    """A deployment whose adopted champion answers weeks of traffic."""

    world: World
    model: SmallModel

    @property
    def deployment(self) -> Deployment:
        return replace(self.world.deployment, sandbox=self.model)

    def set_workload(self, **changes: Any) -> None:
        monitoring = {"log": {"parquet": "log"}, "minimum_rows": 50, **changes.pop("monitoring", {})}
        write_yaml(self.world.workload_file, workload_data(monitoring=monitoring, **changes))

    def set_policy(self, **monitoring: Any) -> None:
        data = production_policy()
        for name, value in monitoring.items():
            data["monitoring"][name] = data["monitoring"][name] | value
        write_yaml(self.world.policy_file, data)

    def window(self, number: int) -> Window:
        return Window(start_us=WEEK.start_us + number * 7 * DAY_US, end_us=WEEK.end_us + number * 7 * DAY_US)

    def answer(self, number: int, frame: pd.DataFrame, *, labels: bool = True, **changes: Any) -> None:
        """Log a week of applicants, and set the clock to the Monday after it."""
        window, scores = self.window(number), likely(frame)
        rows, outcomes = [], []
        step = (window.end_us - window.start_us) // max(1, len(frame))
        for place, (row, score) in enumerate(zip(frame.to_dict("records"), scores, strict=True)):
            when = window.start_us + place * step
            name = f"w{number}-{place}"
            features = {key: row[key] for key in ("income", "debt") if key in row}
            rows.append(
                {
                    "features": features,
                    "attributes": {"group": row["group"]},
                    "score": float(score),
                    "decision": int(score >= 0.5),
                    "prediction_id": name,
                    "latency_ms": 3.0 + place % 3,
                    "cost_usd": 0.001,
                    "time_us": when,
                    **changes,
                }
            )
            outcomes.append((name, row["y"], min(when + DAY_US, window.end_us - 1)))
        write_log(self.folder, rows, outcomes if labels else [])
        self.after(number)

    @property
    def folder(self) -> Path:
        return self.world.deployment.settings.data_root / "log"

    def after(self, number: int) -> None:
        self.world.clock.us = max(self.world.clock.us, self.window(number).end_us + 6 * HOUR_US)

    def judge(self, number: int) -> Event:
        self.after(number)
        return evaluate_window(self.deployment, WORKLOAD, self.window(number))

    def signals(self, number: int) -> dict[str, Signal]:
        evidence = read_window(self.deployment, self.judge(number))
        return {signal.name: signal for signal in evidence.signals}


def production(root: Path) -> Production:
    """The small workload in production: version 1, adopted, with data it was trained and evaluated on."""
    world = make_world(root, champion=None)
    made = Production(world, SmallModel())
    made.set_workload()
    made.set_policy()
    data = world.deployment.settings.data_root / "loan"
    people(1200, 1).to_parquet(data / "training.parquet", index=False)
    people(800, 2).to_parquet(data / "batches" / "clean.parquet", index=False)
    made.folder.mkdir(parents=True)
    adopt(made.deployment, WORKLOAD, "1", actor="admin", reason="it was there before")
    return made


class OutletEvents(dict[Any, Any]):
    """What Airflow gives a task to say about its outlets."""

    def __missing__(self, key: Any) -> Any:
        self[key] = SimpleNamespace(extra={}, added=[])
        self[key].add = lambda asset, extra: self[key].added.append((asset.uri, extra))
        return self[key]
