"""Time of one decision with 60 facts and 40 rules, in process, against plain Python as a floor.

    python -m benchmarks.policy_decision

The policy is the shipped one, with some of its rules repeated under other names until there are 40. The floor
evaluates the same conditions as Python functions that were compiled before, with the same facts and in the
same frame: what CEL costs is the difference. All run in turn, 200 times each, in one process with the garbage
collector at work, and processor time is measured, because other work on the machine is not a decision's cost.
``cold`` is the first decision of each turn, which finds the processor's caches full of the other cases.

``decision`` is the decision: facts go in, every rule is evaluated, and what each says, tier, track and seats
come out. ``in words`` also writes every sentence, those of rules that did not fire too, as the stored
decision has them. ``whole`` is all of ``decide``, which also reads the facts off the evidence, computes the
risk score and names each piece of evidence by the digest it was read by.
"""

from __future__ import annotations

import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.config_files import ConfigFolder
from airlock.core.decision import Decision, asked_seats, decide, heaviest
from airlock.core.evidence import SCORE, Evidence, GateResult, Verdict
from airlock.core.manifest import ArtifactRef, DataRef, FileRef, Manifest
from airlock.core.policy import Phase, Policy, Tier, Track
from airlock.core.rules import FactSet, Reason, Said, ask_phase, content_digest, in_words
from airlock.core.workload import Workload

ROOT = Path(__file__).parents[1]
RULES, FACTS = 40, 60
ROUNDS, WARM, BLOCK = 6_000, 200, 200
TODAY = date(2026, 1, 1)


class PlainPython:
    """The floor: each condition is a Python function."""

    def __init__(self, policy: Policy) -> None:
        self._compiled = {
            phase: [_python(rule.when) for rule in policy.rules if rule.effect.phase == phase]
            for phase in get_args(Phase)
        }
        self._reads = {
            rule.id: tuple(dict.fromkeys(re.findall(r"[a-z]\w*(?:\.\w+)+", rule.when)))
            for rule in policy.rules
        }

    def begin(self, _: Policy, facts: FactSet) -> Any:
        """The rules over these facts."""

        def answers(phase: Phase) -> Sequence[bool]:
            return [bool(condition(facts.flat)) for condition in self._compiled[phase]]

        def nothing() -> Sequence[Reason]:
            return []

        return SimpleNamespace(answers=answers, reads=lambda rule: self._reads[rule.id], foreign=nothing)


def _python(when: str) -> Callable[[Mapping[str, Any]], Any]:
    """The condition in Python; enough for the conditions of the shipped policy."""
    names = re.compile(r'("[^"]*")|\b([a-z]\w*(?:\.\w+)+)')
    code = names.sub(lambda found: found[1] or f"flat[{found[2]!r}]", when)
    code = re.sub(r"!(?!=)", " not ", code.replace("&&", " and ").replace("||", " or "))
    code = code.replace("true", "True").replace("false", "False").replace("size(", "len(")
    return eval(f"lambda flat: ({code.strip()})")  # type: ignore[no-any-return]  # noqa: S307  # the shipped policy


def _policy() -> Policy:
    shipped = ConfigFolder(ROOT / "config").policy("1.0.0")
    # Rules of action are asked about what runs, never about a release.
    asked = [rule for rule in shipped.rules if rule.effect.phase != "action"]
    plain = [rule for rule in asked if "has(" not in rule.when and ".e" not in rule.when]
    rules = asked[:RULES]
    while len(rules) < RULES:
        again = plain[len(rules) % len(plain)]
        rules.append(again.model_copy(update={"id": f"{again.id}-again-{len(rules)}"}))
    return shipped.model_copy(update={"rules": rules})


def _manifest(workload: Workload) -> Manifest:
    zero = "0" * 64
    files = [FileRef(path="model.skops", sha256=zero, size=1)]
    artifact = ArtifactRef(version="2", sha256=zero, files=files, metadata={"training_sha256": zero})
    data = DataRef(path="x.parquet", sha256=zero, size=1)
    return Manifest(
        release_id="release",
        workload=workload.name,
        workload_digest=zero,
        submitter="dana",
        candidate=artifact,
        champion=artifact.model_copy(update={"version": "1"}),
        training=data,
        evaluation=data,
        suite_digest=zero,
        documentation_digest=zero,
        policy_version="1.0.0",
        policy_digest=zero,
        code={},
        environment={},
    )


def _evidence(policy: Policy, manifest: Manifest) -> dict[str, Evidence]:
    model = {"estimator": "sklearn.linear_model.LogisticRegression", "steps": ["a"], "threshold": 0.5}
    model["features"] = ["income", "debt"]
    change = {"architecture": False, "from_estimator": "a", "to_estimator": "a", "threshold": 0.01}
    change |= {"new_features": ["income"], "removed_features": [], "hyperparameters": ["C"]}
    details: dict[str, dict[str, Any]] = {
        SCORE: {"models": {"candidate": model, "champion": model}, "change": change},
        "performance": {"change": {"relative": 0.07, "direction": "better", "metric": "roc_auc"}},
    }
    return {
        gate: Evidence(
            release_id=manifest.release_id,
            manifest_digest=manifest.digest,
            gate=gate,
            config={},
            result=GateResult(verdict=Verdict.PASSED, summary="fine", details=details.get(gate, {})),
        )
        for gate in [*policy.gates, SCORE]
    }


def _rules(policy: Policy, nested: dict[str, Any], engine: Any) -> tuple[list[Said], FactSet, Any]:
    """From facts to what each rule says, tier, track and seats, as ``decide`` does it."""
    facts = FactSet(nested)
    session = engine.begin(policy, facts)
    found = {
        phase: ask_phase(phase, policy=policy, session=session, facts=facts, as_of=TODAY)
        for phase in get_args(Phase)
    }
    said = [one for some in found.values() for one in some]
    heaviest(found["tier"], Tier)
    asked_seats(policy, heaviest(found["track"], Track), said)
    return said, facts, session


def _told(policy: Policy, nested: dict[str, Any], engine: Any) -> list[Reason]:
    said, facts, session = _rules(policy, nested, engine)
    return [in_words(one, facts=facts, session=session) for one in said]


def _block(case: Callable[[], object]) -> list[float]:
    """Milliseconds of processor time of some runs, one after the other."""
    spent = []
    for _ in range(BLOCK):
        start = time.process_time_ns()
        case()
        spent.append((time.process_time_ns() - start) / 1e6)
    return spent


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def main() -> None:
    """Measure and print."""
    folder = ConfigFolder(ROOT / "config")
    workload = folder.workload("rate-type-forecast")
    policy = _policy()
    manifest = _manifest(workload)
    evidence = _evidence(policy, manifest)
    for record in (manifest, *evidence.values()):
        content_digest.know(record, record.digest)  # as the service does, which has read them by it
    seen: list[FactSet] = []

    class Keeping(CelEngine):
        def begin(self, _: Policy, facts: FactSet) -> Any:
            seen.append(facts)
            return super().begin(policy, facts)

    def run(engine: Any) -> Decision:
        return decide(
            manifest=manifest, workload=workload, policy=policy, evidence=evidence, engine=engine, as_of=TODAY
        )

    reference = run(Keeping())
    assert not any(reason.error for reason in reference.reasons), [r for r in reference.reasons if r.error][
        :1
    ]
    assert len([r for r in reference.reasons if not r.rule.startswith(("gate-", "waiver:"))]) == RULES
    nested = seen[0].nested  # with the tier and the score, which were learned on the way
    facts = len(FactSet(dict(nested)).flat)
    cel, floor = CelEngine(), PlainPython(policy)
    fired = [reason.fired for reason in _rules(policy, nested, cel)[0]]
    assert fired == [reason.fired for reason in _rules(policy, nested, floor)[0]], "the floor decides alike"
    cases: dict[str, Callable[[], object]] = {
        "decision": lambda: _rules(policy, nested, cel),
        "floor": lambda: _rules(policy, nested, floor),
        "in words": lambda: _told(policy, nested, cel),
        "whole": lambda: run(cel),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(WARM):
        for case in cases.values():
            case()
    for _ in range(ROUNDS // BLOCK):
        for name, case in cases.items():
            times[name] += _block(case)
    print(f"{len(policy.rules)} rules, {facts} facts, {ROUNDS} decisions; milliseconds of processor time")
    for name, values in times.items():
        print(
            f"  {name:8} median {statistics.median(values):.3f}  p99 {_percentile(values, 0.99):.3f}  "
            f"largest {max(values):.3f}"
        )
    print(f"  cold     median {statistics.median(times['decision'][::BLOCK]):.3f}")
    ratio = statistics.median(times["decision"]) / statistics.median(times["floor"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  CEL against plain Python: {ratio:.2f} times; peak memory {peak:.0f} MB")
    assert facts >= FACTS, f"only {facts} facts"


if __name__ == "__main__":
    main()
