"""What the owner of a workload declares about its origin, its cost and its operation.

The same sections stand in a workload file and in the configuration of one gate on plain files.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.experiments import Experiment

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Usd = Annotated[float, Field(ge=0)]


class FeatureView(Value):
    """A Feast feature view and the file that defines it."""

    name: Text
    definition: Annotated[Text, Field(description="file that defines it, inside the repository")]


class LineageSpec(Value):
    """Where data, features, code and environment come from. Paths lie inside ``repository``."""

    repository: Annotated[
        Text | None,
        Field(description="folder with the training code; of a workload, inside the data directory"),
    ] = None
    commit: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{40}$", description="git commit it was trained at, where the run does not say"
        ),
    ] = None
    dvc: Annotated[list[Text], Field(description=".dvc files and dvc.lock files")] = []
    lakefs: Annotated[list[Text], Field(description="lakefs://repository/commit/path")] = []
    feature_views: list[FeatureView] = []
    lock_file: Annotated[Text | None, Field(description="file that pins every library of the training")] = (
        None
    )


class Alternative(Value):
    """Another way to serve the same model."""

    name: Text
    usd_per_hour: Usd = 0.0
    usd_per_request: Usd = 0.0
    slowdown: Annotated[float, Field(gt=0, description="time of a request there over the time here")] = 1.0


class ServingSpec(Value):
    """What a request costs, and where requests are logged."""

    usd_per_hour: Annotated[Usd | None, Field(description="price of one instance")] = None
    usd_per_request: Annotated[
        Usd | None, Field(description="price of one call, such as of another service")
    ] = None
    parallel_requests: Annotated[
        float, Field(gt=0, description="requests one instance answers at a time")
    ] = 1.0
    utilisation: Annotated[
        float, Field(gt=0, le=1, description="share of the paid time in which it answers requests")
    ] = 1.0
    monthly_requests: Annotated[float | None, Field(gt=0)] = None
    monthly_budget_usd: Annotated[Usd | None, Field(description="what may be spent without asking")] = None
    alternatives: list[Alternative] = []
    latency_column: Annotated[str | None, Field(description="column with milliseconds of each request")] = (
        None
    )
    cost_column: Annotated[str | None, Field(description="column with the cost of each request, USD")] = None

    @property
    def priced(self) -> bool:
        """Whether anything says what a request costs."""
        return self.usd_per_hour is not None or self.usd_per_request is not None


Signal = Literal[
    "data",
    "prediction",
    "target",
    "concept",
    "performance",
    "fairness",
    "explanation",
    "business",
    "cost",
    "latency",
]


class MonitoringPlan(Value):
    """What is watched after the release, how often, and who is told."""

    signals: Annotated[list[Signal], Field(min_length=1)]
    every_hours: Annotated[float, Field(gt=0)]
    alerts: Annotated[Text, Field(description="where alerts go: channel, pager or address")]


class RollbackPlan(Value):
    """How the release is taken back."""

    fallback: Annotated[Text, Field(description="what answers meanwhile: a version, rules, or people")]
    minutes: Annotated[float, Field(gt=0, description="until the fallback answers every request")]
    rehearsed: Annotated[
        str | None, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="day on which it was last tried")
    ] = None


class ReadinessSpec(Value):
    """Plans for the time after the release, and the people who carry them out."""

    on_call: Annotated[Text | None, Field(description="who is called when it goes wrong")] = None
    monitoring: MonitoringPlan | None = None
    rollback: RollbackPlan | None = None


TRAINING_PLACES = ("data", "model", "metrics", "seed", "parameters")
"""What a training command may ask for in braces, such as ``{data}``."""

_PYTHON = ("python", "python3")
_PLACE = re.compile(r"\{([^{}]*)\}")


class TrainingSpec(Value):
    """How a version is trained again: a command that makes a model folder of a data file.

    The command runs in a sandbox: without network, without credentials, and without other programs, so it
    has to be Python. ``{data}`` is the Parquet file to train on, ``{model}`` the folder to write (as
    ``mlflow.sklearn.save_model`` does), ``{parameters}`` a JSON file with features, target, seed, threshold
    and the parameters that the run of the version logged, ``{metrics}`` a JSON file of numbers it may write.
    """

    seed: Annotated[int | None, Field(ge=0, description="seed of everything random in it")] = None
    command: Annotated[
        list[Text],
        Field(
            max_length=100,
            description="python, a script or -m with a module, and arguments; {data}, {model}, {metrics}, "
            "{seed} and {parameters} are filled in",
        ),
    ] = []
    code: Annotated[
        Text | None,
        Field(description="folder with the training code, beside this file; without it, lineage.repository"),
    ] = None
    tolerance: Annotated[
        float | None,
        Field(ge=0, description="largest difference of a score after training again; the policy's holds too"),
    ] = None
    seconds: Annotated[float | None, Field(gt=0, description="longest training; at most the policy's")] = None
    memory_mb: Annotated[int | None, Field(gt=0, description="most memory; at most the policy's")] = None

    @model_validator(mode="after")
    def _command_can_run(self) -> Self:
        if not self.command:
            return self
        program, *words = self.command
        if program not in _PYTHON or not words or (words[0] == "-m" and len(words) == 1):
            raise ValueError(
                "training.command begins with python and a script, or with python -m and a module"
            )
        script = words[0]
        if script != "-m" and (script.startswith(("/", "-", "~")) or ".." in script.split("/")):
            raise ValueError(f"training.command: the script {script!r} must lie inside the code folder")
        named = [name for word in words for name in _PLACE.findall(word)]
        if unknown := sorted(set(named) - set(TRAINING_PLACES)):
            near = ", ".join(f"{{{name}}}" for name in TRAINING_PLACES)
            raise ValueError(f"training.command: nothing is filled in for {{{unknown[0]}}}; there are {near}")
        if missing := [name for name in ("data", "model") if name not in named]:
            raise ValueError(f"training.command does not say where {{{missing[0]}}} goes")
        return self


class Declarations(Value):
    """All sections together."""

    lineage: LineageSpec = LineageSpec()
    serving: ServingSpec = ServingSpec()
    readiness: ReadinessSpec = ReadinessSpec()
    training: TrainingSpec = TrainingSpec()
    experiments: list[Experiment] = []

    @classmethod
    def of(cls, source: Any) -> Declarations:
        """The sections of a workload or a configuration file."""
        return cls(**{name: getattr(source, name) for name in cls.model_fields})
