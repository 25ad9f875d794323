"""What the models say about the rows they are judged on, read once and checked, for several gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airlock.core.columns import Task, label_text
from airlock.core.evidence import GateResult
from airlock.gates.base import MISSING_GROUP, GateContext, cannot_judge

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

MOST_CLASSES = 100
"""Classes that are compared one by one; a label with more is a quantity or an identifier."""

CLASS_SCORE = "{model}_score:{name}"
"""Column with a model's probability of one class of several."""


@dataclass(frozen=True)
class Predictions:
    """Outcomes, decisions and scores of one model, row for row.

    Attributes:
        model: ``candidate`` or ``champion``.
        task: what it predicts.
        outcome: 0 and 1, the number of a class, or a quantity; ``None`` where no label is known.
        decision: the same of the model.
        score: probability of 1; a column per class for several classes; ``None`` where none is given.
        classes: names of the classes, in the order of their numbers.
    """

    model: str
    task: Task
    outcome: Floats | None
    decision: Floats
    score: Floats | None
    classes: list[str]

    def where(self, rows: npt.NDArray[Any]) -> Predictions:
        """The same for some of the rows."""
        return Predictions(
            self.model,
            self.task,
            None if self.outcome is None else self.outcome[rows],
            self.decision[rows],
            None if self.score is None else self.score[rows],
            self.classes,
        )


@dataclass(frozen=True)
class Groups:
    """The group of each row: ``names[codes[row]]``; every name has rows, and names are sorted."""

    names: list[str]
    codes: Integers

    def crossed(self, other: Groups) -> Groups:
        """Intersections with the groups of another attribute."""
        import numpy as np

        both, kinds = self.codes * len(other.names) + other.codes, len(self.names) * len(other.names)
        if kinds > len(both):  # no table of pairs that no row has
            used, codes = np.unique(both, return_inverse=True)
        else:
            used = np.flatnonzero(np.bincount(both, minlength=kinds))
            place = np.zeros(kinds, dtype="int64")
            place[used] = np.arange(len(used))
            codes = place[both]
        pairs = [divmod(int(code), len(other.names)) for code in used]
        return Groups([f"{self.names[a]} & {other.names[b]}" for a, b in pairs], codes)


def groups_of(column: pd.Series[Any], words: dict[str, str]) -> Groups:
    """Groups by the values of a column; rows with no value are a group of their own.

    ``words`` maps the text of a value to its name: the numbers 1 and 1.0 and the text ``1`` are all
    ``"1"``. Law: the names are those of ``group_names``.
    """
    import numpy as np

    codes, values = column.factorize()
    named = [words.get(label_text(value), label_text(value)) for value in values]
    named += [MISSING_GROUP if MISSING_GROUP not in named else f"{MISSING_GROUP} (no value)"]
    codes = np.where(codes < 0, len(values), codes)
    names = sorted({named[code] for code in np.unique(codes)})
    position = {name: index for index, name in enumerate(names)}
    place = np.array([position.get(name, 0) for name in named], dtype="int64")
    return Groups(names, place[codes])


def read_predictions(
    context: GateContext, *, minimum_rows: int, outcomes: bool = True
) -> list[Predictions] | GateResult:
    """What candidate and champion say, or the ``ERROR`` because it cannot be judged.

    ``outcomes`` says whether the true outcome is needed; if not, it is no error that no label is named.
    """
    frame, scores = context.evaluation(), context.scores().frame
    if len(scores) != len(frame):
        return cannot_judge(
            "scores.rows",
            f"{len(scores)} rows were scored, but the evaluation batch has {len(frame)}",
            fix="score the release again: scores and evaluation batch must be row for row the same",
        )
    if len(frame) < max(1, minimum_rows):
        return cannot_judge(
            "rows.too_few",
            f"the evaluation batch has {len(frame)} rows, but {max(1, minimum_rows)} are needed",
            fix="choose an evaluation batch with more rows",
        )
    name = context.columns.label
    known = name is not None and name in frame
    if not known and (outcomes or name is not None):
        return cannot_judge(
            "target.unusable",
            "no column is named as the true outcome"
            if name is None
            else f"the evaluation batch has no column {name!r}, the outcome",
            fix="name the column with the true outcome, and evaluate on rows that have it",
            where=name or "",
        )
    return _read(context, frame[context.label] if known else None)


def _read(context: GateContext, label: pd.Series[Any] | None) -> list[Predictions] | GateResult:
    scores = context.scores().frame
    models = ["candidate", "champion"] if context.has_champion else ["candidate"]
    if missing := [model for model in models if f"{model}_prediction" not in scores]:
        return _unusable(missing[0], f"the scores hold no column {missing[0]}_prediction", context.task)
    columns = [*([] if label is None else [label]), *(scores[f"{model}_prediction"] for model in models)]
    classes = _classes(columns) if context.task is Task.MULTICLASS else []
    if len(classes) > MOST_CLASSES:
        return cannot_judge(
            "classes.too_many",
            f"there are {len(classes)} classes, and at most {MOST_CLASSES} are judged",
            fix="put classes together, or name the task if the label is a quantity",
        )
    outcome = None
    if label is not None:
        outcome, bad = _numbers(label, context.task, classes)
        if bad:
            return cannot_judge(
                "target.unusable",
                f"{bad} of {len(label)} rows have no outcome of {_WANTED[context.task]} in {label.name!r}",
                fix=f"evaluate on rows whose outcome is known, coded as {_WANTED[context.task]}",
                where=str(label.name),
            )
    result = []
    for model in models:
        column = scores[f"{model}_prediction"]
        decision, bad = _numbers(column, context.task, classes)
        if bad:
            text = f"the {model} gave {bad} of {len(column)} rows no decision of {_WANTED[context.task]}"
            return _unusable(model, text, context.task)
        score, bad = _scores(scores, model, context.task, classes)
        if bad:
            text = f"the {model} gave {bad} of {len(column)} rows no score between 0 and 1"
            return _unusable(model, text, context.task)
        result.append(Predictions(model, context.task, outcome, decision, score, classes))
    return result


_WANTED = {Task.BINARY: "0 or 1", Task.MULTICLASS: "a class", Task.REGRESSION: "a finite number"}


def _unusable(model: str, message: str, task: Task) -> GateResult:
    rule = {
        Task.BINARY: "a probability between 0 and 1 and a decision of 0 or 1",
        Task.MULTICLASS: "a class, and a probability between 0 and 1 for each class",
        Task.REGRESSION: "a finite number",
    }[task]
    return cannot_judge("scores.unusable", message, fix=f"make the model give every row {rule}", where=model)


def _classes(columns: list[pd.Series[Any]]) -> list[str]:
    return sorted({label_text(value) for column in columns for value in column.dropna().unique()})


def _numbers(column: pd.Series[Any], task: Task, classes: list[str]) -> tuple[Floats, int]:
    """A column as numbers, and how many of its rows are none."""
    import numpy as np
    import pandas as pd

    if task is Task.MULTICLASS:
        codes, values = column.factorize()
        position = {name: index for index, name in enumerate(classes)}
        place = np.array([*(position[label_text(value)] for value in values), -1], dtype="float64")
        return place[codes], int((codes < 0).sum())
    numbers = pd.to_numeric(column, errors="coerce").to_numpy("float64", na_value=np.nan)
    if task is Task.BINARY:
        return numbers, int((~np.isin(numbers, [0, 1])).sum())
    return numbers, int((~np.isfinite(numbers)).sum())


def _scores(frame: pd.DataFrame, model: str, task: Task, classes: list[str]) -> tuple[Floats | None, int]:
    """Probabilities, and how many rows hold something else; ``None`` when none are given."""
    import numpy as np
    import pandas as pd

    names = [f"{model}_score"]
    if task is Task.MULTICLASS:
        names = [CLASS_SCORE.format(model=model, name=name) for name in classes]
    if task is Task.REGRESSION or not all(name in frame for name in names):
        return None, 0
    columns = [
        pd.to_numeric(frame[name], errors="coerce").to_numpy("float64", na_value=np.nan) for name in names
    ]
    table = np.column_stack(columns)
    bad = int((~((table >= 0) & (table <= 1)).all(axis=1)).sum())  # NaN is neither
    return (table if task is Task.MULTICLASS else table[:, 0]), bad
