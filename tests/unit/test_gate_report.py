"""Reports of gates: the same bytes for the same answer, everything escaped, nothing from elsewhere."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.canonical import parse_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict
from airlock.reporting.gate_plot import number_text, plot
from airlock.reporting.gate_report import GateView, fragment, page, report_files

NASTY = "<script>alert(1)</script>\x1b[2J\u202e & \"'"


def view(result: GateResult, **changes: str) -> GateView:
    words = {"gate": "bias", "title": "Bias", "why": "why", "good": "good", "fix": "fix", "subject": "r"}
    return GateView(**{**words, **changes}, result=result, limits={"a": 0.5, "b": ["x"], "c": {"d": None}})  # type: ignore[arg-type]  # the words are words


def metric(value: float | None = 0.5, **changes: object) -> Metric:
    return Metric.model_validate(
        {"name": "psi", "value": value, "threshold": 0.2, "direction": "lower", **changes}
    )


RESULT = GateResult(
    verdict=Verdict.FAILED,
    summary="It failed.",
    findings=[Finding(id="x", verdict=Verdict.FAILED, message="m", where="w", fix="f")],
    metrics=[
        metric(interval=(0.4, 0.6), n=100, where="income", method="bootstrap"),
        metric(None, where="debt"),
    ],
    engines={"numpy": "2"},
)


@pytest.mark.requirement("G-16")
def test_a_report_says_verdict_findings_fix_numbers_and_why() -> None:
    text = fragment(view(RESULT))
    for words in (
        "FAILED",
        "It failed.",
        "How to fix it",
        "0.4 to 0.6",
        "at most 0.2",
        "undefined",
        "bootstrap",
    ):
        assert words in text


def test_the_same_answer_gives_the_same_bytes() -> None:
    assert report_files(view(RESULT)) == report_files(view(RESULT))
    assert page(view(RESULT)) == page(view(RESULT))


def test_report_json_has_the_fixed_keys() -> None:
    data = parse_json(report_files(view(RESULT))["report.json"])
    assert set(data) == {"gate", "verdict", "metrics", "findings", "engine"}
    assert data["metrics"][0] == {
        "name": "psi", "value": 0.5, "lower": 0.4, "upper": 0.6, "n": 100, "threshold": 0.2,
        "slice": "income",
    }  # fmt: skip
    assert data["engine"] == "numpy 2"


def test_what_others_wrote_is_escaped_everywhere() -> None:
    result = GateResult(
        verdict=Verdict.ERROR,
        summary=NASTY,
        findings=[Finding(id=NASTY, verdict=Verdict.ERROR, message=NASTY, where=NASTY, fix=NASTY)],
        metrics=[metric(name=NASTY, where=NASTY, method=NASTY, engine=NASTY, unit=NASTY)],
        engines={NASTY: NASTY},
    )
    words = {"gate": NASTY, "title": NASTY, "why": NASTY, "good": NASTY, "fix": NASTY, "subject": NASTY}
    text = page(view(result, **words))
    assert "<script" not in text
    assert not re.search(r"(src|href)=", text)
    picture = plot(result.metrics)
    assert picture is not None
    ET.fromstring(picture)  # noqa: S314  # our own text


def test_an_answer_without_numbers_has_no_plot() -> None:
    empty = GateResult(verdict=Verdict.ERROR, summary="Nothing.")
    assert plot([]) is None
    assert plot([metric(None), Metric(name="rows", value=3)]) is None
    assert set(report_files(view(empty))) == {"report.html", "report.json"}
    assert "No findings." in fragment(view(empty))


def test_many_metrics_are_cut_in_the_picture_and_the_worst_stay() -> None:
    good = [metric(0.1, where=f"feature {number}") for number in range(500)]
    picture = plot([*good, metric(0.9, where="the bad one")])
    assert picture is not None
    assert "the bad one" in picture
    assert "493 more in the table" in picture
    many = plot([metric(name=f"metric_{number}") for number in range(30)])
    assert many is not None
    assert "and 20 more metrics" in many


@given(
    st.lists(
        st.builds(
            metric,
            value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            where=st.text(),
            name=st.text(min_size=1),
        ),
        max_size=20,
    )
)
def test_any_numbers_make_well_formed_xml(metrics: list[Metric]) -> None:
    picture = plot(metrics)
    if picture is not None:
        ET.fromstring(picture)  # noqa: S314  # our own text
        assert "nan" not in picture
        assert "inf" not in picture.replace("info", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "undefined"), (3.0, "3"), (1234567, "1,234,567"), (0.123456, "0.1235"), (12345.6, "12,346")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number_text(value) == text
