"""What one gate needs to judge plain files: a small configuration, and a context made of it.

No workload, no registry, no audit store: the result is for the person who ran it and is no evidence.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, ValidationError, create_model, field_validator

import airlock
from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.data_files import DataFile
from airlock.adapters.settings import load_settings
from airlock.adapters.yaml_files import load_model
from airlock.core.base import Value
from airlock.core.columns import Columns, Label, Task, label_text
from airlock.core.declarations import LineageSpec, ReadinessSpec, ServingSpec, TrainingSpec
from airlock.core.errors import AirlockError, ConfigurationError, InvalidInputError
from airlock.core.experiments import Experiment
from airlock.core.policy import Policy
from airlock.core.workload import ColumnName, PrivacySpec
from airlock.gates import load_gate
from airlock.gates._predictions import CLASS_SCORE
from airlock.gates.base import Scores
from airlock.services.attributions import Attributions

if TYPE_CHECKING:
    import pandas as pd

_CLASSES = 50
"""A label with more different whole numbers than this is a quantity: the task is regression."""

_YES = {"1", "true", "yes", "on", "y"}
"""What YAML may have read as ``true`` although the file says it in another word."""


class ChampionColumns(Value):
    """Columns with what the model in production says about the same rows."""

    prediction: ColumnName | None = None
    score: ColumnName | None = None
    scores: dict[str, ColumnName] = {}

    @field_validator("scores", mode="before")
    @classmethod
    def _classes_are_texts(cls, value: Any) -> Any:
        return (
            {label_text(name): column for name, column in value.items()} if isinstance(value, dict) else value
        )


class FileConfig(Value):
    """The configuration file of ``airlock gate run``.

    Attributes:
        columns: which column is what.
        positive: the favourable value of label and prediction, such as ``1`` or ``approved``.
        task: what is predicted; seen from the label where it is not given.
        threshold: a score from here on is a positive prediction, where no prediction column is named.
        champion: columns of the model to compare with.
        limits: the gate's own limits; what is left out comes from the newest policy, if one is found.
        artifact: folder or file of the model, for gates that look at it or run it.
        attributions: file with SHAP values, for the gate that judges explanations.
        card: model card, Markdown.
        suite: expectation suite, YAML.
        advisories: copy of the OSV database, for the gate that audits packages.
        context: why this release is wanted.
        lineage, serving, readiness, training, experiments: the same sections as in a workload file.
        protected_class_data: whether protected attributes are in the data, named or not.
        privacy: which columns are tokens, which say who agreed, and where the data lies.
    """

    columns: Columns = Columns()
    positive: Label | None = None
    task: Task | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    champion: ChampionColumns | None = None
    limits: dict[str, Any] = {}
    artifact: str | None = None
    attributions: Attributions | None = None
    advisories: str | None = None
    card: str | None = None
    suite: str | None = None
    context: str = ""
    protected_class_data: bool = False
    privacy: PrivacySpec = PrivacySpec()
    lineage: LineageSpec = LineageSpec()
    serving: ServingSpec = ServingSpec()
    readiness: ReadinessSpec = ReadinessSpec()
    training: TrainingSpec = TrainingSpec()
    experiments: list[Experiment] = []


def read_config(path: Path, gate: str) -> FileConfig:
    """Read the configuration of a gate; limits are checked against the gate's own fields.

    Raises:
        NotFoundError: there is no such file.
        ConfigurationError: naming file, line, field, and what was probably meant.
    """
    fields: dict[str, Any] = {}
    for name, info in load_gate(gate).Config.model_fields.items():
        optional = copy.copy(info)
        optional.default = None
        fields[name] = (info.annotation, optional)
    limits = create_model("Limits", __base__=Value, **fields)
    typed = create_model("FileConfig", __base__=FileConfig, limits=(limits, limits()))
    config = load_model(path, typed)
    # `typed` has put a Value there; the base class does not know.
    given = cast("Value", config.limits).model_dump(exclude_unset=True)
    return FileConfig.model_validate({**config.model_dump(exclude={"limits"}), "limits": given})


def newest_policy() -> Policy | None:
    """The newest policy of this deployment, else of this installation; ``None`` where there is none."""
    shipped = Path(airlock.__file__).resolve().parents[2] / "config"
    for config in (ConfigFolder(load_settings().config_dir), ConfigFolder(shipped)):
        if published := config.policy_versions():
            return config.policy(published[-1])
    return None


def limits_for(gate: str, config: FileConfig, policy: Policy | None, path: Path) -> tuple[Any, list[str]]:
    """The gate's complete configuration, and the names of the limits that came from the policy.

    Raises:
        ConfigurationError: a limit is missing in both, or the limits contradict each other.
    """
    model = load_gate(gate).Config
    shipped = {} if policy is None else policy.gates.get(gate, {})
    taken = [name for name in model.model_fields if name in shipped and name not in config.limits]
    try:
        return model.model_validate({**{name: shipped[name] for name in taken}, **config.limits}), taken
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, ("limits", *problem["loc"])))
        missing = problem["type"] == "missing"
        raise ConfigurationError(
            f"{place}: {'is needed' if missing else str(problem['msg']).removeprefix('Value error, ')}",
            where=str(path),
            fix=f"see `airlock gate describe {gate}`; its limits are {', '.join(model.model_fields)}",
        ) from error


class PlainData:
    """Current data, reference data and predictions from files, with labels in one form.

    For a binary task the frames hold 0 and 1: 1 where the file says what ``positive`` says.
    """

    def __init__(
        self, config: FileConfig, *, current: Path | None, reference: Path | None, predictions: Path | None
    ) -> None:
        self._config = config
        self._current = None if current is None else DataFile(current)
        self._reference = None if reference is None else DataFile(reference)
        self._predictions = None if predictions is None else DataFile(predictions)
        self._check_roles()

    def _check_roles(self) -> None:
        there = {name for file in self._files() for name in file.columns()}
        wanted: list[str | None] = []
        for one in (self._config.columns, self._config.champion):
            if one is not None:
                wanted += [one.prediction, one.score, *one.scores.values()]
        for name in wanted:
            if name is not None and name not in there:
                raise _no_column(name, there)

    def _files(self) -> Iterator[DataFile]:
        yield from (file for file in (self._current, self._predictions) if file is not None)

    @cached_property
    def columns(self) -> Columns:
        """The columns; where no features are named, every column without a role is one."""
        columns, source = self._config.columns, self._reference or self._current
        if columns.features or source is None:
            return columns
        champion = self._config.champion
        used: set[str | None] = {*columns.all}
        if champion:
            used |= {champion.prediction, champion.score, *champion.scores.values()}
        features = [name for name in source.columns() if name not in used]
        return columns.model_copy(update={"features": features})

    def current_path(self) -> Path:
        """File of the current data; the predictions, where they hold everything."""
        file = self._current or self._predictions
        if file is None:
            raise _not_given("current data", "--current")
        return file.path

    def reference_path(self) -> Path:
        """File of the reference data."""
        if self._reference is None:
            raise _not_given("reference data", "--reference")
        return self._reference.path

    @cached_property
    def current(self) -> pd.DataFrame:
        """Current data and predictions, row for row."""
        frames = [file.frame() for file in self._files()]
        if not frames:
            raise _not_given("current data", "--current")
        frame = frames[0] if len(frames) == 1 else _side_by_side(*frames)
        return self._encoded(frame)

    @cached_property
    def reference(self) -> pd.DataFrame:
        """Reference data."""
        if self._reference is None:
            raise _not_given("reference data", "--reference")
        return self._encoded(self._reference.frame())

    @property
    def has_reference(self) -> bool:
        """Whether reference data was given."""
        return self._reference is not None

    @property
    def scored(self) -> bool:
        """Whether a column says what the model decided."""
        columns = self._config.columns
        return bool(columns.prediction or columns.score or columns.scores)

    @property
    def has_champion(self) -> bool:
        """Whether a column says what the champion decided."""
        champion = self._config.champion
        return champion is not None and bool(champion.prediction or champion.score or champion.scores)

    @cached_property
    def scores(self) -> Scores:
        """Predictions as every gate reads them."""
        import pandas as pd

        if not self.scored:
            raise InvalidInputError(
                "no column holds predictions or scores",
                where="columns",
                fix="name columns.prediction or columns.score; give the file with --predictions or --current",
            )
        frame, columns = self.current, {}
        pairs: list[tuple[str, Any]] = [("candidate", self._config.columns)]
        if self.has_champion:
            pairs.append(("champion", self._config.champion))
        for role, names in pairs:
            if names.score is not None:
                columns[f"{role}_score"] = frame[names.score]
            columns |= self._class_scores(role, names)
            if names.prediction is not None:
                columns[f"{role}_prediction"] = frame[names.prediction]
            elif self.task is Task.BINARY:
                decided = (frame[names.score] >= self._config.threshold).astype("float64")
                columns[f"{role}_prediction"] = decided.where(frame[names.score].notna())
        details = {"models": {"candidate": {"threshold": self._config.threshold}}, "rows": len(frame)}
        return Scores(pd.DataFrame(columns), None, None, details)

    def _class_scores(self, role: str, names: Columns | ChampionColumns) -> dict[str, Any]:
        """Probabilities of several classes as gates read them; the likeliest class where none is decided.

        Raises:
            InvalidInputError: a class that occurs has no column, or the task has no several classes.
        """
        import numpy as np

        if not names.scores:
            return {}
        if self.task is not Task.MULTICLASS:
            raise InvalidInputError(
                f"columns.scores names probabilities of classes, but the task is {self.task}",
                where="columns.scores",
                fix="name one column in columns.score, or say `task: multiclass`",
            )
        occur = {label_text(value) for value in self._labels}
        if missing := sorted(occur - set(names.scores)):
            raise InvalidInputError(
                f"class {missing[0]!r} occurs in the data, and no column holds its probability",
                where="columns.scores",
                fix=f"name a column for each class: {', '.join(sorted(occur)[:20])}",
            )
        frame = self.current
        found = {
            CLASS_SCORE.format(model=role, name=name): frame[column] for name, column in names.scores.items()
        }
        if self._config.positive is not None and label_text(self._config.positive) in names.scores:
            found[f"{role}_score"] = frame[names.scores[label_text(self._config.positive)]]
        if names.prediction is None:
            table = frame[list(names.scores.values())].to_numpy("float64")
            likeliest = np.array([*names.scores], dtype=object)[np.nan_to_num(table, nan=-1.0).argmax(axis=1)]
            likeliest[np.isnan(table).any(axis=1)] = None  # what has no probabilities has no decision
            found[f"{role}_prediction"] = likeliest
        return found

    @cached_property
    def task(self) -> Task:
        """What is predicted: as it was said, else as the label looks."""
        if self._config.task is not None:
            return self._config.task
        if self._config.columns.scores:
            return Task.MULTICLASS
        texts = {label_text(value) for value in self._labels}
        if self._config.positive is not None:
            return Task.BINARY if len(texts) <= 2 else Task.MULTICLASS  # noqa: PLR2004  # binary means two
        if texts <= {"0", "1"}:
            return Task.BINARY
        if not all(isinstance(value, int | float | Decimal) for value in self._labels):
            return Task.MULTICLASS
        whole = all(value == value // 1 for value in self._labels)
        return Task.MULTICLASS if whole and len(texts) <= _CLASSES else Task.REGRESSION

    @cached_property
    def _labels(self) -> list[Any]:
        columns = self._config.columns
        wanted = {name for name in (columns.label, columns.prediction) if name is not None}
        return [
            value
            for file in self._files()
            for name in file.columns()
            if name in wanted
            for value in file.distinct(name, 1000)
        ]

    @cached_property
    def positive(self) -> Label | None:
        """The favourable value as the file writes it."""
        given = self._config.positive
        if given is None:
            return 1 if self.task is Task.BINARY else None
        texts = {label_text(value) for value in self._labels}
        if not texts or label_text(given) in texts:
            return given
        # YAML reads `yes` and `on` as true.
        if given is True and len(meant := [text for text in texts if text.lower() in _YES]) == 1:
            return meant[0]
        near = difflib.get_close_matches(str(given), sorted(texts), n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidInputError(
            f"no row has the positive value {given!r}",
            where="positive",
            fix=f"{guess}values there are: {', '.join(sorted(texts)[:10])}",
        )

    def _encoded(self, frame: pd.DataFrame) -> pd.DataFrame:
        if self.task is not Task.BINARY:
            return frame
        positive, columns, champion = self.positive, self._config.columns, self._config.champion
        names = [columns.label, columns.prediction, champion.prediction if champion else None]
        there = [name for name in names if name is not None and name in frame]
        changed = {name: coded(frame[name], label_text(positive)) for name in there}
        return frame.assign(**changed) if changed else frame


def coded(column: pd.Series[Any], positive: str) -> pd.Series[Any]:
    """1 where the column says ``positive``, 0 elsewhere, NaN where it says nothing."""
    import numpy as np
    import pandas as pd

    codes, values = column.factorize()
    texts = [label_text(value) for value in values]
    if positive not in texts and set(texts) <= {"0", "1"}:
        positive = "1"  # a model that was trained on 0 and 1 answers so, whatever the labels are called
    coded = np.array([*(float(text == positive) for text in texts), np.nan])[codes]  # -1, missing, is last
    result = pd.Series(coded, index=column.index)
    return result if result.isna().any() else result.astype("int64")


def _side_by_side(current: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    if len(current) != len(predictions):
        raise InvalidInputError(
            f"the predictions have {len(predictions)} rows, the current data {len(current)}",
            where="--predictions",
            fix="give one prediction for each row, in the same order",
        )
    for name in current.columns.intersection(predictions.columns):
        left, right = current[name].reset_index(drop=True), predictions[name].reset_index(drop=True)
        if not ((left == right) | (left.isna() & right.isna())).all():
            raise InvalidInputError(
                f"column {name!r} is not the same in the current data and in the predictions",
                where="--predictions",
                fix="bring both files into the same order, or leave the column out of one of them",
            )
    extra = predictions[[name for name in predictions.columns if name not in current]]
    return current.reset_index(drop=True).join(extra.reset_index(drop=True))


def _no_column(name: str, there: set[str]) -> AirlockError:
    near = difflib.get_close_matches(name, sorted(there), n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return InvalidInputError(
        f"no file has a column {name!r}",
        where="columns",
        fix=f"{guess}columns there are: {', '.join(sorted(there)[:20]) or 'none, no file was given'}",
    )


def _not_given(what: str, option: str) -> InvalidInputError:
    return InvalidInputError(f"this gate needs {what}", where=option, fix=f"give the file with {option}")
