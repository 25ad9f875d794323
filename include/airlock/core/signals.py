"""What monitoring sees: signals of one window, each with an answer, and the evidence that carries them (M-1).

A signal's answer is one of five, and none of them is silence: ``calm``; ``raised``, it is beyond its limit
and that is not chance; ``unsure``, nobody can tell from this window, with the reason; ``error``, it could not
be measured though it should have been; ``off``, the workload has nothing that it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.production import Window
from airlock.core.statistics import Judge, Standing, standing


class Reading(StrEnum):
    """The answer of a signal."""

    CALM = "calm"
    RAISED = "raised"
    UNSURE = "unsure"
    ERROR = "error"
    OFF = "off"


SIGNALS: Final[dict[str, str]] = {
    "volume": "how much was logged, day by day",
    "data_quality": "missing, mistyped and renamed columns, repeated ids, wrong clocks, broken files",
    "unknown_version": "predictions of a version that nobody released",
    "unknown_values": "predictions on values that the training data does not have",
    "data_drift": "features that no longer look like the training data",
    "prediction_drift": "scores that no longer look as at the release",
    "target_drift": "outcomes that are more or less frequent than at the release",
    "performance": "the primary metric where outcomes are known, against the release",
    "performance_estimate": "the same metric where outcomes are not known yet, an estimate from the scores",
    "concept_drift": "what the same score means: outcomes against scores",
    "fairness": "impact ratio between the groups of each protected attribute",
    "explanation": "what the model's decisions rest on, against the release",
    "business": "the number the business lives by",
    "cost": "what a prediction costs",
    "latency": "how long the slowest twentieth of the answers take",
}
"""Every signal and what it is about, in the order people read them."""


class Signal(Value):
    """One thing monitoring looked at in one window.

    Attributes:
        name: one of ``SIGNALS``.
        value: what was measured; ``None`` where nothing could be.
        limit: what it is held against, from the policy.
        direction: whether larger or smaller values are better.
        interval: of the value, at ``confidence``.
        n: rows it rests on.
        text: what was found, in a sentence.
        fix: what to do about it; empty when there is nothing to do.
        method: how value and interval were computed.
        estimated: it is an estimate that rests on an assumption, not a measurement.
        details: more numbers, such as those of each feature.
    """

    name: str
    reading: Reading
    text: Annotated[str, Field(min_length=1)]
    value: float | None = None
    limit: float | None = None
    direction: Literal["higher", "lower", "none"] = "none"
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    n: int | None = None
    unit: str = "1"
    fix: str = ""
    method: str = ""
    estimated: bool = False
    details: dict[str, Any] = {}


class MonitoringEvidence(Value):
    """The content-addressed record of one window; its digest is its name.

    Attributes:
        baseline: digest of what the window was held against.
        log: digest of the rows of the window; ``labels`` of those whose outcomes were judged.
        config: limits that applied.
    """

    schema_version: Literal[1] = 1
    workload: str
    version: str
    window: Window
    baseline: str
    log: str
    labels: str
    policy_version: str
    policy_digest: str
    rows: int
    labelled: int
    config: dict[str, Any]
    signals: list[Signal]
    files: dict[str, str] = {}
    details: dict[str, Any] = {}

    def named(self, *readings: Reading) -> list[str]:
        """Names of the signals with one of these answers, in their order."""
        return [signal.name for signal in self.signals if signal.reading in readings]

    @property
    def sentence(self) -> str:
        """The window in one sentence."""
        return sentence_of({signal.name: str(signal.reading) for signal in self.signals})


def sentence_of(readings: dict[str, str]) -> str:
    """Answers by name in one sentence, the worst first."""
    parts = []
    for reading, words in (
        ("error", "could not be measured"),
        ("raised", "raised"),
        ("unsure", "cannot tell"),
    ):
        if names := [name.replace("_", " ") for name, found in readings.items() if found == reading]:
            parts.append(f"{words}: {', '.join(names)}")
    calm = sum(found == "calm" for found in readings.values())
    return "; ".join([*parts, f"{calm} signals are calm"]) if parts else f"all {calm} signals are calm"


def off(name: str, why: str) -> Signal:
    """A signal the workload has nothing for."""
    return Signal(name=name, reading=Reading.OFF, text=why)


def unsure(name: str, why: str, *, fix: str = "", **known: Any) -> Signal:
    """A signal nobody can tell from this window."""
    return Signal(name=name, reading=Reading.UNSURE, text=why, fix=fix, **known)


def failed(name: str, why: str, *, fix: str = "", **known: Any) -> Signal:
    """A signal that could not be measured."""
    return Signal(name=name, reading=Reading.ERROR, text=why[:2000], fix=fix, **known)


def judged(
    name: str,
    *,
    value: float | None,
    limit: float,
    direction: Literal["higher", "lower"],
    interval: tuple[float, float] | None,
    no_effect: float | None = None,
    text: str,
    fix: str,
    **known: Any,
) -> Signal:
    """A signal by its number: raised when it is beyond its limit and that is more than chance.

    Laws: a value within its limit is never raised, whatever its interval; what is undefined is ``error``; an
    interval on both sides of a limit that the value keeps is calm only when it holds ``no_effect``, else
    nobody can tell.
    """
    if value is None or not isfinite(value) or interval is None or not all(map(isfinite, interval)):
        return failed(name, f"{text}: undefined for this window", fix=fix, **known)
    where = standing(
        value,
        limit,
        interval,
        higher_is_better=direction == "higher",
        by=Judge.SIGNIFICANT,
        no_effect=no_effect,
    )
    reading = {Standing.RIGHT: Reading.CALM, Standing.WRONG: Reading.RAISED}.get(where, Reading.UNSURE)
    if reading is Reading.UNSURE and no_effect is not None and not _beyond(value, limit, direction):
        # Close to its limit or not, nothing here says that anything happened.
        reading = Reading.CALM if interval[0] <= no_effect <= interval[1] else Reading.UNSURE
    if reading is Reading.UNSURE:
        text = f"cannot tell: {text}"
    return Signal(
        name=name,
        reading=reading,
        text=text,
        value=value,
        limit=limit,
        direction=direction,
        interval=interval,
        fix=fix if reading in (Reading.RAISED, Reading.UNSURE) else "",
        **known,
    )


def _beyond(value: float, limit: float, direction: str) -> bool:
    return value < limit if direction == "higher" else value > limit


def lasting(windows: Sequence[Iterable[str]], *, raised: int, of: int) -> list[str]:
    """Signals raised in at least ``raised`` of the last ``of`` windows, the last one among them.

    ``windows`` are the names raised in each window, oldest first. Laws: a signal that is not raised now does
    not last; more windows in which it was raised never make it stop lasting.
    """
    recent = [set(names) for names in windows[-of:]]
    if not recent:
        return []
    return sorted(name for name in recent[-1] if sum(name in names for names in recent) >= raised)
