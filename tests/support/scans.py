"""Contexts for the security gate: a scan report and the manifest that goes with it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airlock.core.advisory import Advisory, AdvisoryBook
from airlock.core.canonical import sha256_hex
from airlock.core.manifest import ArtifactRef, FileRef
from airlock.gates.base import GateContext
from tests.support.gates import make_context, make_manifest, make_workload


def scanned(path: str = "model.skops", form: str = "skops", size: int = 10, **changes: Any) -> dict[str, Any]:
    """One file as the scan describes it."""
    described = {"path": path, "format": form, "size": size, "sha256": sha256_hex(path.encode())}
    return {**described, "untrusted_types": [], "pickle_globals": [], **changes}


@cache
def _folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="airlock-test-")
    Path(folder.name, "requirements.txt").write_text("scikit-learn==1.9.1\n")
    return folder


def known(*advisories: Advisory, **changes: Any) -> AdvisoryBook:
    """A fresh advisory database that knows these."""
    values: dict[str, Any] = {"sha256": "0" * 64, "modified": "2026-01-01T00:00:00Z", "age_days": 1.0}
    return AdvisoryBook(**{**values, "entries": 10, "advisories": list(advisories), **changes})


def scan_context(*files: dict[str, Any], manifest: list[dict[str, Any]] | None = None) -> GateContext:
    """The context of a candidate with these files; ``manifest`` when it names others."""
    named = [
        FileRef(path=file["path"], sha256=file["sha256"], size=file["size"])
        for file in (files if manifest is None else manifest)
        if file["sha256"]
    ]
    artifact = ArtifactRef(version="2", sha256=ArtifactRef.digest_files(named), files=named)
    context = make_context(
        scan={"files": list(files), "versions": {"skops": "0.16.0"}},
        manifest=make_manifest(make_workload(), candidate=artifact),
        artifact=Path(_folder().name),
    )
    context.advisories = lambda _: known()
    return context
