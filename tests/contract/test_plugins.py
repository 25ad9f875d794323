"""Gates of other distributions: the example of the docs is built, installed and run; impostors are not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/gates.md").read_text()

pytestmark = pytest.mark.slow


def block(language: str, beginning: str) -> str:
    (found,) = [
        text
        for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        if text.startswith(beginning)
    ]
    return str(found)


def distribution(folder: Path, module: str, code: str | None, gate: str, name: str = "other-gates") -> Path:
    """An installed distribution: a module, and the metadata that pip would have written."""
    if code is not None:
        (folder / f"{module}.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[airlock.gates]\n{gate} = {module}\n")
    return folder


def airlock(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airlock.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(folder), "AIRLOCK_CONFIG_DIR": str(ROOT / "config")},
    )


def files(folder: Path) -> tuple[Path, Path]:
    config, data = folder / "duplicates.yaml", folder / "data.csv"
    config.write_text("limits: {maximum_share: 0.25}\n")
    pd.DataFrame({"a": [1, 1, 2, 3], "b": [1, 1, 2, 3]}).to_csv(data, index=False)
    return config, data


@pytest.mark.requirement("G-16")
def test_the_example_of_the_docs_is_built_and_runs(tmp_path: Path) -> None:
    """setuptools builds it from exactly what the page shows."""
    source, target = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    (source / "airlock_gate_duplicates.py").write_text(block("python", '"""Duplicates'))
    (source / "pyproject.toml").write_text(block("toml", "[project]"))
    target.mkdir()
    # What pip would have the same build backend do, without the network it needs for an environment.
    build = [
        sys.executable,
        "-c",
        "import setuptools; setuptools.setup()",
        "egg_info",
        "--egg-base",
        str(target),
    ]
    built = subprocess.run(
        [*build, "build_py", "--build-lib", str(target)],
        capture_output=True, text=True, check=False, timeout=300, cwd=source,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    listed = json.loads(airlock(target, "gate", "list", "--format", "json").stdout)
    assert {"airlock-gate-duplicates 1.0.0"} == {g["source"] for g in listed if g["gate"] == "duplicates"}
    config, data = files(tmp_path)
    done = airlock(
        target, "gate", "run", "duplicates", "--config", config, "--current", data, "--format", "json"
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["verdict"]) == (0, "PASSED")
    assert answer["metrics"][0]["value"] == 0.25
    config.write_text("limits: {maximum_share: 0.2}\n")
    done = airlock(
        target, "gate", "run", "duplicates", "--config", config, "--current", data, "--format", "json"
    )
    assert done.returncode == 3
    described = json.loads(airlock(target, "gate", "describe", "duplicates", "--format", "json").stdout)
    assert described["fix"].startswith("find out which job")


def test_the_example_is_about_thirty_lines_and_lint_is_clean(tmp_path: Path) -> None:
    code = block("python", '"""Duplicates')
    assert len([line for line in code.splitlines() if line.strip()]) <= 32
    path = tmp_path / "example.py"
    path.write_text(code)
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,B,UP",
        "--line-length",
        "110",
    ]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("wanted", ["drift", "other"])
def test_a_gate_cannot_take_the_place_of_another(tmp_path: Path, wanted: str) -> None:
    """Whichever gate is asked for."""
    folder = distribution(tmp_path, "impostor", block("python", '"""Duplicates'), "security")
    done = airlock(folder, "gate", "describe", wanted)
    assert done.returncode == 2
    assert "other-gates 1.0.0 offers a gate 'security', which airlock already has" in done.stderr.replace(
        "\n", " "
    )


def test_two_distributions_with_one_gate_are_refused(tmp_path: Path) -> None:
    distribution(tmp_path, "one", "", "twice", "first")
    distribution(tmp_path, "two", "", "twice", "second")
    done = airlock(tmp_path, "gate", "list")
    assert done.returncode == 2
    assert "first 1.0.0" in done.stderr
    assert "second 1.0.0" in done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import not_there", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemError('no')", "cannot be imported: SystemError: no"),
        (None, "cannot be imported: ModuleNotFoundError"),
        ('"""No config."""\nSTAGE = 1\n', "has no Config"),
    ],
)
def test_a_broken_gate_is_an_error_that_names_its_distribution(
    tmp_path: Path, code: str | None, words: str
) -> None:
    folder = distribution(tmp_path, "broken", code, "broken_gate")
    done = airlock(folder, "gate", "describe", "broken_gate")
    text = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert words in text
    assert "other-gates 1.0.0" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("gate", ["Bad-Name", "9lives"])
def test_a_name_no_policy_can_use_is_refused(tmp_path: Path, gate: str) -> None:
    done = airlock(distribution(tmp_path, "m", "", gate), "gate", "list")
    assert done.returncode == 2
    assert gate in done.stderr


def test_the_reference_of_the_docs_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/gate_docs.py"), "--check"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_policy_of_the_docs_names_what_the_gate_wants() -> None:
    assert yaml.safe_load(block("yaml", "gates:\n  duplicates"))["gates"]["duplicates"] == {
        "maximum_share": 0.01
    }
