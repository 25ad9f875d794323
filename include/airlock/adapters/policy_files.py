"""A policy bundle: a folder whose YAML files hold whole sections, with Rego files beside them.

``bundle.yaml``, ``limits.yaml``, ``gates.yaml`` … are names for people: any ``*.yaml`` file may hold any
sections, and a section that two files hold is an error. Only ``rules`` is collected from several files,
those of ``rules/``, in the order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airlock.adapters.yaml_files import line_of, load_yaml, to_model
from airlock.core.errors import ConfigurationError, NotFoundError
from airlock.core.policy import Policy

MAX_BUNDLE_BYTES = 4_000_000
"""A bundle is written and read by people; more than this is data in the wrong place, or an attack."""

MAX_BUNDLE_FILES = 500

MAX_VALUES = 200_000
"""Values after YAML's aliases are followed: ten lines of aliases can stand for a billion values."""

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def versions(folder: Path) -> list[str]:
    """Names of the folders that are versions and hold a bundle, oldest first."""
    found = [path.parent.name for path in folder.glob("*/*.yaml") if _VERSION.fullmatch(path.parent.name)]
    return sorted(set(found), key=version_key)


def version_key(version: str) -> tuple[int, ...]:
    """Sorts 1.10.0 after 1.9.0."""
    return tuple(int(part) for part in version.split("."))


class PolicyFiles:
    """The files of one bundle, and where in them each field stands.

    Raises:
        NotFoundError: there is no such folder, or no YAML file in it.
        ConfigurationError: a file cannot be read, holds what another holds, or does not belong here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sections: dict[str, Path] = {}
        self._rules: list[tuple[Path, int]] = []
        self._data: dict[str, Any] = {}
        yaml_files, self._rego_files = _files(folder)
        for path in yaml_files:
            self._add(path)
        self._data["rego"] = {path.relative_to(folder).as_posix(): _text(path) for path in self._rego_files}
        if (values := _count(self._data, {}, MAX_VALUES)) > MAX_VALUES:
            raise ConfigurationError(
                f"the bundle has over {MAX_VALUES} values ({values} seen) once its aliases are followed",
                where=str(folder),
                fix="take out the aliases (`*name`) that repeat other aliases",
            )

    def policy(self) -> Policy:
        """The bundle as a value.

        Raises:
            ConfigurationError: naming file, line and field; or the version is not that of the folder.
        """
        policy = to_model(self._data, Policy, self.place)
        if _VERSION.fullmatch(self.folder.name) and policy.version != self.folder.name:
            raise ConfigurationError(
                f"version: {policy.version} stands in the folder of {self.folder.name}",
                where=self.place(["version"]),
                fix="publish a new version in a folder of its own instead of editing one",
            )
        return policy

    def place(self, location: Sequence[str | int]) -> str:
        """File and line of a field; the folder for what stands nowhere."""
        parts = list(location)
        if parts[:1] == ["rego"]:
            return str(self.folder / str(parts[1])) if len(parts) > 1 else str(self.folder)
        if parts[:1] == ["rules"] and len(parts) > 1 and isinstance(parts[1], int):
            path, index = self._rules[parts[1]]
            return f"{path}:{line_of(path, ['rules', index, *parts[2:]])}"
        found = self._sections.get(str(parts[0])) if parts else None
        home = found or self._sections.get("version") or next(iter(self._sections.values()), None)
        return str(self.folder) if home is None else f"{home}:{line_of(home, parts)}"

    def rule_place(self, rule_id: str, *field: str | int) -> str:
        """File and line of a rule or one of its fields; the folder where there is no such rule."""
        for number, rule in enumerate(self._data.get("rules", [])):
            if isinstance(rule, dict) and rule.get("id") == rule_id:
                return self.place(["rules", number, *field])
        return str(self.folder)

    def _add(self, path: Path) -> None:
        data = load_yaml(path)
        if not isinstance(data, dict):
            raise ConfigurationError(
                "a file of a bundle is a mapping of sections",
                where=f"{path}:1",
                fix="begin it with the name of a section, such as `rules:`",
            )
        in_rules = path.parent != self.folder
        for section, content in data.items():
            where = f"{path}:{line_of(path, [section])}"
            if section == "rego":
                raise ConfigurationError(
                    "rego: Rego is not written in YAML", where=where, fix="put it into a *.rego file"
                )
            if in_rules and section != "rules":
                raise ConfigurationError(
                    f"{section}: only rules stand below rules/",
                    where=where,
                    fix="move this section into a file of the bundle's own folder",
                )
            if section == "rules" and isinstance(content, list):
                self._rules += [(path, number) for number in range(len(content))]
                content = self._data.get("rules", []) + content  # noqa: PLW2901  # rules alone add up
            elif section in self._data:
                raise ConfigurationError(
                    f"{section}: this section is also in {self._sections[section].name}",
                    where=where,
                    fix="keep a section in one file",
                )
            self._sections.setdefault(section, path)
            self._data[section] = content


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    if not folder.is_dir():
        raise NotFoundError("there is no such policy folder", where=str(folder), fix="check the name")
    files = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in inside.parts):
            continue
        yaml = path.suffix == ".yaml" and inside.parent.as_posix() in (".", "rules")
        if not yaml and path.suffix not in (".rego", ".md"):
            raise ConfigurationError(
                f"{inside} does not belong into a policy bundle",
                where=str(path),
                fix="sections stand in *.yaml files of the folder, rules in rules/*.yaml, Rego in *.rego, "
                "notes in *.md",
            )
        files.append(path)
    size = sum(path.stat().st_size for path in files)
    if size > MAX_BUNDLE_BYTES or len(files) > MAX_BUNDLE_FILES:
        raise ConfigurationError(
            f"the bundle has {len(files)} files with {size} bytes, "
            f"the limits are {MAX_BUNDLE_FILES} and {MAX_BUNDLE_BYTES}",
            where=str(folder),
            fix="keep data out of the bundle; rules read it as facts",
        )
    found = [path for path in files if path.suffix == ".yaml"]
    if not found:
        raise NotFoundError("the policy folder has no YAML file", where=str(folder), fix="empty is invalid")
    # The bundle's own files first, then rules/: rules keep the order in which people read them.
    found.sort(key=lambda path: (path.parent != folder, path.name))
    return found, [path for path in files if path.suffix == ".rego"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot be read: {error}", where=str(path), fix="save it as UTF-8 text"
        ) from error


def _count(value: Any, seen: dict[int, int], limit: int) -> int:
    """Number of values with shared ones counted each time; stops early above ``limit``."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = limit + 1  # a value inside itself has no end
    total = 1
    for item in value.values() if isinstance(value, dict) else value:
        total += _count(item, seen, limit)
    seen[id(value)] = total
    return total
