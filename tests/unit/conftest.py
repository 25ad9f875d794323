"""Fixtures of tests that need no real system."""

from __future__ import annotations

import sys

import pytest

from airlock.cli import main
from airlock.cli.output import console
from tests.support.commands import Cli, Result


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``airlock`` in this process, through its real entry point."""
    monkeypatch.setattr(console, "_width", 200)  # tables fold texts to the width of the terminal

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["airlock", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run
