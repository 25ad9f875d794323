"""Runs a gate under the shipped policy and keeps what it attached."""

from __future__ import annotations

from typing import Any

from airlock.core.canonical import parse_json, sha256_hex
from airlock.core.evidence import Finding, GateResult, Metric
from airlock.gates import load_gate
from airlock.gates.base import GateContext
from tests.support.deployments import shipped_gates


def configuration(name: str, **changes: Any) -> Any:
    """The gate's section of the shipped policy, with changes."""
    return load_gate(name).Config(**{**shipped_gates()[name], **changes})


def judge(name: str, context: GateContext, **changes: Any) -> tuple[GateResult, dict[str, bytes]]:
    """The gate's result and the files it kept."""
    stored: dict[str, bytes] = {}

    def store(data: bytes) -> str:
        stored[sha256_hex(data)] = data
        return sha256_hex(data)

    context.store = store
    result = load_gate(name).evaluate(context, configuration(name, **changes))
    return result, {file: stored[digest] for file, digest in context.files.items()}


def table(files: dict[str, bytes], name: str) -> Any:
    """An attached JSON file, parsed."""
    return parse_json(files[name])


def finding(result: GateResult, finding_id: str, where: str = "") -> Finding:
    """The only finding with this id (and place)."""
    (found,) = [one for one in result.findings if one.id == finding_id and where in ("", one.where)]
    return found


def metric(result: GateResult, name: str, where: str = "") -> Metric:
    """The only metric with this name and place."""
    (found,) = [one for one in result.metrics if one.name == name and one.where == where]
    return found
