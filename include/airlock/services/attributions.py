"""Attributions that somebody computed, read from a file for one gate alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from airlock.adapters.data_files import DataFile
from airlock.core.base import Value
from airlock.core.errors import InvalidInputError
from airlock.core.workload import ColumnName
from airlock.gates.base import Scores

if TYPE_CHECKING:
    import pandas as pd

_BASE, _MARGIN, _ROW = "_base", "_margin", "row"


class Attributions(Value):
    """SHAP values in a file: a column for each feature, row for row with the current data.

    Attributes:
        file: Parquet or CSV; a column ``row`` says which rows are explained when these are not all.
        base: column with the expected output, or the number itself.
        margin: column with the model's output that values and base add up to; computed from the score
            where the file has none.
        space: what they add up to.
        champion: the same kind of file for the model to compare with.
    """

    file: str
    base: ColumnName | float = _BASE
    margin: ColumnName = _MARGIN
    space: Annotated[
        Literal["log-odds", "probability", "prediction"],
        Field(description="what values and base add up to"),
    ] = "log-odds"
    champion: str | None = None


def with_attributions(scores: Scores, wanted: Attributions, folder: Path) -> Scores:
    """Scores together with the attributions that explain them.

    Raises:
        InvalidInputError: a file cannot be read, or holds no base or no margin.
    """
    shap = _read(folder / wanted.file, wanted, scores.frame, "candidate")
    champion = None
    if wanted.champion is not None:
        champion = _read(folder / wanted.champion, wanted, scores.frame, "champion")
    told = {"explainer": "given", "space": wanted.space, "champion_space": wanted.space}
    return Scores(scores.frame, shap, champion, {**scores.details, "shap": told})


def _read(path: Path, wanted: Attributions, scores: pd.DataFrame, model: str) -> pd.DataFrame:
    import numpy as np

    frame = DataFile(path).frame()
    if _ROW in frame:
        frame = frame.set_index(_ROW)
    elif len(frame) != len(scores):
        raise InvalidInputError(
            f"the attributions have {len(frame)} rows, the data {len(scores)}",
            where=str(path),
            fix="give one row for each row of the data, or a column `row` that says which are explained",
        )
    frame.index.name = _ROW
    if isinstance(wanted.base, float):
        frame[_BASE] = wanted.base
    elif wanted.base in frame:
        frame = frame.rename(columns={wanted.base: _BASE})
    else:
        raise InvalidInputError(
            f"the attributions have no column {wanted.base!r}, the expected output",
            where=str(path),
            fix="name it under attributions.base, or write the number there",
        )
    if wanted.margin in frame:
        return frame.rename(columns={wanted.margin: _MARGIN})
    name = f"{model}_score"
    if name not in scores or not frame.index.isin(range(len(scores))).all():
        raise InvalidInputError(
            f"the attributions have no column {wanted.margin!r}, and there is no score to compute it from",
            where=str(path),
            fix="name the column with the model's output under attributions.margin, or columns.score",
        )
    score = scores[name].to_numpy("float64")[frame.index.to_numpy()]
    with np.errstate(divide="ignore", invalid="ignore"):
        frame[_MARGIN] = np.log(score / (1 - score)) if wanted.space == "log-odds" else score
    return frame
