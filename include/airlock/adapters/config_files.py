"""Configuration from YAML: strict, with the file, line and field in every error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from airlock.core.base import Value
from airlock.core.errors import ConfigurationError, NotFoundError
from airlock.core.people import People
from airlock.core.policy import Policy
from airlock.core.retention import Regime, Retention
from airlock.core.workload import Workload

Model = TypeVar("Model", bound=Value)

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc]  # the C loader has no static type
    """Safe loader that refuses a key given twice; YAML itself would silently take the last."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # signature of PyYAML
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # looks like a date or a number and is none, such as 2026-13-01
            problem = f"{error}; put what is meant as text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # signature of PyYAML
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text, not a list or mapping", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        result: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return result


def load_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        NotFoundError: there is no such file.
        ConfigurationError: not YAML, a key twice, or empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError("file not found", where=str(path), fix="check the name and the folder") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            "the file is not UTF-8 text", where=f"{path}:{line}", fix="save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path)) from error
    try:
        data = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # derived from the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigurationError(
            f"not valid YAML: {error.problem}", where=place, fix="correct the indentation or syntax there"
        ) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigurationError(
            f"not valid YAML: {error.reason}",
            where=f"{path}:{line}",
            fix=f"remove the control character #x{error.character:04x}",
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"not valid YAML: {error}", where=str(path)) from error
    if data is None:
        raise ConfigurationError(
            "the file is empty", where=f"{path}:1", fix="empty is invalid: fill or delete it"
        )
    return data


def load_model(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a value.

    Raises:
        NotFoundError: there is no such file.
        ConfigurationError: naming file, line, field, what is wrong and what was probably meant.
    """
    data = load_yaml(path)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = _by_likely_cause(model, [dict(problem) for problem in error.errors()])
        where, what = _explain(path, model, problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigurationError(
            what + more, where=where, fix="correct the field; the schema is in config/schemas/"
        ) from error


def _location(problem: dict[str, Any]) -> list[Any]:
    return [part for part in problem["loc"] if part != "[key]" and not str(part).startswith("function-")]


def _by_likely_cause(model: type[Value], problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Misspelt fields first, without the fields that are only missing because they were misspelt."""
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    meant = {(*_location(problem)[:-1], _near(model, _location(problem))) for problem in unknown}
    others = [problem for problem in problems if problem["type"] != "extra_forbidden"]
    return unknown + [
        problem
        for problem in others
        if problem["type"] != "missing" or tuple(_location(problem)) not in meant
    ]


def _near(model: type[Value], location: list[Any]) -> str:
    """The field that was probably meant, or nothing."""
    return next(iter(difflib.get_close_matches(str(location[-1]), _fields_at(model, location[:-1]), n=1)), "")


def _explain(path: Path, model: type[Value], problem: dict[str, Any]) -> tuple[str, str]:
    location = _location(problem)
    name = ".".join(str(part) for part in location)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = _near(model, location)
        message = "unknown field" + (f"; did you mean {near!r}?" if near else "")
    elif problem["type"] == "missing":
        message = "required field is missing"
    elif problem["type"] in ("string_type", "invalid_key") and not isinstance(
        problem["input"], list | dict | None
    ):
        message = "this must be text; put it in quotes"
    # A rule about the whole file begins with the field it is about.
    place = location or (re.match(r"[a-z_.]*", message) or [""])[0].split(".")
    return f"{path}:{_line_of(path, place)}", f"{name}: {message}" if name else message


def _fields_at(model: type[Value], location: list[Any]) -> list[str]:
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is None:  # a list or mapping: its last argument is what it holds
            current = next(iter(get_args(current)[-1:]), None)
        else:
            current = fields[part].annotation if part in fields else None
    return list(getattr(current, "model_fields", {}))


def _line_of(path: Path, location: Sequence[Any]) -> int:
    """Line of the deepest part of ``location`` that stands in the file, else where its content begins."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    line = 1 if node is None else node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            item: yaml.Node = node.value[part]
            line, node = item.start_mark.line + 1, item
        else:
            break
    return line


class ConfigFolder:
    """The ``config/`` folder of a deployment."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def workload_files(self) -> list[Path]:
        """Every workload file, sorted by name."""
        return sorted((self._root / "workloads").glob("*.yaml"))

    def workload(self, name: str) -> Workload:
        """Read one workload, whose retention regimes must be known here.

        Raises:
            NotFoundError: no such workload; names the nearest.
            ConfigurationError: the file is wrong.
        """
        files = {path.stem: path for path in self.workload_files()}
        if name not in files:
            near = difflib.get_close_matches(name, files, n=1)
            known = f"did you mean {near[0]!r}? " if near else ""
            raise NotFoundError(
                f"there is no workload {name!r}",
                where=str(self._root / "workloads"),
                fix=f"{known}known workloads: {', '.join(files) or 'none yet'}",
            )
        workload = self.load_workload(files[name])
        self.regimes(workload)
        return workload

    @staticmethod
    def load_workload(path: Path) -> Workload:
        """Read a workload file; its name must be the workload's name."""
        workload = load_model(path, Workload)
        if workload.name != path.stem:
            raise ConfigurationError(
                f"name: {workload.name!r} does not match the file name",
                where=f"{path}:{_line_of(path, ['name'])}",
                fix=f"rename the file to {workload.name}.yaml or the workload to {path.stem}",
            )
        return workload

    def policy(self, version: str) -> Policy:
        """Read a policy version.

        Raises:
            NotFoundError: the version was never published here.
            ConfigurationError: the bundle is wrong, or says another version than its folder.
        """
        path = self._policy_file(version)
        if not path.is_file():
            known = sorted(found.parent.name for found in self._root.glob("policies/*/policy.yaml"))
            raise NotFoundError(
                f"there is no policy {version}",
                where=str(path.parent.parent),
                fix=f"published here: {', '.join(known) or 'none yet'}",
            )
        policy = load_model(path, Policy)
        if policy.version != version:
            raise ConfigurationError(
                f"version: {policy.version} stands in the folder of {version}",
                where=f"{path}:{_line_of(path, ['version'])}",
                fix="publish a new version in a folder of its own instead of editing one",
            )
        return policy

    def _policy_file(self, version: str) -> Path:
        return self._root / "policies" / version / "policy.yaml"

    def place_in_policy(self, version: str, *location: str | int) -> str:
        """File and line of a field of a policy, for errors about it."""
        path = self._policy_file(version)
        return f"{path}:{_line_of(path, location)}"

    def people(self) -> People:
        """Read people and roles."""
        return load_model(self._root / "people.yaml", People)

    def retention(self) -> Retention:
        """Read the retention regimes.

        Raises:
            NotFoundError: there is no such file.
            ConfigurationError: the file is wrong.
        """
        return load_model(self._root / "retention.yaml", Retention)

    def regimes(self, workload: Workload) -> list[Regime]:
        """The retention regimes a workload is under.

        Raises:
            NotFoundError: it names regimes, and there is no file of them.
            ConfigurationError: it names one that is not in the file; names the nearest.
        """
        if not workload.regimes:
            return []
        retention = self.retention()
        found = [retention.find(regime_id) for regime_id in workload.regimes]
        if None in found:
            place = found.index(None)
            near = difflib.get_close_matches(workload.regimes[place], retention.ids, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigurationError(
                f"regimes.{place}: there is no regime {workload.regimes[place]!r}",
                where=self._place_in_workload(workload.name, "regimes", place),
                fix=f"{guess}regimes of {self._root / 'retention.yaml'}: {', '.join(retention.ids)}",
            )
        return [regime for regime in found if regime is not None]

    def _place_in_workload(self, name: str, *location: str | int) -> str:
        path = self._root / "workloads" / f"{name}.yaml"
        return f"{path}:{_line_of(path, location)}" if path.is_file() else f"{path}, which is gone"

    def suite(self, name: str) -> dict[str, Any]:
        """Read an expectation suite as plain data; the data quality gate judges its content."""
        path = self._root / "expectations" / f"{name}.yaml"
        data = load_yaml(path)
        if not isinstance(data, dict):
            raise ConfigurationError("an expectation suite is a mapping", where=f"{path}:1")
        return data

    def documentation(self, workload: Workload) -> str:
        """The model card as text; empty when the file does not exist, which its gate refuses."""
        folder = (self._root / "workloads").resolve()
        path = (folder / workload.documentation).resolve()
        if not path.is_relative_to(folder):
            raise ConfigurationError(
                f"documentation: {workload.documentation!r} leaves the workloads folder",
                where=str(folder / f"{workload.name}.yaml"),
                fix="put the model card beside the workload file",
            )
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                "documentation: the model card is not UTF-8 text", where=str(path), fix="save it as UTF-8"
            ) from error
