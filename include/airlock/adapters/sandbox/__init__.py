"""Runs untrusted models in a process of their own (requirement G-8).

What keeps a model in, from the strongest layer to the weakest; each is used where the system offers it,
and ``SandboxResult.isolation`` names those that were in force:

- ``bwrap`` (bubblewrap), else ``unshare``: no network, a process table of its own, and a file system
  with nothing but Python, the inputs and one writable folder;
- ``landlock``: where neither can be had, such as in most containers, the kernel still puts all other
  files out of reach;
- ``seccomp``: no sockets, no new processes, no signals or memory of other processes;
- a user that owns nothing, when the worker runs as root and the namespaces are in force;
- always: an empty environment, limits of memory, CPU time, file size and open files, a wall clock, and
  a process group that is killed as a whole, also when the process that started it dies.

macOS has only the last of these. ``SandboxResult.level`` sums it up (``core/policy.py`` defines the levels),
and a job can demand one. What a job asks for and is not given is refused and comes back in ``attempts``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airlock.adapters.sandbox.command import (
    bubble_command,
    bubblewrap,
    environment,
    own_user,
    readable_paths,
    site_packages,
    view,
)
from airlock.adapters.sandbox.inside.confine import give
from airlock.adapters.sandbox.outcome import attempts_of, isolation_of, refuse_failure
from airlock.adapters.sandbox.staging import copy_in, copy_out, disk_errors
from airlock.adapters.sandbox.supervise import Ended, supervise
from airlock.core.errors import InvalidInputError
from airlock.ports import SandboxRequest, SandboxResult

LAYERS = ("bwrap", "unshare", "landlock", "seccomp")
"""Everything that can be layered around a process, in the order of preference."""

_HERE = Path(__file__).parent
_INPUT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ProcessSandbox:
    """Runs a job in a confined process.

    Args:
        hidden: folders with secrets or state, kept out of reach where they lie beside something visible.
        runner: script that runs the job; it finds ``job.json`` and ``inputs/`` in its working folder
            and writes to ``output/``.
        layers: which of ``LAYERS`` may be used; leaving some out is for tests.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[Path] = (),
        runner: Path = _HERE / "runner.py",
        layers: Sequence[str] = LAYERS,
    ) -> None:
        self._hidden = [str(Path(path).resolve()) for path in hidden]
        self._runner = runner.resolve()
        self._layers = [layer for layer in LAYERS if layer in layers]

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        """Run the job and leave its files in ``output``.

        Raises:
            SandboxError: the job raised, was killed, ran out of time, memory or output, or the
                isolation that was asked for cannot be had.
            InvalidInputError: an input is missing or has no usable name.
            UnavailableError: the disk is full.
        """
        with disk_errors(tempfile.gettempdir()):
            base = Path(tempfile.mkdtemp(prefix="airlock-sandbox-")).resolve()
            try:
                self._prepare(request, base / "work")
                ended, isolation, level = self._start(request, base)
                refuse_failure(request, ended, base / "work" / "output")
                copy_out(base / "work" / "output", output)
            finally:
                _remove(base)
        return SandboxResult(
            isolation=isolation,
            level=level,
            attempts=attempts_of(ended),
            seconds=ended.seconds,
            stdout=ended.stdout,
            stderr=ended.stderr,
        )

    def _prepare(self, request: SandboxRequest, work: Path) -> None:
        for folder in ("inputs", "output", "scratch"):
            (work / folder).mkdir(parents=True)
        for name, source in request.inputs.items():
            if not _INPUT_NAME.fullmatch(name):
                raise InvalidInputError(f"{name!r} cannot be the name of a sandbox input")
            copy_in(Path(source), work / "inputs" / name)
        (work / "job.json").write_text(json.dumps(request.job))

    def _start(self, request: SandboxRequest, base: Path) -> tuple[Ended, list[str], str]:
        ended = supervise(
            self._command(request, base),
            work=base / "work",
            environment=environment(base / "work" / "scratch"),
            seconds=request.seconds,
            output_bytes=request.output_mb << 20,
        )
        return ended, *isolation_of(ended, request.require_level)

    def _command(self, request: SandboxRequest, base: Path) -> list[str]:
        """Write ``confine.json`` and return the command that reads it."""
        (base / "root").mkdir()
        own = [str(Path(request.packages).resolve())] if request.packages else []
        seen = view([*readable_paths(self._runner.parent), *own], self._hidden)
        user = own_user(seen) if {"bwrap", "unshare"} & {*self._layers} else 0
        bwrap = None
        if "bwrap" in self._layers:
            if user and (bwrap := bubblewrap(as_user=True)) is None:
                user = 0
            bwrap = bwrap or bubblewrap(as_user=False)
        used = [layer for layer in self._layers if layer != ("unshare" if bwrap else "bwrap")]
        config: dict[str, Any] = {
            "layers": used,
            "parent": os.getpid(),
            "user": user,
            "root": str(base / "root"),
            "work": str(base / "work"),
            "view": seen,
            "hidden": self._hidden,
            "packages": own,
            "site_packages": site_packages(),
            "runner": str(self._runner),
            "require_network_isolation": request.require_network_isolation,
            "require_level": request.require_level,
            "limits": {
                "memory_mb": request.memory_mb,
                "output_mb": request.output_mb,
                "cpu_seconds": math.ceil(request.seconds) * 2 + 1,
            },
        }
        path = base / "work" / "confine.json"
        path.write_text(json.dumps(config))
        path.chmod(0o644)
        if bwrap and user:
            give(str(base / "work"), user)
        python = [sys.executable, "-I", "-B", str(_HERE / "enter.py"), str(path)]
        if not bwrap:
            return python
        return [*bubble_command(bwrap, seen, base / "work", as_user=bool(user)), *python]


def _remove(base: Path) -> None:
    """Remove the job's folder, also when the job took its own permissions away."""
    for folder, folders, _ in os.walk(base):
        for name in folders:
            path = Path(folder, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(base, ignore_errors=True)
