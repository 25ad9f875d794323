"""Takes away from this process what a model has no business with, and says what it took away.

Every layer is tried and none is assumed: where the kernel or a container refuses one, the next best
is used, and only what is in force is reported. The report leaves through a pipe that is closed
before any code of a model runs, so a model cannot write it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

NOT_CONFINED = 125
"""Exit code of a process that ended because it could not be confined as demanded."""

_OPEN_FILES = 256
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NO_DISK = "size=4k,mode=0500"
_SMALL_DISK = "size=16m,mode=1777"
_OTHER_FILES = ("read-only files", "other files out of reach")


def confine(config: dict[str, Any], report: int) -> None:
    """Confine this process as far as ``config["layers"]`` and the system allow.

    Where namespaces are used, it returns in a grandchild, and the processes before it end with the
    same exit status.
    """
    claims = ["own process", "no environment"]
    if sys.platform == "linux":
        claims += _linux(config)
    claims.append(_limit_resources(config["limits"]))
    if config["require_network_isolation"] and not any(claim.startswith("no network") for claim in claims):
        _say(report, {"refused": "network"})
        os._exit(NOT_CONFINED)
    os.chdir(config["work"])
    _say(report, {"isolation": claims})


def _say(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")
    os.close(report)


def _linux(config: dict[str, Any]) -> list[str]:
    kernel = importlib.import_module("inside.kernel")
    layers, claims = config["layers"], []
    if "bwrap" in layers:
        claims = _namespace_claims("bwrap", _OTHER_FILES)
    else:
        kernel.die_with_parent()
        if os.getppid() != config["parent"]:
            os._exit(NOT_CONFINED)  # the parent ended before the line above could bind this process to it
        if "unshare" in layers:
            claims = _enter_namespaces(config)
    kernel.no_new_privileges()
    if "landlock" in layers and not any(claim.startswith("read-only files") for claim in claims):
        claims += _landlock(kernel, config)
    if "seccomp" in layers:
        claims += _seccomp(network=not any(claim.startswith("no network") for claim in claims))
    return claims


def _namespace_claims(tool: str, reach: tuple[str, ...]) -> list[str]:
    return [f"{claim} ({tool})" for claim in ("no network", "own process table", *reach)]


def _landlock(kernel: Any, config: dict[str, Any]) -> list[str]:
    readable = [path for kind, path in config["view"] if kind == "show"]
    readable += ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"]
    try:
        kernel.landlock(readable, [config["work"], *_DEVICES])
    except OSError:
        return []
    covers = any(kind == "cover" for kind, _ in config["view"])  # below a shown folder: not possible here
    return [f"{claim} (landlock)" for claim in _OTHER_FILES[: 1 if covers else 2]]


def _seccomp(*, network: bool) -> list[str]:
    try:
        importlib.import_module("inside.seccomp").refuse_escapes()
    except OSError:
        return []
    return [*(["no network (seccomp)"] if network else []), "no new processes (seccomp)"]


def _limit_resources(limits: dict[str, int]) -> str:
    wanted = {
        "memory": (resource.RLIMIT_AS, limits["memory_mb"] << 20),
        "CPU time": (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        "file size": (resource.RLIMIT_FSIZE, limits["output_mb"] << 20),
        "open files": (resource.RLIMIT_NOFILE, _OPEN_FILES),
        "core files": (resource.RLIMIT_CORE, 0),
    }
    missing = []
    for name, (kind, value) in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)  # noqa: PLW2901
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):  # macOS has no limit of address space
            missing.append(name)
    return f"resource limits except {', '.join(missing)}" if missing else "resource limits"


def _enter_namespaces(config: dict[str, Any]) -> list[str]:
    """Try the strongest way first; what fails costs two forks and leaves this process as it was."""
    for user, files in ((True, True), (False, True), (True, False), (False, False)):
        if claims := _attempt(config, user=user, files=files):
            return claims
    return []


def _attempt(config: dict[str, Any], *, user: bool, files: bool) -> list[str]:
    """Fork, unshare, fork: the second child is the first process of the new process table."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        if os.read(reading, 1):
            _end_like(child)
        os.close(reading)
        os.waitpid(child, 0)
        return []
    os.close(reading)
    kernel = importlib.import_module("inside.kernel")
    try:
        flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
        flags |= kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
        kernel.unshare(flags | (kernel.CLONE_NEWUSER if user else 0))
        kernel.die_with_parent()
        if child := os.fork():
            os.close(writing)
            _end_like(child)
        reach = (_build_root if files else _cover)(kernel, config)
        kernel.drop_privileges()
        kernel.die_with_parent()  # again: the kernel forgets it when privileges change
        os.write(writing, b"1")  # fails when the processes before this one are gone
    except OSError:
        os._exit(NOT_CONFINED)
    os.close(writing)
    return _namespace_claims("unshare", reach)


def _end_like(child: int) -> NoReturn:
    """Wait for a child, then end as it ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _cover(kernel: Any, config: dict[str, Any]) -> tuple[str, ...]:
    """Without a root of its own, at least put empty folders over those that hold secrets."""
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    needed = [config["work"], *(path for kind, path in config["view"] if kind == "show")]
    left_open = False
    for path in config["hidden"]:
        if any(Path(inside).is_relative_to(path) for inside in needed):
            left_open = True
        elif Path(path).is_dir():
            kernel.mount("tmpfs", path, "tmpfs", kernel.MS_RDONLY, _NO_DISK)
    return () if left_open else ("hidden folders out of reach",)


def _build_root(kernel: Any, config: dict[str, Any]) -> tuple[str, ...]:
    """A root with Python, the job's folder and nothing else; only the job's folder is writable."""
    root, work = config["root"], config["work"]
    nothing_special = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", nothing_special, "size=1m,mode=0755")
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - new, empty and small
        Path(root + folder).mkdir(parents=True)
        kernel.mount("tmpfs", root + folder, "tmpfs", nothing_special, _SMALL_DISK)
    covered = []
    for kind, path in config["view"]:
        if kind == "show" and Path(path).exists():
            _show(kernel, root, path, kernel.MS_RDONLY | nothing_special)
        elif kind == "cover" and Path(path).is_dir():
            kernel.mount("tmpfs", root + path, "tmpfs", nothing_special, _NO_DISK)
            covered.append(root + path)
    for device in _DEVICES:
        _show(kernel, root, device, 0)
    _show(kernel, root, work, nothing_special)
    _show(kernel, root, f"{work}/inputs", kernel.MS_RDONLY | nothing_special)
    Path(root, "proc").mkdir()
    with contextlib.suppress(OSError):  # refused in containers that mask parts of /proc
        kernel.mount("proc", f"{root}/proc", "proc", nothing_special | kernel.MS_NOEXEC)
    for path in (*covered, root):
        kernel.restrict_mount(path, kernel.MS_RDONLY, below=False)
    kernel.change_root(root)
    return _OTHER_FILES


def _show(kernel: Any, root: str, path: str, flags: int) -> None:
    source, target = Path(path), Path(root + path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():  # such as /lib, which is /usr/lib today
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    kernel.bind(source, target)
    if flags:
        kernel.restrict_mount(target, flags)
