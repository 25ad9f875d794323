"""The record of what was tried against a bias, read from the model's files and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from airlock.core.base import Value
from airlock.core.canonical import parse_json
from airlock.core.errors import AirlockError
from airlock.core.evidence import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airlock.gates.base import GateContext

FILE = "mitigation.json"
_MAXIMUM_BYTES = 1_000_000
_TOLERANCE = 0.005
"""How far a recorded ratio may be from the measured one: it is written with two or three digits."""


class Attempt(Value):
    """One thing that was tried.

    Attributes:
        attribute: the protected attribute it is about.
        method: what was done, such as ``ThresholdOptimizer`` or ``reweighting``.
        before: metric → value before it, such as ``demographic_parity_ratio``.
        after: the same after it.
        adopted: whether the submitted model is the result.
        note: why it was adopted or given up.
    """

    attribute: Annotated[str, Field(min_length=1)]
    method: Annotated[str, Field(min_length=1)]
    before: Annotated[dict[str, float], Field(min_length=1)]
    after: Annotated[dict[str, float], Field(min_length=1)]
    adopted: bool
    note: str = ""


class Record(Value):
    """``mitigation.json`` beside the model."""

    attempts: Annotated[list[Attempt], Field(min_length=1)]


MITIGATION = ("no_mitigation", "mitigation_tried", "mitigation_unreadable", "mitigation_contradicted")
"""Ids of all findings about it."""


def mitigation_findings(
    context: GateContext,
    when: Literal["always", "failed", "never"],
    findings: Sequence[Finding],
    ratios: Mapping[str, float | None],
) -> list[Finding]:
    """What is said about the record: that it is missing, unreadable, or not about this model.

    A record never makes a failed gate pass: it is for those who decide whether the rest may be accepted.
    """
    failed = sorted({found.where for found in findings if found.verdict is Verdict.FAILED})
    if when == "never" or (when == "failed" and not failed):
        return []
    try:
        record = _read(context)
    except (AirlockError, ValidationError, OSError) as error:
        text = f"{FILE} cannot be read: {str(error).splitlines()[0]}"
        return [_finding("mitigation_unreadable", Verdict.FAILED, text, _FIX)]
    if record is None:
        about = f" for {', '.join(failed)}" if failed else ""
        return [
            _finding("no_mitigation", Verdict.WARNED, f"no record of a mitigation{about} comes with it", _FIX)
        ]
    found = [
        _finding(
            "mitigation_tried",
            Verdict.PASSED,
            f"{one.method} was tried for {one.attribute}: {_change(one)}"
            f"{'' if one.adopted else ', not adopted'}",
            "",
            one.attribute,
        )
        for one in record.attempts
    ]
    for one in record.attempts:
        said, measured = one.after.get("demographic_parity_ratio"), ratios.get(one.attribute)
        if one.adopted and said is not None and measured is not None and abs(said - measured) > _TOLERANCE:
            text = (
                f"{FILE} says a demographic parity ratio of {said:.3f} for {one.attribute}, but "
                f"{measured:.3f} is measured"
            )
            fix = "measure again on this evaluation batch and correct the record"
            found.append(_finding("mitigation_contradicted", Verdict.FAILED, text, fix, one.attribute))
    return found


def _read(context: GateContext) -> Record | None:
    try:
        path = context.artifact() / FILE
    except AirlockError:
        return None  # plain files come with no artifact
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(_MAXIMUM_BYTES + 1)
    return Record.model_validate(parse_json(data[:_MAXIMUM_BYTES]))


def _change(attempt: Attempt) -> str:
    both = sorted(attempt.before.keys() & attempt.after.keys())
    return (
        ", ".join(f"{name} {attempt.before[name]:.3g} to {attempt.after[name]:.3g}" for name in both)
        or "no number"
    )


_FIX = (
    f"write {FILE} beside the model: a list 'attempts' with attribute, method, before, after, adopted and "
    "note, where before and after hold metrics"
)


def _finding(finding_id: str, verdict: Verdict, message: str, fix: str, where: str = "") -> Finding:
    return Finding(id=finding_id, verdict=verdict, message=message, where=where, fix=fix)
