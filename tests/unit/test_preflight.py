"""Preflight on files: findings like a linter's, in formats that other programs read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.adapters.cel_engine import CelEngine
from airlock.core.policy import Tier, Track
from airlock.core.preflight import Level, Note, Preflight
from airlock.reporting.preflight import github, junit, sarif
from airlock.services.preflight import UNKNOWN, Desk, check_files
from tests.support.deployments import WORKLOAD, World, edit, fast_folder, workload_data, write_yaml
from tests.support.rehearsals import make_stage


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as root:
        yield make_stage(root)


def check(world: World, name: str = WORKLOAD) -> Preflight:
    desk = Desk(
        config=world.deployment.config,
        config_dir=world.config,
        data_root=world.deployment.settings.data_root,
        engine=CelEngine(),
        today=date(2026, 1, 1),
    )
    return check_files(desk, name)


def rules(answer: Preflight, level: Level = Level.WARNING) -> list[str]:
    return [note.rule for note in answer.at_level(level)]


def change(world: World, **fields: Any) -> None:
    write_yaml(world.workload_file, {**workload_data(), **fields})


@pytest.mark.requirement("T-7")
def test_a_workload_that_is_fine_has_no_findings_and_says_what_is_not_known(world: World) -> None:
    answer = check(world)
    assert rules(answer) == []
    assert (answer.tier, answer.at_least, answer.outcome, answer.track) == (Tier.LOW, Track.GREEN, None, None)
    assert answer.unknown == [UNKNOWN]
    assert answer.seats == []


@pytest.mark.requirement("T-5", "T-7")
def test_a_high_risk_use_is_red_before_anything_is_measured(world: World) -> None:
    risk = {**workload_data()["risk"], "automated_decision": True, "human_review": False, "regulated": True}
    change(world, risk=risk)
    answer = check(world)
    assert (answer.tier, answer.at_least) == (Tier.HIGH, Track.RED)
    assert [(seat.role, seat.people) for seat in answer.seats] == [
        ("governance-analyst", ["Grace", "Omar"]),
        ("risk-officer", ["Ravi", "Omar"]),
    ]
    note = next(note for note in answer.notes if note.rule == "track-red-high-risk")
    assert (note.level, note.file) == (Level.NOTE, str(world.workload_file))
    assert world.workload_file.read_text().splitlines()[note.line - 1] == "risk:"
    assert note.why
    assert note.fix


@pytest.mark.requirement("T-7")
def test_each_thing_wrong_with_the_files_is_found_where_it_is(world: World) -> None:
    change(world, model={**workload_data()["model"], "features": ["income", "salary"]})
    answer = check(world)
    assert rules(answer, Level.ERROR)[:2] == ["data/columns", "data/columns"]
    assert "no column salary" in answer.at_level(Level.ERROR)[0].message
    change(world, risk={**workload_data()["risk"], "protected_class_data": False})
    assert rules(check(world), Level.ERROR) == ["declared-contradicted"]
    change(world, documentation="nothing.md")
    assert all(rule.startswith("documentation/") for rule in rules(check(world), Level.ERROR))
    assert rules(check(world), Level.ERROR)
    change(world, policy="9.9.9")
    assert rules(check(world), Level.ERROR) == ["policy/invalid"]
    world.workload_file.write_text("name: [\n")
    (note,) = check(world).notes
    assert (note.rule, note.level, note.line) == ("workload/invalid", Level.ERROR, 2)
    (note,) = check(world, "unknown").notes
    assert (note.rule, note.level) == ("workload/invalid", Level.ERROR)


def test_a_typo_is_shown_with_its_line(world: World) -> None:
    edit(world.workload_file, "regulated:", "reglated:")
    (note,) = check(world).notes
    assert "did you mean 'regulated'" in note.message
    assert "reglated" in world.workload_file.read_text().splitlines()[note.line - 1]


@pytest.mark.requirement("T-7")
def test_data_that_is_not_on_this_machine_is_a_warning(world: World) -> None:
    for path in world.deployment.settings.data_root.rglob("*.parquet"):
        path.unlink()
    answer = check(world)
    assert rules(answer) == ["data/missing", "data/missing"]
    assert rules(answer, Level.ERROR) == []


def test_data_that_is_no_parquet_is_an_error(world: World) -> None:
    (world.deployment.settings.data_root / "loan" / "training.parquet").write_bytes(b"text")
    assert rules(check(world), Level.ERROR) == ["data/columns"]


@pytest.mark.requirement("T-10", "T-7")
def test_experiments_are_held_against_those_of_all_workloads(world: World) -> None:
    plan = {
        "id": "trial", "population": "everybody", "share": 0.8, "start": "2026-03-01", "end": "2026-03-14",
        "metric": "approval_rate", "baseline": 0.2, "minimum_detectable_effect": 0.02, "power": 0.8,
        "alpha": 0.05, "cases_per_day": 5000,
    }  # fmt: skip
    change(world, experiments=[plan])
    assert rules(check(world)) == []
    write_yaml(
        world.config / "workloads" / "other.yaml", {**workload_data(), "name": "other", "experiments": [plan]}
    )
    answer = check(world)
    assert rules(answer, Level.ERROR) == ["experiments/experiment_overlap"]
    assert check(world, "other").at_level(Level.ERROR)


@pytest.mark.requirement("T-7")
def test_a_seat_nobody_can_fill_is_a_warning(world: World) -> None:
    change(world, risk={**workload_data()["risk"], "exposure": "customer"})
    world.set_roles("petra", [])
    assert rules(check(world)) == ["people/nobody"]


@pytest.mark.requirement("T-7")
def test_files_are_judged_without_airflow_stores_or_machine_learning() -> None:
    heavy = ("airflow", "sqlalchemy", "mlflow", "pandas", "numpy", "sklearn", "prompt_toolkit")
    code = f"import sys, airlock.cli.preflight; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ran.stdout == "[]\n"


# Formats

NOTES = [
    Note(
        rule="a/b",
        level=Level.ERROR,
        message="bad: 50 %, <x>&\n\x1b",
        why="w",
        fix="f",
        file="a b,c:d.yaml",
        line=3,
    ),
    Note(rule="c", level=Level.WARNING, message="odd", file="/abs/x.yaml"),
    Note(rule="c", level=Level.NOTE, message="fine"),
]
ANSWER = Preflight(workload="loan", version="2", notes=NOTES, seconds={"files": 0.5})

SARIF_FIELDS: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name"],
                                "properties": {
                                    "rules": {"uniqueItems": True, "items": {"required": ["id"]}},
                                },
                            }
                        },
                    },
                    "results": {
                        "items": {
                            "required": ["message"],
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "locations": {
                                    "items": {
                                        "properties": {
                                            "physicalLocation": {
                                                "required": ["artifactLocation"],
                                                "properties": {
                                                    "region": {"properties": {"startLine": {"minimum": 1}}},
                                                },
                                            }
                                        }
                                    }
                                },
                            },
                        }
                    },
                },
            },
        },
    },
}
"""What SARIF 2.1.0 demands of the parts that are used here (sections 3.13 to 3.52)."""


@pytest.mark.requirement("T-7", "U-3")
def test_sarif_has_a_rule_and_a_place_for_each_result() -> None:
    data = sarif([ANSWER])
    jsonschema.validate(data, SARIF_FIELDS)
    (run,) = data["runs"]
    known = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert known == ["a/b", "c"]
    for result, note in zip(run["results"], NOTES, strict=True):
        assert known[result["ruleIndex"]] == result["ruleId"] == note.rule
        assert result["level"] == note.level
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert places[0] == {"artifactLocation": {"uri": "a%20b%2Cc%3Ad.yaml"}, "region": {"startLine": 3}}
    assert places[1] == {"artifactLocation": {"uri": "file:///abs/x.yaml"}}
    assert places[2] == {"artifactLocation": {"uri": "config/workloads/loan.yaml"}}


@pytest.mark.requirement("T-7", "U-3")
def test_junit_fails_what_fails_the_command() -> None:
    for fail_on, failures in ((Level.ERROR, 1), (Level.WARNING, 2)):
        suites = ET.fromstring(junit([ANSWER], fail_on))  # noqa: S314  # written a line above
        (suite,) = suites
        assert suite.get("tests") == "3"
        assert suite.get("failures") == str(failures) == str(len(suite.findall("testcase/failure")))
    fine = ET.fromstring(junit([Preflight(workload="loan")], Level.ERROR))  # noqa: S314
    assert [case.get("name") for case in fine.iter("testcase")] == ["no findings"]


@given(st.text(), st.text())
def test_any_text_is_valid_xml(message: str, fix: str) -> None:
    note = Note(rule="r", level=Level.ERROR, message=message, fix=fix)
    ET.fromstring(junit([Preflight(workload="w", notes=[note])], Level.ERROR).encode("utf-8", "replace"))  # noqa: S314


def unescaped(text: str) -> str:
    """What the runner makes of a value, see ``ActionCommand`` of the runner's source."""
    for code, sign in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, sign)
    return text


@pytest.mark.requirement("T-7", "U-3")
@given(st.text(alphabet=st.characters(codec="utf-8")), st.text(alphabet="ab:,%\r\n 0AD", min_size=1))
def test_a_workflow_command_stays_one_line_and_comes_back_as_it_was(message: str, file: str) -> None:
    note = Note(rule="r", level=Level.ERROR, message=message, file=file, line=1)
    (line,) = github([Preflight(workload="w", notes=[note])]).split("\n")[:-1]
    found = re.fullmatch(r"::error title=airlock r,file=([^,:]*),line=1::(.*)", line, re.DOTALL)
    assert found is not None
    assert unescaped(found[1]) == file
    assert unescaped(found[2]) == f"w: {message}"
    assert "\r" not in line


def test_every_level_has_a_command() -> None:
    lines = github([ANSWER]).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]


def test_the_answer_survives_json() -> None:
    assert Preflight.from_bytes(ANSWER.to_bytes()) == ANSWER
    assert json.loads(ANSWER.to_bytes())["workload"] == "loan"
