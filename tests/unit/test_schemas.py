"""The JSON Schemas that editors use say what the models say."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

from airlock.gates import gate_names
from tests.support.deployments import shipped_gates

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "config" / "schemas"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "export_schemas.py"
    spec = importlib.util.spec_from_file_location("export_schemas", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def problems(name: str, data: Any) -> list[str]:
    return [error.message for error in validator(name).iter_errors(data)]


@pytest.fixture
def policy() -> dict[str, Any]:
    return copy.deepcopy({"gates": shipped_gates()})


def test_committed_schemas_are_those_of_the_models(script: ModuleType) -> None:
    assert script.main(["--check"]) == 0, "run `make schemas`"


def test_check_finds_a_stale_and_a_missing_schema(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([], folder=tmp_path, reference=tmp_path / "reference.md") == 0
    assert script.main(["--check"], folder=tmp_path, reference=tmp_path / "reference.md") == 0
    (tmp_path / "policy.schema.json").write_text("{}\n")
    (tmp_path / "people.schema.json").unlink()
    assert script.main(["--check"], folder=tmp_path, reference=tmp_path / "reference.md") == 1
    assert "people.schema.json, policy.schema.json" in capsys.readouterr().err
    assert (tmp_path / "policy.schema.json").read_text() == "{}\n", "--check must not write"


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("people", "people.yaml"),
        ("policy", "policies/**/*.yaml"),
        ("retention", "retention.yaml"),
        ("workload", "workloads/*.yaml"),
    ],
)
def test_shipped_configuration_fits_its_schema(name: str, pattern: str) -> None:
    files = sorted((ROOT / "config").glob(pattern))
    assert files
    for file in files:
        assert problems(name, yaml.safe_load(file.read_text())) == [], file


@pytest.mark.parametrize("pattern", ["policies/**/*.yaml", "workloads/*.yaml"])
def test_shipped_configuration_names_its_schema_for_editors(pattern: str) -> None:
    for file in (ROOT / "config").glob(pattern):
        first = file.read_text().splitlines()[0]
        prefix = "# yaml-language-server: $schema="
        assert first.startswith(prefix), file
        assert (file.parent / first.removeprefix(prefix)).resolve().parent == SCHEMAS


@pytest.mark.requirement("P-1")
def test_policy_schema_knows_every_gate_and_its_settings(policy: dict[str, Any]) -> None:
    schema = json.loads((SCHEMAS / "policy.schema.json").read_text())
    assert sorted(schema["properties"]["gates"]["properties"]) == gate_names()
    gate = next(iter(policy["gates"]))
    policy["gates"][gate]["minimun_rows"] = 3
    policy["gates"]["no_such_gate"] = {}
    found = " ".join(problems("policy", policy))
    assert "minimun_rows" in found
    assert "no_such_gate" in found


def test_workload_cannot_state_its_own_tier() -> None:
    data = yaml.safe_load(next((ROOT / "config" / "workloads").glob("*.yaml")).read_text())
    data["risk"]["tier"] = "low"
    assert "tier" in " ".join(problems("workload", data))
