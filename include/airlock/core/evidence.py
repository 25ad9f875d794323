"""What a gate says: verdict, findings, metrics, and the evidence that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from airlock.core.base import Value


class Verdict(StrEnum):
    """The four verdicts. ``ERROR`` means the question could not be answered: never a pass."""

    PASSED = "PASSED"
    WARNED = "WARNED"
    FAILED = "FAILED"
    ERROR = "ERROR"

    @property
    def allows(self) -> bool:
        """Whether a release may go on with this verdict."""
        return self in (Verdict.PASSED, Verdict.WARNED)


SCORE: Final = "score"
"""Name under which the evidence of the scoring pass is kept; it is required like a gate."""

_ORDER = [Verdict.PASSED, Verdict.WARNED, Verdict.FAILED, Verdict.ERROR]


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst of several verdicts; of none it is ``ERROR``, because empty is invalid."""
    return max(verdicts, key=_ORDER.index, default=Verdict.ERROR)


class Metric(Value):
    """A number with its meaning.

    Attributes:
        name: dotted name, such as ``accuracy`` or ``selection_rate``.
        value: the measured value; ``None`` when it is undefined for this data.
        threshold: its limit from policy, if it has one.
        direction: whether larger or smaller values are better; ``none`` for information.
        unit: ``1`` for a plain number or ratio, else such as ``s`` or ``rows``.
        interval: lower and upper bound at ``confidence``, when one was computed.
        n: how many observations it rests on.
        where: the slice it is about, such as a feature or a group; empty for the whole.
        engine: which library computed it, with its version.
        method: how value and interval were computed, such as ``bootstrap`` or ``DeLong``.
    """

    name: str
    value: float | None
    threshold: float | None = None
    direction: Literal["higher", "lower", "none"] = "none"
    unit: str = "1"
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    n: int | None = None
    where: str = ""
    engine: str = ""
    method: str = ""


class Finding(Value):
    """Something a person should know, and what to do about it."""

    id: str
    verdict: Verdict
    message: str
    where: str = ""
    fix: str = ""


class GateResult(Value):
    """What ``evaluate`` of a gate returns.

    ``files`` maps a file name to its bytes' digest once stored; while a gate runs it writes the
    files with ``context.attach`` and gets the digest back.
    """

    verdict: Verdict
    summary: Annotated[str, Field(min_length=1)]
    findings: list[Finding] = []
    metrics: list[Metric] = []
    files: dict[str, str] = {}
    engines: dict[str, str] = {}
    details: dict[str, Any] = {}


class Evidence(Value):
    """The content-addressed record of one gate on one manifest; its digest is its name."""

    schema_version: Literal[1] = 1
    release_id: str
    manifest_digest: str
    gate: str
    config: dict[str, Any]
    result: GateResult

    @property
    def verdict(self) -> Verdict:
        """The gate's verdict."""
        return self.result.verdict


def passed_or_worst(findings: list[Finding]) -> Verdict:
    """The verdict that follows from findings: the worst of them, ``PASSED`` when there is none."""
    return worst([Verdict.PASSED, *(finding.verdict for finding in findings)])


def most_urgent_first(records: Iterable[Evidence]) -> list[Evidence]:
    """Evidence as people read it: what could not be judged, failed, warned, passed; then by gate."""
    return sorted(records, key=lambda record: (-_ORDER.index(record.verdict), record.gate))
