"""constraints.txt: what pip can use, complete for every supported Python, and true to pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    text = (ROOT / "constraints.txt").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def environment(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux"}


def test_every_line_is_an_exact_pin_without_address_or_extra(lines: list[str]) -> None:
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; .+)?", line), line
    assert not re.search(r"://|index", (ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_once_and_within_its_range(
    lines: list[str], project: dict[str, Any], python: str
) -> None:
    pins: dict[str, str] = {}
    for line in lines:
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(environment(python)):
            assert pin.name not in pins, f"{pin.name} is pinned twice for Python {python}"
            pins[pin.name] = next(iter(pin.specifier)).version
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["cluster"],
        *project["project"]["optional-dependencies"]["s3"],
        *project["project"]["optional-dependencies"]["slack"],
        *project["dependency-groups"]["dev"],
    ]
    for text in wanted:
        requirement = Requirement(text)
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin; run `make lock`"
        assert requirement.specifier.contains(version), f"{text} does not allow {version}; run `make lock`"
