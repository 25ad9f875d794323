"""The difference between candidate and champion, computed from the models and what is frozen of their files.

Nothing here is what a submitter says about a change. The models are described by the sandbox, which loads
them; signature, packages and data come from the manifest, which covers the files by digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airlock.core.manifest import Manifest

_SHOWN = 60
"""Characters of a hyperparameter's value in a sentence."""


def diff_models(models: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between the two models as the sandbox read them; empty without a champion.

    ``models`` has a description for ``candidate`` and ``champion``: estimator, steps, hyperparameters,
    features, threshold.
    """
    candidate, champion = models["candidate"], models.get("champion")
    if champion is None:
        return {}
    new, old = candidate["hyperparameters"], champion["hyperparameters"]
    changed = [name for name in sorted({*new, *old}) if new.get(name) != old.get(name)]
    return {
        "architecture": [*champion["steps"]] != [*candidate["steps"]]
        or champion["estimator"] != candidate["estimator"],
        "from_estimator": champion["estimator"].rsplit(".", 1)[-1],
        "to_estimator": candidate["estimator"].rsplit(".", 1)[-1],
        "new_features": sorted(set(candidate["features"]) - set(champion["features"])),
        "removed_features": sorted(set(champion["features"]) - set(candidate["features"])),
        # Rounded, so that 0.4 and 0.3 are 0.1 apart and not a hair more.
        "threshold": round(abs(candidate["threshold"] - champion["threshold"]), 12),
        "hyperparameters": changed,
        "values": [_arrow(name, old.get(name), new.get(name)) for name in changed],
    }


def diff_files(manifest: Manifest) -> dict[str, Any]:
    """What differs in signature, packages and data, as lists of words; empty lists when nothing does.

    Without a champion only ``data_source`` is known: whether the training data is what the workload
    declares.
    """
    candidate, champion = manifest.candidate, manifest.champion
    # Undeclared training data counts as a new source: what nobody can name, nobody reviewed.
    undeclared = candidate.metadata.get("training_sha256") != manifest.training.sha256
    before = manifest.champion_training
    moved = before is not None and before.origin != manifest.training.origin
    change: dict[str, Any] = {"data_source": undeclared or moved}
    if champion is None:
        return change
    old_data, new_data = (artifact.metadata.get("training_sha256") for artifact in (champion, candidate))
    return change | {
        "training_data": old_data is None or old_data != new_data,
        "signature": [
            *_mapping("input", champion.inputs, candidate.inputs),
            *_mapping("output", champion.outputs, candidate.outputs),
        ],
        "environment": [*_mapping("", champion.packages, candidate.packages)],
    }


def _mapping(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield _arrow(f"{kind} {name}".strip(), old.get(name), new.get(name))


def _arrow(name: str, old: str | None, new: str | None) -> str:
    before, after = ("none" if value is None else value[:_SHOWN] for value in (old, new))
    return f"{name}: {before} → {after}"
