"""What a gate is given and what it must offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airlock.core.advisory import AdvisoryBook
from airlock.core.columns import Columns, Label, Task, label_text
from airlock.core.declarations import Declarations
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import Finding, GateResult, Verdict
from airlock.core.lineage import Link
from airlock.core.manifest import ArtifactRef, Manifest
from airlock.core.workload import PrivacySpec, Workload

if TYPE_CHECKING:
    import pandas as pd

    from airlock.core.base import Value


class Stage(StrEnum):
    """When a gate can run: on data and files alone, or on the scores of both models."""

    BEFORE_SCORING = "before_scoring"
    AFTER_SCORING = "after_scoring"


class Need(StrEnum):
    """What a gate looks at when it judges plain files; the first three are files with data."""

    CURRENT = "current"
    REFERENCE = "reference"
    PREDICTIONS = "predictions"
    ARTIFACT = "artifact"
    CARD = "card"
    SUITE = "suite"
    CONTEXT = "context"

    @property
    def is_data(self) -> bool:
        """Whether it is a file given on the command line, and not a key of the configuration."""
        return self in (Need.CURRENT, Need.REFERENCE, Need.PREDICTIONS)


class GateModule(Protocol):
    """The interface of a gate module.

    ``NEEDS`` may be left out: the gate then looks at current and reference data. So may ``HELD``, the limits
    that a replay can move without running the gate again (``core/held.py``): it then runs again for any.
    """

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
            (0 or 1), and the same with ``champion_`` when there is a champion. On plain files a score
            may be absent, and for other tasks than ``BINARY`` the prediction is a label or a number.
        shap: candidate's SHAP values in log-odds or probability units, a column per feature plus
            ``_base`` and ``_margin``, with the evaluation row number as index ``row``.
        champion_shap: the same for the champion on the same rows, or ``None``.
        details: what the sandbox reported: models, isolation, timings, explainer.
        reasons: the first reason of declined cases with the score ``score`` and, the reason taken away,
            ``score_without``; ``None`` where that was not tried.
    """

    frame: pd.DataFrame
    shap: pd.DataFrame | None
    champion_shap: pd.DataFrame | None
    details: dict[str, Any]
    reasons: pd.DataFrame | None = None


@dataclass(frozen=True)
class Retrained:
    """The candidate trained again by the workload's command, on the same data, code and parameters.

    Attributes:
        frame: as in ``Scores``, with ``candidate_`` for the model that was trained again; ``None`` when it
            could not be.
        details: seed, digests of data and code, metrics of the command, and what it was refused.
        problem: why it could not be trained again; empty when it could.
        fix: what to do about that, with the last lines of the command.
    """

    frame: pd.DataFrame | None
    details: dict[str, Any]
    problem: str = ""
    fix: str = ""


def no_advisories(_: Sequence[str]) -> AdvisoryBook:
    """The answer of a deployment that has no advisory database.

    Raises:
        InvalidInputError: always.
    """
    raise InvalidInputError(
        "there is no advisory database",
        fix="set AIRLOCK_ADVISORIES to a copy of the OSV database: see Known vulnerabilities in the "
        "operator's guide",
    )


def _no_links() -> list[Link]:
    return []


def _not_retrained() -> Retrained | None:
    return None


@dataclass
class GateContext:
    """Everything a gate may look at, of a release or of plain files alike.

    Data is loaded on demand and its digests are verified. A gate takes the names of columns from
    ``columns`` and never from the workload, which plain files do not have. What was not given raises
    ``InvalidInputError`` when it is asked for, in words a user can act on.

    Attributes:
        columns: names of label, features, protected attributes and so on.
        positive: the favourable value of the label as the file writes it. For a ``BINARY`` task the
            frames hold 0 and 1 and this value is for texts alone; for ``MULTICLASS`` it may name the
            favourable class, or be ``None``.
        task: what the model predicts.
        title: what a person calls the model or the data.
        evaluation: the current data, on which the candidate is judged.
        training: the reference data.
        current_path: file of the current data, Parquet or CSV, labels as the file writes them; for
            engines that read it themselves.
        reference_path: the same of the reference data.
        scores: predictions of the candidate and, if ``has_champion``, of the champion.
        scored: whether there are any. A release that reaches a gate after scoring has them.
        has_reference: whether there is reference data.
        lineage: links to what the candidate was made of, as they stood when it was frozen.
        retrained: the candidate trained again; ``None`` where no training command is given.
        declared: what the owner says about origin, cost, operation and training.
        artifact: a folder with the candidate's files: read them, never load or execute them.
        advisories: known vulnerabilities of packages, by their names.
        scan: runs the static scanner of model files in the sandbox and returns its report.
        business_context: what the submitter wrote about the release.
        protected_class_data: whether the owner says that protected attributes are in the data.
        privacy: what the owner declares about tokens, consent and residency.
        now_us: the time against which freshness is judged, in microseconds since 1970 UTC. In a release it is
            the time of submission, so that judging again from evidence gives the same answer.
        workload: the workload, in a release; ``None`` on plain files.
        manifest: what is released, in a release; ``None`` on plain files.
    """

    columns: Columns
    evaluation: Callable[[], pd.DataFrame]
    training: Callable[[], pd.DataFrame]
    current_path: Callable[[], Path]
    reference_path: Callable[[], Path]
    scores: Callable[[], Scores]
    artifact: Callable[[], Path]
    suite: Callable[[], dict[str, Any]]
    documentation: Callable[[], str]
    business_context: str
    scan: Callable[[], dict[str, Any]]
    store: Callable[[bytes], str]
    candidate: Callable[[], ArtifactRef]
    now_us: Callable[[], int]
    advisories: Callable[[Sequence[str]], AdvisoryBook] = no_advisories

    lineage: Callable[[], list[Link]] = _no_links
    retrained: Callable[[], Retrained | None] = _not_retrained
    has_champion: bool = False
    scored: bool = True
    has_reference: bool = True
    declared: Declarations = field(default_factory=Declarations)
    positive: Label | None = 1
    task: Task = Task.BINARY
    title: str = ""
    protected_class_data: bool = False
    privacy: PrivacySpec = field(default_factory=PrivacySpec)
    workload: Workload | None = None
    manifest: Manifest | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The column with the true outcome.

        Raises:
            InvalidInputError: none was named.
        """
        if self.columns.label is None:
            raise InvalidInputError(
                "no column is named as the true outcome",
                where="columns.label",
                fix="name it in columns.label",
            )
        return self.columns.label

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
    names = [words.get(label_text(value), label_text(value)) for value in values]
    return [names[code] if code >= 0 else MISSING_GROUP for code in codes]
