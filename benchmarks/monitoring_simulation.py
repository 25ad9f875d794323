"""Weeks of production with seeded faults: false alarms, misses, time to detect, needless retrainings.

Real loan applications, replayed. Between calm weeks come episodes: the population moves (Suffolk arrives),
the meaning of outcomes changes, one noisy week with few rows, an outage (days missing or nothing at all),
outcomes that do not arrive. Judged on the same weeks: Airlock's signals with the shipped policy's rules; a
plain threshold (the point PSI of any feature over 0.2, in a single week); Evidently's default rule (half of
the columns drifted by its default test of each). ``python -m benchmarks.monitoring_simulation 300``.
"""

from __future__ import annotations

import random
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.production_window import LoggedWindow
from airlock.core import logged
from airlock.core.facts import workload_facts
from airlock.core.monitoring import Action, heaviest_action
from airlock.core.production import DAY_US, MonitoringSpec, Window, microseconds
from airlock.core.rules import FactSet, evaluate_phase
from airlock.core.signals import Signal, lasting
from airlock.demo.models import RATE_CHAMPION
from airlock.demo.weeks import Pools, pools, week
from airlock.profiles.compare import compare
from airlock.profiles.source import FrameSource, ParquetSource
from airlock.services.monitor import _MEASURES
from airlock.services.signals.scene import Past, Scene, guarded

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[1]
CONFIG = ConfigFolder(ROOT / "config")
POLICY = CONFIG.policy("1.0.0")
WORKLOAD = CONFIG.workload("rate-type-forecast").model_copy(
    update={"monitoring": MonitoringSpec.model_validate({"log": {"parquet": "log"}, "minimum_rows": 50})}
)
FEATURES = WORKLOAD.model.features
TRUE = ("drift", "concept")
"""Faults that change what the model is used on, or what outcomes mean."""
LEFT_OUT = ("explanation", "cost", "latency", "business", "fairness", "unknown_version")


@dataclass(frozen=True)
class Week:
    """One week: which fault it has, the first week of its episode, and its rows with what was logged."""

    number: int
    fault: str
    begins: int
    rows: pd.DataFrame


@dataclass
class Tally:
    """How a rule did on all weeks."""

    name: str
    alarms: set[int] = field(default_factory=set)
    retrains: set[int] = field(default_factory=set)

    def line(self, weeks: list[Week]) -> str:
        """Its figures."""
        fault = {one.number: one for one in weeks}
        calm = [one.number for one in weeks if one.fault not in TRUE and one.fault != "outage"]
        episodes = sorted({one.begins for one in weeks if one.fault in TRUE})
        found = {
            begins: min(
                (n for n in self.alarms if fault[n].fault in TRUE and fault[n].begins == begins), default=None
            )
            for begins in episodes
        }
        times = sorted(n - begins + 1 for begins, n in found.items() if n is not None)
        outages = [one.number for one in weeks if one.fault == "outage"]
        needless = [n for n in self.retrains if fault[n].fault not in TRUE]
        return (
            f"{self.name:28} false alarms {len(self.alarms & set(calm)):3} of {len(calm)}, "
            f"missed {sum(n is None for n in found.values())} of {len(episodes)}, "
            f"weeks to detect {times[len(times) // 2] if times else '-'} (median), "
            f"outages seen {len(self.alarms & set(outages))} of {len(outages)}, "
            f"retrainings {len(self.retrains)}, needless {len(needless)}"
        )


def plan(count: int, seed: int) -> Iterator[tuple[int, str, int]]:
    """Number, fault and first week of the episode, for each week."""
    rng, number = random.Random(seed), 0  # noqa: S311  # a simulation
    while number < count:
        for _ in range(rng.randint(4, 8)):
            yield number, "calm", number
            number += 1
        fault = rng.choice(["drift", "concept", "noise", "outage", "no outcomes"])
        begins, length = number, {"noise": 1, "outage": 1}.get(fault, 4)
        for _ in range(length):
            yield number, fault, begins
            number += 1


def make(found: Pools, model: Any, planned: tuple[int, str, int], seed: int) -> Week:
    """A week's rows, with scores and outcomes as they would be logged."""
    number, fault, begins = planned
    rng = random.Random(seed * 100_003 + number)  # noqa: S311  # same
    size = {"noise": 60, "outage": rng.choice([0, 60])}.get(fault, 160)
    drawn = (
        week(found, 1.0 if fault == "drift" else 0.0, seed * 1000 + number, size) if size else found.calm[:0]
    )
    label = drawn[WORKLOAD.model.target].astype("float64")
    if fault == "concept":
        label = 1 - label
    if fault == "no outcomes":
        label = label * float("nan")
    score = model.predict_proba(drawn[FEATURES])[:, 1] if size else []
    rows = drawn[FEATURES].assign(**{logged.SCORE: score, logged.LABEL: label})
    rows[logged.DECISION] = (rows[logged.SCORE] >= RATE_CHAMPION.threshold).astype("float64")
    rows[logged.VERSION] = "1"
    return Week(number, fault, begins, rows)


class Simulation:
    """The champion, and every rule's judgement of a week."""

    attributions = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pools = pools(ROOT / "data" / "loanapp.csv")
        self.pools.training.to_parquet(folder / "training.parquet", index=False)
        self.training = ParquetSource(folder / "training.parquet")
        told = {
            "features": FEATURES, "target": WORKLOAD.model.target, "seed": 0,
            "parameters": RATE_CHAMPION.parameters,
        }  # fmt: skip
        code = runpy.run_path(str(ROOT / "config" / "workloads" / str(WORKLOAD.training.code) / "train.py"))
        self.model = code["fit"](self.pools.training, told)
        rows = self.pools.evaluation
        score = self.model.predict_proba(rows[FEATURES])[:, 1]
        decision = (score >= RATE_CHAMPION.threshold).astype("float64")
        self.scored = rows.assign(score=score, decision=decision, label=rows[WORKLOAD.model.target])
        self._raised: list[list[str]] = []
        self._rows: list[int] = []

    def signals(self, one: Week) -> list[Signal]:
        """Airlock's answers about a week."""
        start = microseconds("2026-01-05") + one.number * 7 * DAY_US
        window = Window(start_us=start, end_us=start + 7 * DAY_US)
        path = self._folder / "week.parquet"
        one.rows.to_parquet(path, index=False)
        days = window.days[:3] if one.fault == "outage" and len(one.rows) else window.days
        size = len(one.rows)
        found = LoggedWindow(path, size, "", days=dict.fromkeys(days, size) if size else {})
        own = ParquetSource(path) if size else None
        assert POLICY.monitoring is not None
        assert WORKLOAD.monitoring is not None
        scene = Scene(
            workload=WORKLOAD, spec=WORKLOAD.monitoring, limits=POLICY.monitoring.limits, window=window,
            logged=found, own=own, matured=own, release=self, governed=frozenset({"1"}),
            past=Past(self._rows[-8:]), metric="roc_auc", bins=10, replicates=500,
        )  # fmt: skip
        answers = [
            signal
            for name, measure in _MEASURES.items()
            if name not in LEFT_OUT
            for signal in guarded([name], partial(measure, scene))
        ]
        self._rows += [size] if size else []
        return answers

    def act(self, answers: list[Signal]) -> Action:
        """What the shipped rules ask for, after the weeks so far."""
        assert POLICY.monitoring is not None
        named = {
            kind: [one.name for one in answers if one.reading == kind]
            for kind in ("raised", "unsure", "error")
        }
        self._raised.append(named["raised"])
        hysteresis = POLICY.monitoring.hysteresis
        facts = FactSet(workload_facts(WORKLOAD, POLICY))
        facts.learn("signals", {one.name: one.value for one in answers if one.value is not None})
        facts.learn(
            "monitor",
            {
                "raised": named["raised"], "unsure": named["unsure"], "errors": named["error"],
                "lasting": lasting(self._raised, raised=hysteresis.raised, of=hysteresis.windows),
                "rows": 0.0, "labelled": 0.0, "blind": len(named["error"]), "windows": 99,
                "can_roll_back": True,
            },
        )  # fmt: skip
        from datetime import date

        session = CelEngine().begin(POLICY, facts)
        reasons = evaluate_phase(
            "action", policy=POLICY, session=session, facts=facts, as_of=date(2026, 1, 1)
        )
        return heaviest_action([Action(one.effect.split()[1]) for one in reasons if one.fired])

    def threshold(self, one: Week) -> bool:
        """Whether any feature's PSI is over 0.2."""
        if one.rows.empty:
            return False
        found = compare(self.training, FrameSource(one.rows[FEATURES]), FEATURES, threads=1)
        return any((column.psi or 0.0) > 0.2 for column in found)  # the folk rule

    def evidently(self, one: Week) -> bool:
        """Whether half of the columns drifted by Evidently's default test of each."""
        if one.rows.empty:
            return False
        from evidently import Report
        from evidently.metrics import DriftedColumnsCount

        run = Report([DriftedColumnsCount(columns=FEATURES)]).run(
            one.rows[FEATURES], self.pools.training[FEATURES]
        )
        return float(run.dict()["metrics"][0]["value"]["share"]) >= 0.5


def simulate(count: int, seed: int, *, evidently: bool = True) -> tuple[list[Week], list[Tally]]:
    """All weeks, and how each rule did."""
    with tempfile.TemporaryDirectory(prefix="airlock-simulation-") as name:
        made, weeks = Simulation(Path(name)), []
        own, plain, theirs = Tally("Airlock"), Tally("PSI of any feature > 0.2"), Tally("Evidently's default")
        for planned in plan(count, seed):
            number, one = planned[0], make(made.pools, made.model, planned, seed)
            weeks.append(one)
            action = made.act(made.signals(one))
            if action is not Action.NONE:
                own.alarms.add(number)
            if action is Action.RETRAIN:
                own.retrains.add(number)
            rules = [(plain, made.threshold)] + ([(theirs, made.evidently)] if evidently else [])
            for tally, rule in rules:
                if rule(one):  # such a rule knows one answer, and retrains at each alarm
                    tally.alarms.add(number)
                    tally.retrains.add(number)
    return weeks, [own, plain, theirs] if evidently else [own, plain]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    weeks, tallies = simulate(count, 7)
    kinds = Counter(one.fault for one in weeks)
    print(f"{len(weeks)} weeks of 160 applications: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")
    for tally in tallies:
        print(tally.line(weeks))


if __name__ == "__main__":
    main()
