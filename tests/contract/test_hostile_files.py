"""Every gate on hostile files: a right answer or an ERROR in words, never a crash or a pass of nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from airlock.core.evidence import Verdict
from airlock.gates import gate_names
from airlock.services.run_gate import GateRun, run_gate
from tests.support.files import COLUMNS, applications, saved

pytestmark = pytest.mark.slow

ON_DATA = ["bias", "cost", "data_quality", "drift", "explainability", "leakage", "performance", "privacy"]
"""Gates that look at rows; the others look at declarations, texts and model files."""

SUITE = {
    "name": "applications",
    "version": "1.0.0",
    "description": "Incomes are plausible.",
    "expectations": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "income", "min_value": -1000, "max_value": 1000},
            "why": "an income in thousands",
        }
    ],
}


@dataclass(frozen=True)
class Hostile:
    """A file that something is wrong with.

    ``broken``: gates that cannot say anything good about it: none of them may pass. Others may give a right
    answer, whatever it is.
    """

    spoil: Callable[[pd.DataFrame], pd.DataFrame]
    broken: tuple[str, ...] = ()


def gap(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    changed = frame.copy()
    changed[column] = changed[column].astype("object" if isinstance(value, str) else "float64")
    changed.loc[3, column] = value
    return changed


JUDGING = ("bias", "explainability", "performance")

ROWS = tuple(gate for gate in ON_DATA if gate != "cost")
"""Gates of which a single row tells nothing."""


def without(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """One value of the column is missing."""
    return lambda frame: frame.assign(**{column: frame[column].where(frame.index != 3)})


def many(frame: pd.DataFrame) -> pd.DataFrame:
    rows = pd.concat([frame] * 250, ignore_index=True)
    return rows.assign(income=[f"c{number}" for number in range(len(rows))])


def zoned(frame: pd.DataFrame) -> pd.DataFrame:
    hours = pd.date_range("2026-01-01", periods=len(frame), freq="h", tz="Asia/Kolkata")
    return frame.assign(income=hours)


FILES: dict[str, Hostile] = {
    "no rows": Hostile(lambda frame: frame.head(0), (*ON_DATA,)),
    "one row": Hostile(lambda frame: frame.head(1), ROWS),
    "NaN scores": Hostile(lambda frame: gap(frame, "probability", np.nan), JUDGING),
    "infinite scores": Hostile(lambda frame: gap(frame, "probability", np.inf), JUDGING),
    "minus infinite scores": Hostile(lambda frame: gap(frame, "probability", -np.inf), JUDGING),
    "NaN decisions": Hostile(without("decision"), JUDGING),
    "NaN outcomes": Hostile(without("outcome"), ("performance", "data_quality")),
    "NaN everywhere": Hostile(
        lambda frame: frame.assign(**dict.fromkeys(frame.columns, np.nan)), ROWS
    ),
    "infinite features": Hostile(lambda frame: gap(frame, "income", np.inf), ("data_quality",)),
    "constant columns": Hostile(
        lambda frame: frame.assign(income=1.0, debt=2.0, probability=0.7, decision="approved")
    ),
    "one group": Hostile(lambda frame: frame.assign(sex="female"), ("bias",)),
    "one class": Hostile(lambda frame: frame.assign(outcome="approved", decision="approved")),
    "a group for each row": Hostile(
        lambda frame: frame.assign(sex=[f"g{n}" for n in range(len(frame))]), ("bias",)
    ),
    "100,000 categories": Hostile(many, ("data_quality",)),
    "negative zero": Hostile(lambda frame: frame.assign(debt=-0.0)),
    "dates with zones": Hostile(zoned),
    "columns in another order": Hostile(lambda frame: frame[frame.columns[::-1]]),
    "numbers as texts": Hostile(lambda frame: frame.assign(income=frame["income"].astype(str))),
    "texts among numbers": Hostile(
        lambda frame: frame.assign(income=frame["income"].astype(str).where(frame.index != 3, "much")),
        ("data_quality",),
    ),
    "scores that are texts": Hostile(lambda frame: frame.assign(probability="high"), JUDGING),
    "decisions nobody knows": Hostile(lambda frame: frame.assign(decision="perhaps")),
    "huge numbers": Hostile(lambda frame: frame.assign(income=frame["income"] * 1e300)),
    "booleans": Hostile(lambda frame: frame.assign(debt=frame["debt"] > 20)),
}  # fmt: skip


MANY, READING = "100,000 categories", ("data_quality", "drift", "privacy")


def reference() -> pd.DataFrame:
    return applications(seed=4).assign(milliseconds=5.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration every gate can use, and the reference data."""
    saved(reference(), tmp_path / "reference.parquet")
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    write_config(tmp_path, COLUMNS)
    return tmp_path


def write_config(folder: Path, columns: dict[str, Any], **values: Any) -> Path:
    data = {
        "columns": columns,
        "positive": "approved",
        "suite": "suite.yaml",
        "attributions": {"file": "shap.parquet", "base": "expected"},
        "serving": {"usd_per_hour": 0.36, "latency_column": "milliseconds"},
        **values,
    }
    (folder / "gate.yaml").write_text(yaml.safe_dump(data))
    return folder / "gate.yaml"


def explained(frame: pd.DataFrame, folder: Path) -> None:
    """Attributions for the file as it is now; what is no number is explained by nothing."""

    def numbers(name: str) -> pd.Series[Any]:
        column = frame[name] if name in frame else pd.Series(0.0, index=frame.index)
        return pd.to_numeric(column.astype("object"), errors="coerce").astype("float64").fillna(0.0)

    parts = pd.DataFrame({"income": 0.15 * (numbers("income") - 50), "debt": -0.2 * (numbers("debt") - 20)})
    parts.assign(expected=1.0).to_parquet(folder / "shap.parquet", index=False)


def judged(gate: str, folder: Path, frame: pd.DataFrame, suffix: str = "parquet") -> GateRun:
    explained(frame, folder)
    if "milliseconds" not in frame:
        frame = frame.assign(milliseconds=5.0)
    current = saved(frame, folder / f"current.{suffix}")
    return run_gate(gate, folder / "gate.yaml", current=current, reference=folder / "reference.parquet")


def in_words(ran: GateRun) -> None:
    """Whoever reads it learns what is wrong; programs can read it too."""
    result = ran.result
    text = json.dumps(ran.to_data(), allow_nan=False)
    assert "Traceback" not in text
    if result.verdict in (Verdict.ERROR, Verdict.FAILED):
        assert any(one.message.strip() for one in result.findings if not one.verdict.allows), result.summary
    for one in result.findings:
        assert not any(
            word in one.message for word in ("KeyError", "IndexError", "AttributeError", "TypeError")
        ), f"{one.message} is no sentence"


@pytest.mark.requirement("T-7", "G-1")
@pytest.mark.parametrize(
    ("gate", "kind"),
    # What reads single values meets all categories; for the others they are rows like any.
    [(gate, kind) for gate in ON_DATA for kind in FILES if kind != MANY or gate in READING],
)
def test_a_hostile_file_is_judged_rightly_or_refused_in_words(folder: Path, gate: str, kind: str) -> None:
    hostile = FILES[kind]
    ran = judged(gate, folder, hostile.spoil(applications()))
    in_words(ran)
    if gate in hostile.broken:
        assert ran.result.verdict is not Verdict.PASSED, f"{gate} passes a file with {kind}"


@pytest.mark.requirement("T-7", "G-1")
@pytest.mark.parametrize("gate", ON_DATA)
def test_the_file_as_it_should_be_is_no_error(folder: Path, gate: str) -> None:
    """Else the tests above would prove nothing."""
    ran = judged(gate, folder, applications())
    assert ran.result.verdict is not Verdict.ERROR, ran.result.summary


@pytest.mark.requirement("T-7", "G-1")
@pytest.mark.parametrize("gate", ON_DATA)
def test_the_order_of_columns_changes_nothing(folder: Path, gate: str) -> None:
    first = judged(gate, folder, applications()).result
    second = judged(gate, folder, applications()[applications().columns[::-1]]).result
    assert (first.verdict, first.metrics) == (second.verdict, second.metrics)


NAMES = {
    "income": "доход ₽",
    "debt": "负债 'x' \"y\"",
    "sex": "Geschlecht; DROP TABLE",
    "outcome": "résultat",
}


@pytest.mark.requirement("T-7", "G-1")
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("gate", [gate for gate in ON_DATA if gate not in ("data_quality", "explainability")])
def test_names_in_any_script_are_names(folder: Path, gate: str, suffix: str) -> None:
    saved(reference().rename(columns=NAMES), folder / "reference.parquet")
    renamed = {**COLUMNS, "label": NAMES["outcome"], "sensitive": [NAMES["sex"]]}
    write_config(folder, {**renamed, "features": [NAMES["income"], NAMES["debt"]]})
    ran = judged(gate, folder, applications().rename(columns=NAMES), suffix)
    in_words(ran)
    assert ran.result.verdict is not Verdict.ERROR, ran.result.summary


@pytest.mark.requirement("T-7", "G-1")
@pytest.mark.parametrize("gate", gate_names())
@pytest.mark.parametrize(
    "what", ["nothing", "a text", "zeros", "half a file", "a folder", "a file that is gone"]
)
def test_what_is_no_data_is_refused_by_every_gate(folder: Path, gate: str, what: str) -> None:
    """Gates that need no rows say what else they need: nothing here lets any of them pass on data."""
    path = folder / "current.parquet"
    whole = saved(applications(), folder / "whole.parquet").read_bytes()
    contents = {
        "nothing": b"",
        "a text": b"hello",
        "zeros": bytes(1000),
        "half a file": whole[: len(whole) // 2],
    }
    if what in contents:
        path.write_bytes(contents[what])
    elif what == "a folder":
        path.mkdir()
    explained(applications(), folder)
    ran = run_gate(gate, folder / "gate.yaml", current=path, reference=path)
    in_words(ran)
    if gate in ON_DATA:
        assert ran.result.verdict is Verdict.ERROR, ran.result.summary
