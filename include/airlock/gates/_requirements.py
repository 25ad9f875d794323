"""Which packages a model says it needs, by the files MLflow writes beside it, and which are unsafe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airlock.core.advisory import Advisory, VersionRange

if TYPE_CHECKING:
    from packaging.version import Version

_MAXIMUM_BYTES = 1 << 20
_CONDA = re.compile(r"([A-Za-z0-9][\w.-]*)\s*={1,2}\s*([\w.!+-]+)")


@dataclass(frozen=True)
class Requirement:
    """One line of a requirements file.

    Attributes:
        name: as PyPI normalises it; empty for a line that names no package.
        version: the one version it is pinned to; empty when it is not.
        line: the line itself, cut.
        file: where it stands.
        elsewhere: whether the line says where to get packages from.
    """

    name: str
    version: str
    line: str
    file: str
    elsewhere: bool = False


def read_requirements(root: Path) -> list[Requirement]:
    """The packages of ``requirements.txt``, ``conda.yaml`` and ``python_env.yaml``, each once, by name."""
    found: dict[tuple[str, str, str], Requirement] = {}
    for name, reader in (("requirements.txt", _lines), ("conda.yaml", _yaml), ("python_env.yaml", _yaml)):
        path = root / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAXIMUM_BYTES:
            for one in reader(path.read_text("utf-8", "replace"), name):
                found.setdefault((one.name, one.version, "" if one.name else one.line), one)
    return [found[key] for key in sorted(found)]


def _lines(text: str, file: str) -> Iterator[Requirement]:
    for line in text.replace("\\\n", " ").splitlines():
        plain = re.sub(r"(^|\s)#.*$", "", line).strip()
        if plain:
            yield _requirement(plain, file)


def _requirement(line: str, file: str) -> Requirement:
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed
    from packaging.utils import canonicalize_name

    shown = "".join(character if character.isprintable() else "\ufffd" for character in line)[:200]
    if line.startswith("-"):
        return Requirement("", "", shown, file, elsewhere=not line.startswith(("-r ", "--hash")))
    try:
        parsed = Parsed(line.split(" --hash", 1)[0].strip())
    except InvalidRequirement:
        return Requirement("", "", shown, file)
    pins = [
        one.version for one in parsed.specifier if one.operator in ("==", "===") and "*" not in one.version
    ]
    return Requirement(
        canonicalize_name(parsed.name),
        pins[0] if len(pins) == 1 else "",
        shown,
        file,
        elsewhere=bool(parsed.url),
    )


def _yaml(text: str, file: str) -> Iterator[Requirement]:
    """Conda's list, with pip's list inside, and MLflow's lists of dependencies."""
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return
    if not isinstance(data, dict):
        return
    for key in ("dependencies", "build_dependencies"):
        parts = data.get(key)
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                inner = part.get("pip")
                yield from (
                    _requirement(str(line), file) for line in (inner if isinstance(inner, list) else [])
                )
            elif isinstance(part, str) and not part.startswith("-r"):
                yield _conda(part, file) if file == "conda.yaml" else _requirement(part, file)


def _conda(part: str, file: str) -> Requirement:
    match = _CONDA.fullmatch(part.rsplit("::", maxsplit=1)[-1].strip())
    name = (match[1] if match else re.split(r"[\s<>=!]", part, maxsplit=1)[0]).lower()
    return Requirement(name, match[2] if match else "", part[:200], file)


CONDA_ONLY = {"python", "pip", "setuptools", "wheel"}
"""What an environment is built with: it comes with the platform and not with the model."""


def affecting(requirement: Requirement, advisories: Sequence[Advisory]) -> list[Advisory]:
    """The advisories that hold for a requirement at its version; an unreadable version is affected by all."""
    from packaging.version import InvalidVersion, Version

    about = [one for one in advisories if one.package == requirement.name]
    try:
        version = Version(requirement.version)
    except InvalidVersion:
        return about
    return [
        one
        for one in about
        if requirement.version in one.versions or any(_inside(version, found) for found in one.ranges)
    ]


def _inside(version: Version, found: VersionRange) -> bool:
    """A bound that cannot be read does not keep a version out."""
    from packaging.version import InvalidVersion, Version

    def bound(text: str) -> Version | None:
        try:
            return Version(text)
        except InvalidVersion:
            return None

    low, fixed, last = bound(found.introduced), bound(found.fixed), bound(found.last_affected)
    return (
        (low is None or version >= low)
        and (fixed is None or version < fixed)
        and (last is None or version <= last)
    )
