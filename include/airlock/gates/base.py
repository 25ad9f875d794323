"""What a gate is given and what it must offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airlock.core.evidence import Finding, GateResult, Verdict
from airlock.core.manifest import Manifest
from airlock.core.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

    from airlock.core.base import Value


class Stage(StrEnum):
    """When a gate can run: on data and files alone, or on the scores of both models."""

    BEFORE_SCORING = "before_scoring"
    AFTER_SCORING = "after_scoring"


class GateModule(Protocol):
    """The interface of a gate module."""

    __doc__: str | None
    STAGE: Stage
    Config: type[Value]

    @staticmethod
    def evaluate(context: GateContext, config: Any) -> GateResult:
        """Judge the release."""


@dataclass(frozen=True)
class Scores:
    """What the sandbox wrote: rows in the order of the evaluation batch.

    Attributes:
        frame: columns ``candidate_score`` (probability of 1, float) and ``candidate_prediction``
            (0 or 1), and the same with ``champion_`` when there is a champion.
        shap: candidate's SHAP values in log-odds or probability units, a column per feature plus
            ``_base`` and ``_margin``, with the evaluation row number as index ``row``.
        champion_shap: the same for the champion on the same rows, or ``None``.
        details: what the sandbox reported: models, isolation, timings, explainer.
    """

    frame: pd.DataFrame
    shap: pd.DataFrame | None
    champion_shap: pd.DataFrame | None
    details: dict[str, Any]


@dataclass
class GateContext:
    """Everything a gate may look at. Frames are loaded on demand and their digests verified.

    ``artifact`` is a folder with the candidate's files: read them, never load or execute them.
    ``business_context`` is what the submitter wrote about the release.
    ``scan`` runs the static scanner of model files in the sandbox and returns its report.
    """

    workload: Workload
    manifest: Manifest
    evaluation: Callable[[], pd.DataFrame]
    training: Callable[[], pd.DataFrame]
    scores: Callable[[], Scores]
    artifact: Callable[[], Path]
    suite: Callable[[], dict[str, Any]]
    documentation: Callable[[], str]
    business_context: str
    scan: Callable[[], dict[str, Any]]
    store: Callable[[bytes], str]
    files: dict[str, str] = field(default_factory=dict)

    def attach(self, name: str, data: bytes) -> None:
        """Keep a file (report, plot, table) with the evidence."""
        self.files[name] = self.store(data)


def cannot_judge(finding_id: str, message: str, *, fix: str, where: str = "") -> GateResult:
    """The result of a gate that cannot answer its question: ``ERROR`` with the reason in words."""
    finding = Finding(id=finding_id, verdict=Verdict.ERROR, message=message, where=where, fix=fix)
    return GateResult(
        verdict=Verdict.ERROR, summary=f"This could not be judged: {message}.", findings=[finding]
    )


def unusable_scores(
    evaluation: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    minimum_rows: int,
    champion: bool,
    target: str | None = None,
) -> GateResult | None:
    """The ``ERROR`` that scores or outcomes ask for, or ``None`` when they can be judged.

    Looks at both models when there is a ``champion``, and at the outcomes when ``target`` is given.
    """
    if len(scores) != len(evaluation):
        return cannot_judge(
            "scores.rows",
            f"{len(scores)} rows were scored, but the evaluation batch has {len(evaluation)}",
            fix="score the release again: scores and evaluation batch must be row for row the same",
        )
    if len(evaluation) < minimum_rows:
        return cannot_judge(
            "rows.too_few",
            f"the evaluation batch has {len(evaluation)} rows, but {minimum_rows} are needed",
            fix="choose an evaluation batch with more rows",
        )
    for model in ("candidate", "champion") if champion else ("candidate",):
        if problem := _score_problem(scores, model):
            return cannot_judge(
                "scores.unusable",
                problem,
                fix="make the model give every row a probability between 0 and 1 and a decision of 0 or 1",
                where=model,
            )
    if target is not None and (problem := _target_problem(evaluation, target)):
        return cannot_judge(
            "target.unusable",
            problem,
            fix="evaluate on rows whose outcome is known, coded 0 and 1",
            where=target,
        )
    return None


def _score_problem(scores: pd.DataFrame, model: str) -> str:
    score, prediction = f"{model}_score", f"{model}_prediction"
    if missing := [name for name in (score, prediction) if name not in scores]:
        return f"the scores hold no column {missing[0]}"
    if bad := int((~scores[score].between(0, 1)).sum()):  # NaN is not between
        return f"the {model} gave {bad} of {len(scores)} rows no score between 0 and 1"
    if bad := int((~scores[prediction].isin([0, 1])).sum()):
        return f"the {model} gave {bad} of {len(scores)} rows no decision of 0 or 1"
    return ""


def _target_problem(evaluation: pd.DataFrame, target: str) -> str:
    if target not in evaluation:
        return f"the evaluation batch has no column {target!r}, the outcome"
    if bad := int((~evaluation[target].isin([0, 1])).sum()):
        return f"{bad} of {len(evaluation)} rows have no outcome of 0 or 1 in {target!r}"
    return ""


MISSING_GROUP = "missing"


def group_names(column: pd.Series[Any], words: dict[str, str]) -> list[str]:
    """The group of each row in words; rows with no value are a group of their own, ``missing``.

    ``words`` maps the text of a value to its name: the numbers 1 and 1.0 and the text ``1`` are
    all ``"1"``. A value it does not name is called by its text.
    """
    codes, values = column.factorize()
    names = [words.get(_text_of(value), _text_of(value)) for value in values]
    return [names[code] if code >= 0 else MISSING_GROUP for code in codes]


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return str(whole) if value == whole else str(value)
