"""Declared facts that something else contradicts: a tier computed from them would be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from airlock.core.evidence import Evidence
from airlock.core.workload import Workload

_PROXIES: Final = ("proxy", "copy", "forbidden_feature")
"""Findings of the privacy gate about features that tell a protected attribute."""


def contradictions(workload: Workload, evidence: Mapping[str, Evidence]) -> list[str]:
    """Each declared fact that the workload file itself or the evidence contradicts, in words.

    Law: more evidence never removes a contradiction.
    """
    return [*_in_the_file(workload), *_in_the_evidence(workload, evidence)]


def _in_the_file(workload: Workload) -> Iterator[str]:
    risk = workload.risk
    if not risk.protected_class_data and workload.data.sensitive:
        named = ", ".join(sorted(workload.data.sensitive))
        yield f"risk.protected_class_data is false, but data.sensitive names {named}"
    if not risk.regulated and workload.regimes:
        yield f"risk.regulated is false, but regimes names {', '.join(workload.regimes)}"
    if risk.automated_decision and risk.human_review:
        yield "risk.automated_decision says that no human is there, but risk.human_review says that one is"


def _in_the_evidence(workload: Workload, evidence: Mapping[str, Evidence]) -> Iterator[str]:
    privacy = evidence.get("privacy")
    if privacy is None or workload.risk.protected_class_data:
        return
    found = privacy.result.details.get("protected", {})
    columns = [str(name) for name in _list(found, "columns_present") if name not in workload.data.sensitive]
    if columns:
        yield f"risk.protected_class_data is false, but the data has {', '.join(sorted(columns))}"
    proxies = {_feature(item) for item in _list(found, "proxies")}
    proxies |= {item.where for item in privacy.result.findings if item.id in _PROXIES and item.where}
    if proxies:
        yield (
            "risk.protected_class_data is false, but a protected attribute can be told from "
            f"{', '.join(sorted(proxies))}"
        )


def _list(found: object, name: str) -> list[Any]:
    value = found.get(name, []) if isinstance(found, Mapping) else []
    return list(value) if isinstance(value, list | tuple) else []


def _feature(item: object) -> str:
    return str(item.get("feature", "a feature")) if isinstance(item, Mapping) else str(item)
