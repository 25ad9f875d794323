"""What was kept of a training that was done again, as the reproducibility gate reads it."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

from airlock.core.audit import Kind
from airlock.core.errors import NotFoundError
from airlock.core.evidence import Evidence, GateResult
from airlock.gates.base import Retrained
from airlock.services.deployment import Deployment
from airlock.services.releases import Case
from airlock.services.training import CODE

RETRAIN = "retrain"
"""Name of the task, and of its evidence."""

SCORES = "retrained.parquet"
"""File with what the model that was trained again says about the evaluation rows."""


def recorded_retraining(deployment: Deployment, case: Case) -> Evidence | None:
    """The evidence of a release's training, if it was done; of another manifest it does not count."""
    event = case.release.first(Kind.RELEASE_RETRAINED)
    if event is None:
        return None
    evidence = Evidence.from_bytes(deployment.evidence.get(str(event.data["evidence"])))
    return evidence if evidence.manifest_digest == case.manifest.digest else None


def read_retrained(deployment: Deployment, case: Case) -> Retrained | None:
    """The candidate trained again, or why it could not be; ``None`` without a training command.

    Raises:
        NotFoundError: there is a command, and the task has not answered.
    """
    if CODE not in case.manifest.code:
        return None
    evidence = recorded_retraining(deployment, case)
    if evidence is None:
        raise NotFoundError(
            "the candidate was not trained again",
            where=case.release.release_id,
            fix="see why in the task `retrain`",
        )
    kept = evidence.result.files
    return retrained_of(evidence.result, {name: deployment.evidence.get(kept[name]) for name in kept})


def retrained_of(result: GateResult, files: Mapping[str, bytes]) -> Retrained:
    """A result with its files as the gate reads it."""
    import pandas as pd

    details = dict(result.details)
    problem = next((finding for finding in result.findings if not finding.verdict.allows), None)
    if problem is not None:
        said = "\n".join(text for text in (problem.fix, str(details.get("trace", ""))) if text)
        return Retrained(None, details, problem=result.summary, fix=said)
    return Retrained(pd.read_parquet(BytesIO(files[SCORES])), details)
