"""`airlock gate` on plain files: fixed JSON, exit codes, a page, and words for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from airlock.cli import app
from airlock.cli.gate import app as gate_app
from airlock.core.errors import AirlockError
from airlock.gates import gate_names
from tests.support.files import COLUMNS, applications, config_file, saved

pytestmark = pytest.mark.slow


def run(*words: object) -> Result:
    return CliRunner().invoke(gate_app, [str(word) for word in words])


def answer(*words: object) -> tuple[int, dict[str, Any]]:
    done = run("run", *words, "--format", "json")
    return done.exit_code, json.loads(done.stdout)


def unfair() -> Any:
    """Every woman is declined."""
    frame = applications()
    return frame.assign(decision=frame["decision"].where(frame["sex"] == "male", "denied"))


@pytest.mark.requirement("T-7", "G-5")
def test_json_has_the_fixed_keys_and_exit_codes_tell_the_verdict(tmp_path: Path) -> None:
    config = config_file(tmp_path)
    code, good = answer(
        "bias", "--config", config, "--current", saved(applications(), tmp_path / "a.parquet")
    )
    assert set(good) == {"gate", "verdict", "metrics", "findings", "engine", "seconds"}
    assert set(good["metrics"][0]) == {"name", "value", "lower", "upper", "n", "threshold", "slice"}
    assert (code, good["gate"]) == (0, "bias")
    assert good["verdict"] in {"PASSED", "WARNED"}
    code, bad = answer("bias", "--config", config, "--predictions", saved(unfair(), tmp_path / "b.csv"))
    assert (code, bad["verdict"]) == (3, "FAILED")
    code, broken = answer("bias", "--config", config, "--current", tmp_path / "gone.parquet")
    assert (code, broken["verdict"]) == (1, "ERROR")
    assert "it is not there" in broken["findings"][0]["message"]


@pytest.mark.parametrize("kind", ["empty", "header only", "one row", "one column", "folder", "no option"])
@pytest.mark.parametrize("gate", ["bias", "performance"])
def test_what_cannot_be_judged_is_an_error_in_words(tmp_path: Path, kind: str, gate: str) -> None:
    frame = applications()
    files = {
        "empty": tmp_path / "empty.csv",
        "header only": saved(frame.head(0), tmp_path / "header.csv"),
        "one row": saved(frame.head(1), tmp_path / "one.parquet"),
        "one column": saved(frame[["outcome"]], tmp_path / "column.parquet"),
        "folder": tmp_path,
    }
    files["empty"].write_text("")
    option = ["--current", files[kind]] if kind in files else []
    code, data = answer(gate, "--config", config_file(tmp_path), *option)
    assert (code, data["verdict"]) == (1, "ERROR")
    assert all(finding["message"] for finding in data["findings"])
    assert "Traceback" not in json.dumps(data)


def test_a_page_and_a_text_can_be_written_to_a_file(tmp_path: Path) -> None:
    config, data = config_file(tmp_path), saved(unfair(), tmp_path / "b.parquet")
    for kind, sign in (("html", "<!doctype html>"), ("json", '{\n  "gate": "bias"'), ("pretty", "✘ FAILED")):
        target = tmp_path / f"out.{kind}"
        done = run("run", "bias", "--config", config, "--current", data, "--format", kind, "-o", target)
        assert done.exit_code == 3
        assert target.read_text().startswith(sign)
    printed = run("run", "bias", "--config", config, "--current", data, "--format", "html")
    assert printed.stdout == (tmp_path / "out.html").read_text()
    with pytest.raises(AirlockError, match="cannot be written"):
        CliRunner().invoke(
            gate_app,
            [
                "run",
                "bias",
                "--config",
                str(config),
                "--current",
                str(data),
                "--format",
                "html",
                "-o",
                "/no/x",
            ],
            catch_exceptions=False,
        )


def test_limits_that_were_left_out_are_named(tmp_path: Path) -> None:
    config = config_file(tmp_path, limits={"four_fifths": 0.5})
    _, data = answer("bias", "--config", config, "--current", saved(applications(), tmp_path / "a.parquet"))
    (note,) = [finding for finding in data["findings"] if finding["id"] == "limits.from_policy"]
    assert "minimum_group_rows" in note["message"]
    assert "four_fifths" not in note["message"]


def test_list_and_describe_know_every_gate() -> None:
    listed = json.loads(run("list", "--format", "json").stdout)
    assert [gate["gate"] for gate in listed] == gate_names()
    assert run("list").exit_code == 0


@pytest.mark.requirement("G-16")
@pytest.mark.parametrize("name", gate_names())
def test_describe_says_why_how_and_with_what(name: str) -> None:
    data = json.loads(run("describe", name, "--format", "json").stdout)
    assert all(data[key] for key in ("title", "why", "good", "fix", "stage", "source", "command"))
    assert data["schema"]["type"] == "object"
    assert "limits" in yaml.safe_load(data["example"])
    shown = run("describe", name)
    assert shown.exit_code == 0
    assert data["command"].split(" --config")[0] in shown.output


def test_the_command_is_part_of_airlock() -> None:
    done = CliRunner().invoke(app, ["gate", "--help"])
    assert all(word in done.output for word in ("list", "describe", "run"))


def test_columns_of_the_tests_are_those_of_the_example() -> None:
    example = yaml.safe_load(json.loads(run("describe", "bias", "--format", "json").stdout)["example"])
    assert example["columns"] == COLUMNS
