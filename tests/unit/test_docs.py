"""Documentation is tested: commands exist, files are there, examples are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.settings import Settings
from airlock.cli import app
from airlock.core.audit import Kind
from airlock.core.policy import Rule
from airlock.core.workload import Workload
from airlock.gates import gate_names, gate_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    inline = re.findall(r"`((?:airlock|make) [^`]+)`", page.read_text())
    return [line.strip() for line in [*lines, *inline] if line.strip()]


def parse(command: Any, words: list[str]) -> None:
    """Parse a command line as Typer would, without running it."""
    while hasattr(command, "commands"):
        if not words:
            return  # a group by its name in running text
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    if words:  # a bare command name in running text is no call
        command.make_context("airlock", list(words))


@EACH
def test_airlock_commands_are_real(page: Path) -> None:
    root = typer.main.get_command(app)
    for line in commands(page):
        words = shlex.split(line.split("#")[0])
        if words[0] == "airlock":
            words = [word for word in words[1:] if word != "…"]
            parse(root, words)


@EACH
def test_make_targets_are_real(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(page):
        words = shlex.split(line)
        if words[0] == "make" and len(words) > 1:
            assert words[1] in targets


@EACH
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_workload_of_the_readme_is_valid() -> None:
    example = yaml.safe_load(blocks(ROOT / "README.md", "yaml")[0])
    assert Workload.model_validate(example).name == "churn-forecast"
    assert len(blocks(ROOT / "README.md", "yaml")[0].splitlines()) <= 10


def test_the_rule_of_the_policy_guide_is_valid_and_shipped() -> None:
    example = Rule.model_validate(yaml.safe_load(blocks(ROOT / "docs" / "policy.md", "yaml")[0])[0])
    assert example in ConfigFolder(ROOT / "config").policy("1.0.0").rules


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "operator.md").read_text()
    for name in Settings.model_fields:
        assert f"AIRLOCK_{name.upper()}" in text, name


def test_every_kind_of_event_is_documented() -> None:
    text = (ROOT / "docs" / "auditor.md").read_text()
    assert [kind for kind in Kind if f"`{kind}`" not in text] == []


@pytest.mark.requirement("G-16")
@pytest.mark.parametrize("gate", gate_names())
def test_every_gate_says_why_what_and_how(gate: str) -> None:
    text = gate_text(gate)
    assert all(len(part) > 40 for part in (text.why, text.good, text.fix))
