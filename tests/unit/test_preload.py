"""What long-lived processes of Airflow import, so that the processes they fork need not."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from airlock.airflow import listener, preload

LOADED = """
import sys
from airlock.airflow.preload import PARSED, RUN, preload
assert preload("{command}", "{executor}") == []
wanted = {{"PARSED": PARSED, "RUN": RUN, "": ()}}["{wanted}"]
assert set(wanted) <= sys.modules.keys(), sorted(set(wanted) - sys.modules.keys())
print("sklearn" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.requirement("G-10")
@pytest.mark.parametrize(
    ("command", "executor", "wanted", "heavy"),
    [
        ("scheduler", "LocalExecutor", "RUN", True),
        ("dag-processor", "LocalExecutor", "PARSED", False),
        # Its tasks are no forks of the scheduler, which would only grow.
        ("scheduler", "CeleryExecutor", "", False),
        ("api-server", "LocalExecutor", "", False),
        ("", "LocalExecutor", "", False),
    ],
)
def test_each_process_imports_what_its_children_need(
    command: str, executor: str, wanted: str, heavy: bool
) -> None:
    code = LOADED.format(command=command, executor=executor, wanted=wanted)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(heavy), done.stderr


@pytest.mark.slow
def test_what_tasks_import_when_they_run_was_imported_before() -> None:
    """Operators import the services when they run, since whoever parses a DAG needs none of them."""
    imported = {
        statement.module
        for file in Path(listener.__file__).parent.glob("*.py")
        if file.name != "plugin.py"  # which the API server runs
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for statement in ast.walk(function)
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("airlock.")
    }
    assert len(imported) > 20
    code = LOADED.format(command="scheduler", executor="LocalExecutor", wanted="RUN")
    code += f"assert {imported!r} <= sys.modules.keys(), sorted({imported!r} - sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_imported_is_said_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preload, "PARSED", ("airlock.no_such_module", "json"))
    with caplog.at_level(logging.ERROR):
        assert preload.preload("dag-processor", "LocalExecutor") == ["airlock.no_such_module"]
    assert "airlock.no_such_module could not be imported beforehand" in caplog.text


def test_a_task_that_starts_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is a fork with the scheduler's arguments, and calls the same hook with a marker of its own."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(listener, "preload", lambda *words: asked.append(words))
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    listener.on_starting(SimpleNamespace())
    assert asked == []
    listener.on_starting(type("Job", (), {})())
    assert asked == [("scheduler", "LocalExecutor")]
