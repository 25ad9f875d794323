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
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

NOT_CONFINED = 125
"""Exit code of a process that ended because it could not be confined as demanded."""

LEVELS = ("none", "process", "filter", "namespace", "full")
"""How far a job is isolated, from the weakest; each level holds everything of those before it.

``process``: a process of its own with an empty environment and limits. ``filter``: no network, no new
processes, no files of others, by the kernel's filters. ``namespace``: the same by namespaces as well, so that
the job sees neither processes nor files nor network devices. ``full``: and not as root.
"""

_OPEN_FILES = 256
_PROCESSES = 128  # threads count too: Arrow and BLAS start some
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NO_DISK = "size=4k,mode=0500"
_SMALL_DISK = "size=16m,mode=1777"
_OTHER_FILES = ("read-only files", "other files out of reach")


def confine(config: dict[str, Any], report: int) -> None:
    """Confine this process as far as ``config["layers"]`` and the system allow.

    Where namespaces are used, it returns in a grandchild, and the processes before it end with the
    same exit status.
    """
    claims, listener = ["own process", "no environment"], None
    if sys.platform == "linux":
        found, listener = _linux(config)
        claims += found
    claims.append(_limit_resources(config["limits"], own_user="own user" in claims))
    level = level_of(claims)
    if config["require_network_isolation"] and not any(claim.startswith("no network") for claim in claims):
        _say(report, {"refused": "network"})
        os._exit(NOT_CONFINED)
    if LEVELS.index(level) < LEVELS.index(config["require_level"]):
        _say(report, {"refused": "level", "level": level, "isolation": claims})
        os._exit(NOT_CONFINED)
    os.chdir(config["work"])
    _say(report, {"isolation": claims, "level": level}, listener)


def level_of(claims: list[str]) -> str:
    """The highest of ``LEVELS`` of which everything is in force."""

    def has(*wanted: str) -> bool:
        return all(any(claim.startswith(start) for claim in claims) for start in wanted)

    steps = (
        has("own process", "no environment", "resource limits"),
        has("no network", "other files out of reach", "no new processes"),
        has("own process table") and not has("other files out of reach (landlock)"),
        has("own user") or has("not root"),
    )
    return LEVELS[steps.index(False) if False in steps else len(steps)]


def _say(report: int, message: dict[str, Any], listener: int | None = None) -> None:
    with socket.socket(fileno=report) as channel:
        handles = [] if listener is None else [listener]
        socket.send_fds(channel, [json.dumps(message).encode() + b"\n"], handles)
    for handle in handles:
        os.close(handle)


def _linux(config: dict[str, Any]) -> tuple[list[str], int | None]:
    kernel = importlib.import_module("inside.kernel")
    layers, claims, listener = config["layers"], [], None
    root = os.getuid() == 0
    if "bwrap" in layers:
        claims = _namespace_claims("bwrap", _OTHER_FILES)
        if config["user"]:
            kernel.become(config["user"])
    else:
        kernel.die_with_parent()
        if os.getppid() != config["parent"]:
            os._exit(NOT_CONFINED)  # the parent ended before the line above could bind this process to it
        if "unshare" in layers:
            claims = _enter_namespaces(config)
    claims += ["own user"] if root and os.getuid() else [] if root else ["not root"]
    kernel.no_new_privileges()
    if "landlock" in layers and not any(claim.startswith("read-only files") for claim in claims):
        claims += _landlock(kernel, config)
    if "seccomp" in layers:
        found, listener = _seccomp(network=not any(claim.startswith("no network") for claim in claims))
        claims += found
    return claims, listener


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


def _seccomp(*, network: bool) -> tuple[list[str], int | None]:
    try:
        listener = importlib.import_module("inside.seccomp").refuse_escapes(listen=True)
    except OSError:
        return [], None
    claims = [*(["no network (seccomp)"] if network else []), "no new processes (seccomp)"]
    return [*claims, *(["refused calls are recorded (seccomp)"] if listener is not None else [])], listener


def _limit_resources(limits: dict[str, int], *, own_user: bool) -> str:
    wanted = {
        "memory": (resource.RLIMIT_AS, limits["memory_mb"] << 20),
        "CPU time": (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        "file size": (resource.RLIMIT_FSIZE, limits["output_mb"] << 20),
        "open files": (resource.RLIMIT_NOFILE, _OPEN_FILES),
        "core files": (resource.RLIMIT_CORE, 0),
    }
    # The kernel counts all processes of a user, so that this limit means something only for its own user.
    if own_user:
        wanted["processes"] = (resource.RLIMIT_NPROC, _PROCESSES)
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
    ways = [(True, True), (False, True), (True, False), (False, False)]
    if config[
        "user"
    ]:  # as root there is no need of a user namespace, and without one there is a user to become
        ways = [(False, True), (True, True), (False, False), (True, False)]
    for user, files in ways:
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
        own_user = config["user"] if files and not user else 0
        if own_user:
            give(config["work"], own_user)
        reach = (_build_root if files else _cover)(kernel, config)
        if own_user:
            kernel.become(own_user)
        kernel.drop_privileges()
        kernel.die_with_parent()  # again: the kernel forgets it when privileges change
        os.write(writing, b"1")  # fails when the processes before this one are gone
    except OSError:
        if config["user"]:
            give(config["work"], 0)
        os._exit(NOT_CONFINED)
    os.close(writing)
    return _namespace_claims("unshare", reach)


def give(folder: str, user: int) -> None:
    """Make a folder and all in it the user's, links themselves and not what they point to."""
    with contextlib.suppress(OSError):  # whoever may not give it away need not
        os.chown(folder, user, user)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(parent, name), user, user, follow_symlinks=False)


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
    os.umask(0o022)  # folders that lead to what is shown must lead another user there too
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
