"""Lineage: whether data, code, environment and parameters of the model are known, each by its digest.

Why it matters: when a regulator, a customer or a bug asks what a model was made of, "the file of that week"
is no answer. Without exact links nothing can be repeated, corrected or taken back with certainty.

What good looks like: the artifact names the digest of its training data, and that is the declared file; data
under DVC or LakeFS is what the lock file or commit says; the git commit exists, on a branch; libraries and
parameters are written down.

How to fix it: log the model with `metadata={"airlock": {"training_sha256": …}}`, its parameters with
`mlflow.log_params`, and its libraries with `pip_requirements`; name `.dvc` files, LakeFS commits, repository
and lock file under `lineage` in the workload file. Helpful tools: `dvc commit`, `dvc pull`,
`mlflow.log_input`, `git push`, `pip freeze` or `uv lock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.lineage import Link, LinkKind
from airlock.gates.base import GateContext, Stage

STAGE = Stage.BEFORE_SCORING
NEEDS = ()
EXAMPLE = """\
lineage:
  repository: .              # folder with the training code; all paths lie inside
  dvc: [data/train.csv.dvc]
  lock_file: requirements.lock
"""

TRAINING = "training data"
"""Name of the link from the artifact to the data it was trained on."""

_FIXES = {
    "data": "train on the declared data and log its digest, or correct `lineage`",
    "features": "correct the feature view or its definition under lineage.feature_views",
    "code": "commit and push the training code, and train from that commit",
    "environment": "pin the libraries in a file, and name it under lineage.lock_file",
    "parameters": "log the parameters with mlflow.log_params, or in dvc.lock",
}


class Config(Value):
    """What must be known about every model."""

    required: Annotated[
        list[LinkKind], Field(min_length=1, description="kinds of which at least one link must hold")
    ]
    other_training_data: Annotated[
        Literal["fail", "warn"],
        Field(
            description="what training on other than the declared data is: a failure, or, where a rule makes "
            "a new data source red, a warning"
        ),
    ]


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Follow every link, and ask for those that are missing."""
    links = context.lineage()
    findings = [*_broken(links, config), *_missing(links, config)]
    held = [link for link in links if not link.broken]
    context.attach("lineage.json", canonical_json([link.to_data() for link in links]))
    bad = [finding.message for finding in findings]
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=f"{'; '.join(bad)}."
        if bad
        else f"All {len(links)} links hold: {_kinds(held)} are known by digest.",
        findings=findings,
        metrics=[
            Metric(name="links_held", value=len(held), n=len(links)),
            Metric(name="links_broken", value=len(links) - len(held), n=len(links)),
        ],
        details={"links": {f"{link.kind}: {link.tool} {link.name}": link.found for link in held}},
    )


def _broken(links: list[Link], config: Config) -> Iterator[Finding]:
    for link in links:
        if not link.broken:
            continue
        moved = link.name == TRAINING and link.claimed and link.found and config.other_training_data == "warn"
        yield Finding(
            id=f"{link.kind}.{link.tool.replace(' ', '_')}",
            verdict=Verdict.WARNED if moved else Verdict.FAILED,
            message=f"{link.kind}: {link.tool} {link.name} {link.broken}",
            where=link.name,
            fix=_FIXES[link.kind],
        )


def _missing(links: list[Link], config: Config) -> Iterator[Finding]:
    for kind in config.required:
        if not any(link.kind == kind for link in links):
            yield Finding(
                id=f"{kind}.missing",
                verdict=Verdict.FAILED,
                message=f"{kind}: nothing says which was used",
                where=kind,
                fix=_FIXES[kind],
            )


def _kinds(links: list[Link]) -> str:
    return ", ".join(dict.fromkeys(link.kind for link in links)) or "none"
