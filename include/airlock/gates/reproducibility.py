"""Reproducibility: whether somebody else could train this model again and get the same one.

Why it matters: a model that cannot be trained again cannot be corrected, and nobody can show later that it is
what it was said to be. A seed that was not fixed, or libraries that were not pinned, is all it takes.

What good looks like: the artifact says the seed of everything random in its training; every library it needs
is pinned to one version; and these are the versions it is judged with. Where the workload names its training
command, the model was trained again from the pinned data with the pinned code, in a sandbox without network,
and says the same about every evaluation row, within the tolerance.

How to fix it: fix the seed and log it with `metadata={"airlock": {"seed": 0}}`, or name it under
`training.seed` in the workload file; log the model with `pip_requirements` that use `==`. Where training
again gives another model, look for randomness without a seed, for sets whose order changes, for data that is
read from elsewhere than the file that is given, and for parameters that the run did not log; or make the
version again with the training command. Helpful tools: `random_state` of scikit-learn,
`mlflow.models.infer_pip_requirements`, `pip freeze` and `uv lock`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.columns import Task, label_text
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.gates.base import GateContext, Need, Stage

if TYPE_CHECKING:
    import pandas as pd

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.ARTIFACT,)

_FILE = "requirements.txt"
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*===?\s*([^\s;#*,]+)(?=\s|;|#|$)")
_LONGEST = 1_000_000
"""Bytes of a requirements file that is read; real ones have a few hundred."""

Strictness = Literal["warn", "fail"]


class Config(Value):
    """How strict the gate is."""

    unknown_seed: Annotated[Strictness, Field(description="what a training without a known seed is")]
    unpinned_libraries: Annotated[Strictness, Field(description="what libraries without one version are")]
    other_versions: Annotated[
        Strictness, Field(description="what libraries are whose versions differ from those it is judged with")
    ]
    without_command: Annotated[
        Literal["off", "warn", "fail"], Field(description="what a workload without a training command is")
    ]
    other_model: Annotated[
        Strictness, Field(description="what a training is that gives another model than the candidate")
    ]
    maximum_score_difference: Annotated[
        float,
        Field(ge=0, description="of any score after training again; of a regression in standard deviations"),
    ]
    maximum_decision_changes: Annotated[
        float, Field(ge=0, le=1, description="share of evaluation rows decided differently after that")
    ]


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Look for the seed and for the versions of libraries, and compare with the model trained again."""
    seed = context.candidate().metadata.get("seed", context.declared.training.seed)
    pinned, loose = _requirements(context)
    judged = {} if context.manifest is None else context.manifest.environment
    again = _trained_again(context, config)
    findings = [
        *again.findings,
        *_seed(seed, config),
        *_libraries(pinned, loose, config),
        *_versions(pinned, judged, config),
    ]
    bad = [finding.message for finding in findings]
    good = f"The seed is {seed} and all {len(pinned)} libraries are pinned. {again.sentence}".strip()
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=f"{'; '.join(bad)}." if bad else good,
        findings=findings,
        metrics=[
            Metric(name="libraries_pinned", value=len(pinned), n=len(pinned) + len(loose)),
            Metric(name="libraries_not_pinned", value=len(loose), n=len(pinned) + len(loose)),
            *again.metrics,
        ],
        details={"seed": seed, "pinned": pinned, **({"retrained": again.details} if again.details else {})},
    )


@dataclass(frozen=True)
class _Again:
    """What training again has shown."""

    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    sentence: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def _trained_again(context: GateContext, config: Config) -> _Again:
    retrained = context.retrained()
    if retrained is None:
        if config.without_command == "off":
            return _Again()
        text = "no training command is given, so nobody has trained it again"
        fix = "name the command in training.command of the workload file"
        return _Again([_finding("command", config.without_command, text, fix)])
    details = dict(retrained.details)
    if retrained.frame is None:
        text = f"it could not be trained again: {retrained.problem.rstrip('.')}"
        broken = Finding(id="retraining", verdict=Verdict.ERROR, message=text, fix=retrained.fix)
        return _Again([broken], details=details)
    attempts = [str(attempt) for attempt in details.get("attempts") or []]
    findings = list(_attempts(attempts))
    compared = _compare(context, retrained.frame, config)
    return _Again([*compared.findings, *findings], compared.metrics, compared.sentence, details)


def _attempts(attempts: list[str]) -> Iterator[Finding]:
    """What a training asked for and was not given may be what made another model of it elsewhere."""
    if attempts:
        yield Finding(
            id="training-attempt",
            verdict=Verdict.WARNED,
            message=f"the training command was refused what no training needs: it tried to "
            f"{', '.join(attempts[:5])}"[:2000],
            fix="read all data from the file that is given, and start no other programs",
        )


def _compare(context: GateContext, again: pd.DataFrame, config: Config) -> _Again:
    """The candidate's scores and decisions beside those of the model trained again, row for row."""
    import numpy as np

    scores = context.scores().frame
    names = sorted({str(name) for name in scores if str(name).startswith("candidate_score")} & {*again})
    if len(again) != len(scores) or not len(scores) or "candidate_prediction" not in scores:
        rows = f"{len(again)} rows were scored after training again, and {len(scores)} before"
        problem = Finding(
            id="retraining",
            verdict=Verdict.ERROR,
            message=f"the two models cannot be compared: {rows}",
            fix="submit the release again",
        )
        return _Again([problem])
    if context.task is Task.REGRESSION:
        names = ["candidate_prediction"]
    differences = [
        np.abs(again[name].to_numpy("float64") - scores[name].to_numpy("float64")).max() for name in names
    ]
    distance = float(max(differences, default=0.0))
    if context.task is Task.REGRESSION:
        spread = float(scores["candidate_prediction"].to_numpy("float64").std())
        distance = distance / spread if spread else distance
    tolerance = config.maximum_score_difference
    if (promised := context.declared.training.tolerance) is not None:
        tolerance = min(tolerance, promised)
    metrics = [] if not names else [_metric("retrained_score_difference", distance, tolerance, len(scores))]
    changed = 0.0
    if context.task is not Task.REGRESSION:
        decided = [frame["candidate_prediction"].map(label_text) for frame in (again, scores)]
        changed = float((decided[0].to_numpy() != decided[1].to_numpy()).mean())
        limit = config.maximum_decision_changes
        metrics.append(_metric("retrained_decision_changes", changed, limit, len(scores)))
    told = f"of {len(scores)} rows {changed:.2%} are decided differently, and no score differs by more than "
    told += f"{distance:.2g}"
    findings = []
    if any(one.value is None or one.threshold is None or not one.value <= one.threshold for one in metrics):
        text = f"training it again with the same data, code and seed gives another model: {told}"
        fix = "fix every seed, log every parameter, and make the version with the training command"
        findings.append(_finding("other-model", config.other_model, text, fix))
    return _Again(findings, metrics, f"Trained again: {told}.")


def _metric(name: str, value: float, limit: float, rows: int) -> Metric:
    return Metric(
        name=name,
        value=value,
        threshold=limit,
        direction="lower",
        n=rows,
        method="training again",
    )


def _requirements(context: GateContext) -> tuple[dict[str, str], list[str]]:
    """Pinned libraries with their versions, and the lines that pin nothing."""
    path = context.artifact() / _FILE
    if not path.is_file() or path.stat().st_size > _LONGEST:
        return {}, []
    pinned, loose = {}, []
    for raw in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = "".join(character for character in raw if character.isprintable()).strip()
        if not line or line.startswith(("#", "--hash")):
            continue
        if match := _PINNED.match(line):
            pinned[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]  # PEP 503
        else:
            loose.append(line[:100])
    return pinned, loose


def _finding(finding_id: str, how: Strictness, message: str, fix: str) -> Finding:
    verdict = Verdict.FAILED if how == "fail" else Verdict.WARNED
    return Finding(id=finding_id, verdict=verdict, message=message, fix=fix)


def _seed(seed: object, config: Config) -> Iterator[Finding]:
    if seed is None or isinstance(seed, bool) or not isinstance(seed, int):
        yield _finding(
            "seed",
            config.unknown_seed,
            "nothing says which seed the training had",
            "fix the seed, and log it in metadata.airlock.seed of the artifact",
        )


def _libraries(pinned: dict[str, str], loose: list[str], config: Config) -> Iterator[Finding]:
    if not pinned and not loose:
        text = f"the artifact has no {_FILE}, so nothing says which libraries it needs"
    elif loose:
        text = f"{len(loose)} libraries are not pinned to one version: {', '.join(loose[:5])}"
    else:
        return
    yield _finding(
        "libraries", config.unpinned_libraries, text, "log the model with pip_requirements that use =="
    )


def _versions(pinned: dict[str, str], judged: dict[str, str], config: Config) -> Iterator[Finding]:
    other = [
        f"{name} {version} (judged with {judged[name]})"
        for name, version in sorted(pinned.items())
        if name in judged and judged[name] != version
    ]
    if other:
        yield _finding(
            "versions",
            config.other_versions,
            f"it was made with other versions than it is judged with: {', '.join(other)}",
            "train it with the versions of production",
        )
