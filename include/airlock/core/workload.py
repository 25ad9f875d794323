"""A workload: what is governed. One YAML file in ``config/workloads/``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.declarations import LineageSpec, ReadinessSpec, ServingSpec, TrainingSpec
from airlock.core.experiments import Experiment
from airlock.core.production import MonitoringSpec

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]


class ModelSpec(Value):
    """The model: where it is registered and what it predicts."""

    registered_model: Annotated[str, Field(min_length=1, description="name in the MLflow registry")]
    task: Annotated[
        Literal["classification", "multiclass", "regression"],
        Field(description="classification of two outcomes, of several classes, or prediction of a number"),
    ] = "classification"
    positive: Annotated[
        str | int | None,
        Field(
            description="favourable outcome as the data writes it; of two outcomes it is 1 when left out, of "
            "several classes none"
        ),
    ] = None
    target: Annotated[ColumnName, Field(description="column with the true outcome")]
    features: Annotated[
        list[ColumnName], Field(min_length=1, description="columns the model may use, in order")
    ]
    reasons: Annotated[
        dict[ColumnName, Annotated[str, Field(min_length=1, max_length=200)]],
        Field(
            description="feature → reason a declined person is told; several features may share one. A "
            "feature without an entry is named by the model card"
        ),
    ] = {}

    @model_validator(mode="after")
    def _task_and_reasons_fit(self) -> Self:
        if self.task == "regression" and self.positive is not None:
            raise ValueError("model.positive names an outcome, and a regression has none")
        if unknown := sorted(set(self.reasons) - set(self.features)):
            raise ValueError(f"model.reasons names {', '.join(unknown)}, which is no feature")
        return self


class DataSpec(Value):
    """Where the data is. Paths are relative to the data directory and may not leave it."""

    training: Annotated[str, Field(description="Parquet file the champion was trained on")]
    evaluation: Annotated[str, Field(description="folder with one Parquet file for each evaluation batch")]
    default_batch: Annotated[Name, Field(description="batch that is used when the release names none")]
    expectations: Annotated[Name, Field(description="suite in config/expectations/")]
    sensitive: Annotated[
        dict[ColumnName, dict[str, str]],
        Field(description="protected attribute → its values in words; judged for bias, never a feature"),
    ] = {}
    identifiers: Annotated[
        list[ColumnName], Field(description="columns that identify a person; must never be features")
    ] = []

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> Self:
        for path in (self.training, self.evaluation):
            if path.startswith(("/", "~")) or ".." in path.split("/"):
                raise ValueError(f"path {path!r} must be relative to the data directory and stay inside it")
        return self


class ConsentSpec(Value):
    """Where each row says whether the person agreed."""

    column: Annotated[ColumnName, Field(description="column with the terms the person accepted")]
    accepted: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, description="values that cover this use; any other row may not be used"),
    ]


class ResidencySpec(Value):
    """Where the data is kept, and where the people in it live."""

    region: Annotated[Name, Field(description="region in which the data is stored and processed")]
    column: Annotated[ColumnName | None, Field(description="column with the region of each row")] = None


class PrivacySpec(Value):
    """What the owner declares about personal data; the privacy gate holds the data to it."""

    tokens: Annotated[
        list[ColumnName], Field(description="columns that hold tokens, hashes or redactions, nothing else")
    ] = []
    consent: ConsentSpec | None = None
    residency: ResidencySpec | None = None


class RiskSpec(Value):
    """Objective facts about use, from which the risk tier is computed (requirement T-4).

    The tier itself cannot be written here.
    """

    automated_decision: Annotated[bool, Field(description="decides about customers with no human")]
    protected_class_data: Annotated[bool, Field(description="protected attributes are in the data")]
    regulated: Annotated[bool, Field(description="an external regulation applies (ECOA, GDPR, AI Act …)")]
    human_review: Annotated[bool, Field(description="a person reviews each outcome before it has effect")]
    exposure: Annotated[
        Literal["internal", "partner", "customer"], Field(description="who meets the outcome")
    ]
    loss_per_error_usd: Annotated[float, Field(ge=0, description="money lost by one wrong decision")]
    rollback: Annotated[Literal["easy", "hard"], Field(description="how easily a release is taken back")]
    traffic_share: Annotated[
        float, Field(ge=0, le=1, description="share of all cases that meet the outcome; 1 is everybody")
    ] = 1.0


class FallbackSpec(Value):
    """What answers when no version that was in production may go back there (requirement R-5)."""

    version: Annotated[
        str | None, Field(pattern=r"^[1-9][0-9]{0,8}$", description="version in the MLflow registry")
    ] = None
    constant: Annotated[
        bool | int | float | str | None,
        Field(description="the answer to every request; 0 declines, or a text such as `ask a person`"),
    ] = None
    reason: Annotated[str, Field(min_length=1, max_length=500, description="why this is the safe side")]

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.version is None) == (self.constant is None):
            raise ValueError("a fallback names either a version or a constant")
        return self


def _absent(value: object) -> bool:
    """Whether an optional section is not there; then it has no place in the digest either."""
    return value is None or value == []


class Workload(Value):
    """One governed model, application or data pipeline (requirement T-1)."""

    name: Name
    kind: Literal["model"] = "model"
    title: Annotated[str, Field(min_length=1, max_length=120)]
    description: Annotated[str, Field(min_length=1)]
    owner: Annotated[str, Field(min_length=1, description="team that answers for it")]
    policy: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$", description="policy version it is pinned to")]
    model: ModelSpec
    data: DataSpec
    risk: RiskSpec
    privacy: Annotated[PrivacySpec, Field(description="tokens, consent and residency")] = PrivacySpec()
    documentation: Annotated[str, Field(description="model card, Markdown, beside the workload file")]
    regimes: Annotated[
        list[Name], Field(description="retention regimes of config/retention.yaml it is under")
    ] = []
    experiments: Annotated[
        list[Experiment], Field(description="A/B plans; checked against those of all workloads")
    ] = []
    lineage: Annotated[LineageSpec, Field(description="where data, code and environment come from")] = (
        LineageSpec()
    )
    serving: Annotated[ServingSpec, Field(description="what a request costs")] = ServingSpec()
    readiness: Annotated[ReadinessSpec, Field(description="plans for the time after the release")] = (
        ReadinessSpec()
    )
    training: Annotated[TrainingSpec, Field(description="how a version is trained again")] = TrainingSpec()
    fallback: Annotated[
        FallbackSpec | None,
        Field(exclude_if=_absent, description="what answers when no version may go back into production"),
    ] = None
    downstream: Annotated[
        list[Name],
        Field(exclude_if=_absent, description="teams that are told which decisions a new champion changes"),
    ] = []
    monitoring: Annotated[
        MonitoringSpec | None,
        Field(exclude_if=_absent, description="how production is watched"),
    ] = None

    value_per_day_usd: Annotated[
        float | None,
        Field(
            gt=0,
            exclude_if=_absent,
            description="what a day without a new version costs; the dashboard says what waiting costs",
        ),
    ] = None

    @property
    def plans(self) -> list[Experiment]:
        """Its A/B plans under its own name."""
        return [plan.model_copy(update={"workload": self.name}) for plan in self.experiments]

    @model_validator(mode="after")
    def _regimes_stand_once(self) -> Self:
        if len(set(self.regimes)) != len(self.regimes):
            raise ValueError("regimes names a regime twice")
        return self

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> Self:
        features = set(self.model.features)
        if len(features) != len(self.model.features):
            raise ValueError("model.features names a column twice")
        if self.model.target in features:
            raise ValueError(f"model.target {self.model.target!r} is also a feature: the answer would leak")
        for column in (*self.data.sensitive, *self.data.identifiers):
            if column in features:
                raise ValueError(
                    f"model.features names {column!r}, which is sensitive or identifying "
                    "and must not be a feature"
                )
            if column == self.model.target:
                raise ValueError(f"{column!r} is sensitive or identifying and must not be the target")
        return self

    @property
    def dag_id(self) -> str:
        """Id of the release DAG generated for this workload."""
        return f"release__{self.name}"
