"""Reproducibility: whether somebody else could train this model again and get the same one.

Why it matters: a model that cannot be trained again cannot be corrected, and nobody can show later that it is
what it was said to be. A seed that was not fixed, or libraries that were not pinned, is all it takes.

What good looks like: the artifact says the seed of everything random in its training; every library it needs
is pinned to one version; and these are the versions it is judged with.

How to fix it: fix the seed and log it with `metadata={"airlock": {"seed": 0}}`, or name it under
`training.seed` in the workload file; log the model with `pip_requirements` that use `==`. Helpful tools:
`random_state` of scikit-learn, `mlflow.models.infer_pip_requirements`, `pip freeze` and `uv lock`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.gates.base import GateContext, Need, Stage

STAGE = Stage.BEFORE_SCORING
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


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Look for the seed and for the versions of libraries."""
    seed = context.candidate().metadata.get("seed", context.declared.training.seed)
    pinned, loose = _requirements(context)
    judged = {} if context.manifest is None else context.manifest.environment
    findings = [
        *_seed(seed, config),
        *_libraries(pinned, loose, config),
        *_versions(pinned, judged, config),
    ]
    bad = [finding.message for finding in findings]
    good = f"The seed is {seed} and all {len(pinned)} libraries are pinned."
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=f"{'; '.join(bad)}." if bad else good,
        findings=findings,
        metrics=[
            Metric(name="libraries_pinned", value=len(pinned), n=len(pinned) + len(loose)),
            Metric(name="libraries_not_pinned", value=len(loose), n=len(pinned) + len(loose)),
        ],
        details={"seed": seed, "pinned": pinned},
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
