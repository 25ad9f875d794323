"""The process in which Rego runs: reads requests as JSON lines, answers each with one JSON line.

The engine has no limits of its own, and a function that calls itself ends its process. So it runs in a child
that has limits and that may die: a dead child is an error, and an error denies. Started by
``process.py`` as a file of its own, with nothing but the standard library and the engine.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

MEMORY_BYTES = 1_000_000_000
"""Address space; the engine with a bundle needs a tenth of it."""

CPU_SECONDS = 3
"""Processor time of one answer; a decision takes less than a millisecond. A busy machine does not count."""

MAX_ANSWER = 1_000_000
"""Characters of an answer; reasons are for people."""


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every node of the engine's syntax tree with its kind; a reference is not taken apart."""
    if isinstance(value, dict):
        for kind, inner in value.items():
            if kind[:1].isupper() and isinstance(inner, dict):
                yield kind, inner
                if kind in ("RefDot", "RefBrack"):
                    yield from _walk_keys(inner)
                    continue
            yield from _walk(inner)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _walk_keys(reference: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What stands in brackets along a reference, and what it begins with when that is no name."""
    if "index" in reference:
        yield from _walk(reference["index"])
    inner = reference["refr"]
    for kind in ("RefDot", "RefBrack"):
        if kind in inner:
            yield from _walk_keys(inner[kind])
            return
    if "Var" not in inner:
        yield from _walk(inner)


def _path(kind: str, node: dict[str, Any]) -> tuple[list[str], bool] | None:
    """The names along a reference, and whether it ends before a computed one; ``None`` without a name."""
    if kind == "Var":
        return [str(node["value"])], False
    inner = node["refr"]
    inner_kind = next((name for name in ("Var", "RefDot", "RefBrack") if name in inner), None)
    found = None if inner_kind is None else _path(inner_kind, inner[inner_kind])
    if found is None or found[1]:
        return found
    names, _ = found
    if kind == "RefDot":
        return [*names, str(node["field"][1])], False
    text = node["index"].get("String")
    return (names, True) if text is None else ([*names, str(text["value"])], False)


def _reference(expression: dict[str, Any]) -> tuple[list[str], bool]:
    kind = next((name for name in ("Var", "RefDot", "RefBrack") if name in expression), None)
    return ([], True) if kind is None else (_path(kind, expression[kind]) or ([], True))


def _line(node: dict[str, Any]) -> int:
    return int(node["span"]["line"])


def _rule(entry: dict[str, Any]) -> tuple[str, bool]:
    """Name of a rule, and whether it is a function."""
    rule = entry.get("Spec") or entry.get("Default") or {}
    head = rule.get("head") or {"Default": rule}
    kind = next(iter(head))
    names, _ = _reference(head[kind]["refr"])
    return ".".join(names), kind == "Func"


def read(modules: dict[str, str]) -> dict[str, Any]:
    """What the modules read, call, import and define, with lines; nothing is evaluated."""
    found: dict[str, list[Any]] = {"packages": [], "reads": [], "calls": [], "imports": [], "rules": []}
    for entry in json.loads(_engine(modules).get_ast_as_json()):
        file, tree = entry["source"]["file"], entry["ast"]
        package = ".".join(_reference(tree["package"]["refr"])[0])
        found["packages"].append([file, package])
        text = entry["source"]["contents"].encode()
        for item in tree["imports"]:
            span = item.get("as")
            names = _reference(item["refr"])[0]
            alias = text[span["start"] : span["end"]].decode() if span else names[-1]
            found["imports"].append([file, _line(item), ".".join(names), alias])
        for rule in tree["rules"]:
            found["rules"].append([file, package, *_rule(rule)])
        for kind, node in _walk(tree["rules"]):
            if kind == "Call":
                found["calls"].append([file, _line(node), ".".join(_reference(node["fcn"])[0])])
            elif kind in ("Var", "RefDot", "RefBrack"):
                names, open_end = _path(kind, node) or ([], False)
                if names[:1] in (["input"], ["data"]):
                    found["reads"].append([file, _line(node), ".".join(names), open_end])
    return found


_ENGINES: dict[str, Any] = {}


def _engine(modules: dict[str, str]) -> Any:
    import regorus

    name = json.dumps(modules, sort_keys=True)
    if name not in _ENGINES:
        engine = regorus.Engine()
        engine.set_gather_prints(True)
        for path, text in sorted(modules.items()):
            engine.add_policy(path, text)
        _ENGINES.clear()
        _ENGINES[name] = engine
    return _ENGINES[name].clone()


def judge(modules: dict[str, str], facts: dict[str, Any]) -> Any:
    """The value of ``data.airlock``: every rule of the package by name."""
    engine = _engine(modules)
    engine.set_input_json(json.dumps(facts))
    return _value(engine, "data.airlock")


def run_tests(modules: dict[str, str]) -> list[list[Any]]:
    """Each ``test_*`` rule with what came out: true is green; nothing at all is as red as false."""
    engine = _engine(modules)
    results = []
    for file, package, name, function in read(modules)["rules"]:
        if not function and name.startswith("test_"):
            path = f"data.{package}.{name}"
            try:
                results.append([file, path, _value(engine.clone(), path), ""])
            except Exception as error:  # noqa: BLE001  # one broken test does not hide the others
                results.append([file, path, None, _words(error)])
    return results


def _value(engine: Any, query: str) -> Any:
    result = json.loads(engine.eval_query_as_json(query)).get("result") or []
    return result[0]["expressions"][0]["value"] if result else None


def _words(error: BaseException) -> str:
    """The engine's words without its stack trace."""
    text = str(error).split("Stack backtrace")[0]
    return " ".join(text.split())[:500] or type(error).__name__


_ACTIONS: dict[str, Callable[..., Any]] = {"read": read, "judge": judge, "test": run_tests}


def main() -> None:
    """Answer until there are no more requests; ends when the parent does."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (spent, resource.RLIM_INFINITY))
        try:
            request = json.loads(line)
            answer = {"value": _ACTIONS[request.pop("action")](**request)}
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # a panic of the engine is no Exception
            answer = {"error": _words(error)}
        text = json.dumps(answer)
        if len(text) > MAX_ANSWER:
            text = json.dumps({"error": f"the answer has {len(text)} characters, the limit is {MAX_ANSWER}"})
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
