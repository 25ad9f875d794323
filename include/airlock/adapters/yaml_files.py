"""YAML files as values: strict, with the file, line and field in every error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from airlock.core.base import Value
from airlock.core.errors import ConfigurationError, NotFoundError

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


Place = Callable[[Sequence[str | int]], str]
"""File and line of a field, from its path inside the value."""


def load_model(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a value.

    Raises:
        NotFoundError: there is no such file.
        ConfigurationError: naming file, line, field, what is wrong and what was probably meant.
    """
    return to_model(load_yaml(path), model, lambda location: f"{path}:{line_of(path, location)}")


def to_model(data: Any, model: type[Model], place: Place) -> Model:
    """Turn data that was read from YAML into a value.

    Raises:
        ConfigurationError: naming file, line, field, what is wrong and what was probably meant.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = _by_likely_cause(model, [dict(problem) for problem in error.errors()])
        where, what = _explain(place, model, problems[0])
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


def _explain(place: Place, model: type[Value], problem: dict[str, Any]) -> tuple[str, str]:
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
    about = (re.match(r"[a-z0-9_.-]*", message) or [""])[0].split(".")
    inside = location or [int(part) if part.isdigit() else part for part in about]
    return place(inside), f"{name}: {message}" if name else message


def _fields_at(model: type[Value], location: list[Any]) -> list[str]:
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is None:  # a list or mapping: its last argument is what it holds
            current = next(iter(get_args(current)[-1:]), None)
        else:
            current = fields[part].annotation if part in fields else None
    return list(getattr(current, "model_fields", {}))


def line_of(path: Path, location: Sequence[str | int]) -> int:
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
