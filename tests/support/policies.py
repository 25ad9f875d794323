"""A copy of the shipped policy bundle that a test may spoil."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

from airlock.adapters.cel_engine import CelEngine
from airlock.adapters.policy_files import PolicyFiles
from airlock.core.people import People
from airlock.core.policy import Policy
from airlock.services.policy_check import Problem, check_bundle

SHIPPED = Path(__file__).parents[2] / "config" / "policies" / "1.0.0"
TODAY = date(2026, 1, 1)


def copy_bundle(folder: Path) -> Path:
    """The shipped bundle in ``folder/bundle``."""
    return Path(shutil.copytree(SHIPPED, folder / "bundle"))


def read_bundle(folder: Path) -> Policy:
    return PolicyFiles(folder).policy()


def problems_of(folder: Path, *, people: People | None = None, today: date = TODAY) -> list[Problem]:
    return check_bundle(lambda: PolicyFiles(folder), CelEngine(), today=today, people=people)


def rule_text(**changes: str) -> str:
    """A file of rules with one rule; each field may be given in YAML."""
    fields = {
        "id": "extra",
        "title": "Extra",
        "owner": "risk-officer",
        "severity": "low",
        "why": "a test",
        "fix": "do not",
        "when": "workload.regulated",
        "effect": "{warn: true}",
        "because": "it is so",
        "otherwise": "it is not so",
        "expires": "never",
        "tests": "{fires: [{workload.regulated: true}], silent: [{workload.regulated: false}]}",
    }
    lines = [f"{name}: {value}" for name, value in {**fields, **changes}.items() if value]
    return "rules:\n  - " + "\n    ".join(lines) + "\n"
