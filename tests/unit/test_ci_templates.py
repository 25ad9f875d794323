"""Templates for CI: they can be read, and every command in them exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

from airlock.cli import app

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "templates" / "ci").iterdir())
SCRIPTS = [
    ROOT / ".ci/run",
    *sorted((ROOT / "scripts").glob("*.sh")),
    *sorted((ROOT / "config/compose").glob("*.sh")),
]


def calls(text: str) -> list[list[str]]:
    """Every call of airlock in a template."""
    found = re.findall(r"\bairlock ((?:preflight|interview|policy)[^'\"\n>]*)", text)
    return [shlex.split(words) for words in found]


@pytest.mark.requirement("T-7", "U-3")
@pytest.mark.parametrize("path", [*TEMPLATES, ROOT / ".pre-commit-hooks.yaml"], ids=lambda path: path.name)
def test_every_command_of_a_template_exists(path: Path) -> None:
    root = typer.main.get_command(app)
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith(("#", "//"))]
    commands = [
        words for line in lines if not re.match(r"\s*(- )?(name|id|stage)\b", line) for words in calls(line)
    ]
    assert commands
    for name, *options in commands:
        root.commands[name].make_context("airlock", list(options))  # type: ignore[attr-defined]  # a group


@pytest.mark.requirement("U-3")
def test_there_is_a_template_for_each_of_three() -> None:
    assert [path.name for path in TEMPLATES] == ["Jenkinsfile", "github-actions.yaml", "gitlab-ci.yaml"]


def test_yaml_templates_are_yaml() -> None:
    workflow = yaml.safe_load((ROOT / "templates/ci/github-actions.yaml").read_text())
    assert workflow["jobs"]["preflight"]["steps"]
    job = yaml.safe_load((ROOT / "templates/ci/gitlab-ci.yaml").read_text())["airlock-preflight"]
    assert job["artifacts"]["reports"]["junit"] == "airlock.xml"


@pytest.mark.requirement("T-7")
def test_the_hook_looks_at_what_a_preflight_reads() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {"id", "name", "entry", "language", "files"} <= set(hook)
    for file in ("config/workloads/a.yaml", "config/workloads/a.md", "config/policies/1.0.0/rules/x.yaml"):
        assert re.search(hook["files"], file)
    assert not re.search(hook["files"], "include/airlock/cli/preflight.py")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shell_script_is_one_that_bash_can_read(path: Path) -> None:
    """`bash -n` reads without running: an open quote in `.ci/run` once left everything untested."""
    assert path.read_text().splitlines()[0] == "#!/usr/bin/env bash"
    assert path.stat().st_mode & 0o100
    read = subprocess.run(["/bin/bash", "-n", path], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
