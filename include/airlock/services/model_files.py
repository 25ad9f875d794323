"""What the files of a model version say: declared metadata, signature, packages. Nothing is executed.

The files are somebody else's: whatever cannot be read is left out, never guessed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from airlock.core.canonical import canonical_json, storable

MAX_FILE_BYTES = 1_000_000
"""A larger MLmodel or requirements file is not parsed: real ones have a few kilobytes."""

_NAME_LENGTH, _TYPE_LENGTH, _PACKAGES = 200, 200, 2000
_PINNED = re.compile(
    r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})(?:\[[^\]]*\])?\s*(==|@|<=|>=|~=|!=|<|>|$)\s*([^;#\s]{0,200})"
)

Declared = dict[str, str | float | int | bool | None]


def read_mlmodel(path: Path) -> dict[str, Any]:
    """The MLmodel file as data; empty when it is missing or broken, which the security gate reports."""
    data = _yaml(path)
    return data if isinstance(data, dict) else {}


def declared(folder: Path) -> Declared:
    """What training code declared in the artifact: ``metadata.airlock`` of the MLmodel file."""
    metadata = read_mlmodel(folder / "MLmodel").get("metadata") or {}
    values: Any = metadata.get("airlock") if isinstance(metadata, dict) else None
    if not isinstance(values, dict):
        return {}
    kept = {
        str(key): value
        for key, value in values.items()
        if value is None or isinstance(value, str | float | int | bool)
    }
    canonical_json(kept)  # a NaN or a number beyond 2**53 has no digest
    return kept


def signature(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs and outputs by name with their types, from the MLmodel file; empty when it has no signature."""
    found = read_mlmodel(folder / "MLmodel").get("signature")
    if not isinstance(found, dict):
        return {}, {}
    return _columns(found.get("inputs")), _columns(found.get("outputs"))


def _columns(text: object) -> dict[str, str]:
    try:
        columns = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    if not isinstance(columns, list):
        return {}
    return dict(_column(number, column) for number, column in enumerate(columns) if isinstance(column, dict))


def _column(number: int, column: dict[str, Any]) -> tuple[str, str]:
    """Name and type of one column; a tensor has no name, so its place is its name."""
    name = storable(str(column.get("name", number)))[:_NAME_LENGTH]
    kind = {key: value for key, value in column.items() if key not in ("name", "required")}
    plain = str(kind["type"]) if list(kind) == ["type"] else json.dumps(kind, sort_keys=True)
    optional = "" if column.get("required", True) else " (optional)"
    return name, storable(plain)[:_TYPE_LENGTH] + optional


def packages(folder: Path) -> dict[str, str]:
    """Packages the model says it needs, by lower-case name, and ``python``; the version, or the condition.

    From ``requirements.txt`` and ``python_env.yaml``, which MLflow writes beside the model.
    """
    found: dict[str, str] = {}
    environment = _yaml(folder / "python_env.yaml")
    if isinstance(environment, dict) and isinstance(environment.get("python"), str):
        found["python"] = storable(environment["python"])[:_NAME_LENGTH]
    for line in _text(folder / "requirements.txt").splitlines()[:_PACKAGES]:
        if match := _PINNED.match(line.strip()):
            name = re.sub(r"[-_.]+", "-", match[1]).lower()  # PEP 503
            found[name] = storable(match[3] if match[2] == "==" else f"{match[2]}{match[3]}") or "any"
    return found


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_text(path))
    except (ValueError, RecursionError, yaml.YAMLError):
        # ValueError: what looks like a date or a number and is none.
        return None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
