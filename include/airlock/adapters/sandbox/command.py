"""What a job sees of the machine: its environment, the folders Python needs, and bubblewrap's arguments."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_THREADS = 1  # sums over threads differ in their last bits: one thread gives the same bytes each time
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
)


def environment(scratch: Path) -> dict[str, str]:
    """All a job sees of the environment; nothing is inherited but where libraries are."""
    folders = ("HOME", "TMPDIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    inherited = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "LOKY_MAX_CPU_COUNT": str(_THREADS),
        # Arrow's own allocator reserves 1 GB of addresses at once, which the memory limit counts
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        # shap compiles with numba for 6 s what then runs for milliseconds; interpreted it gives the same
        "NUMBA_DISABLE_JIT": "1",
        **dict.fromkeys(folders, str(scratch)),
        **dict.fromkeys(threads, str(_THREADS)),
        **{name: os.environ[name] for name in inherited if name in os.environ},
    }


@cache
def site_packages() -> list[str]:
    """Where packages are, for installations that ``python -I`` alone does not find (``~/.local``)."""
    return [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]


@cache
def readable_paths(runner: Path) -> list[str]:
    """What Python needs to run: folders that hold programs and no data."""
    program, hops = Path(sys.executable), set()
    while program.is_symlink() and program not in hops:
        hops.add(program)
        program = program.parent / program.readlink()
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, *site_packages()]
    prefixes += [str(path.parent) for path in (*hops, program)]
    prefixes += [
        path for key, path in sysconfig.get_paths().items() if key in {"stdlib", "purelib", "platlib"}
    ]
    prefixes += [str(_HERE), str(runner)]
    found = {os.path.normpath(path) for prefix in prefixes for path in (prefix, Path(prefix).resolve())}
    return [*_SYSTEM, *sorted(found - {"/"})]


def view(readable: Sequence[str], hidden: Sequence[str]) -> list[tuple[str, str]]:
    """What to ``show`` and what to ``cover`` with an empty folder, from the outside in.

    Laws: nothing is shown twice, nothing is covered that is not shown anyway, and what Python needs
    is visible even when it lies in a folder that is hidden.
    """
    wanted = {**dict.fromkeys(hidden, "cover"), **dict.fromkeys(readable, "show")}
    kept: dict[str, str] = {}
    for path in sorted(wanted, key=lambda path: len(Path(path).parts)):
        around = next((kept[str(parent)] for parent in Path(path).parents if str(parent) in kept), "cover")
        if wanted[path] != around:
            kept[path] = wanted[path]
    return [(kind, path) for path, kind in kept.items()]


def own_user(seen: Sequence[tuple[str, str]]) -> int:
    """A user that owns nothing, for a worker that runs as root; 0 where none can be had.

    From the range that systemd gives to services without a user of their own (61184 to 65519), which no
    person and no package has. Two jobs that happen to get the same one still see nothing of each other.
    """
    if sys.platform != "linux" or os.getuid() != 0:
        return 0
    shown = [Path(path) for kind, path in seen if kind == "show" and Path(path).is_dir()]
    if not all(path.stat().st_mode & _OTHERS_READ == _OTHERS_READ for path in shown):
        return 0  # Python lies where only root can read it
    return _FIRST_USER + secrets.randbelow(_USERS)


_OTHERS_READ = 0o005
_FIRST_USER, _USERS = 61184, 65519 - 61184 + 1
_SMALL_DISK = 16 << 20


@cache
def bubblewrap(*, as_user: bool) -> str | None:
    """Path of bubblewrap, when it is installed and works here: many containers refuse what it needs."""
    program = shutil.which("bwrap")
    if program is None or sys.platform != "linux":
        return None
    with tempfile.TemporaryDirectory(prefix="airlock-probe-") as folder:
        (Path(folder) / "inputs").mkdir()
        body = f"import os; os.setgroups([]); os.setgid({_FIRST_USER}); os.setuid({_FIRST_USER})"
        command = [
            *bubble_command(program, view(readable_paths(_HERE), []), Path(folder), as_user=as_user),
            *(sys.executable, "-I", "-S", "-c", body if as_user else ""),
        ]
        try:
            trial = subprocess.run(command, env={}, capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
    return program if trial.returncode == 0 else None


def bubble_command(
    program: str, seen: Sequence[tuple[str, str]], work: Path, *, as_user: bool = False
) -> list[str]:
    """The bubblewrap command line in front of Python's.

    ``as_user`` leaves Python the right to become another user, which it gives up by doing so; without a user
    namespace, in which there would be no other.
    """
    unshare = ("ipc", "pid", "net", "uts", "cgroup-try") if as_user else ("all",)
    command = [program, *(f"--unshare-{name}" for name in unshare), "--die-with-parent", "--cap-drop", "ALL"]
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if as_user else []
    command += _small_disk("/tmp")  # noqa: S108 - new, empty and small
    for path in _folders_around([path for _, path in seen] + [str(work)]):
        command += ["--perms", "0755", "--dir", path]  # else only root may go through them
    for kind, path in seen:
        if kind == "cover":
            command += ["--tmpfs", path] if Path(path).is_dir() else []
        elif Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        else:
            command += ["--ro-bind-try", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", *_small_disk("/dev/shm"), "--remount-ro", "/dev"]  # noqa: S108
    command += ["--bind", str(work), str(work)]
    command += ["--ro-bind", str(work / "inputs"), str(work / "inputs"), "--remount-ro", "/"]
    return [*command, "--chdir", str(work)]


def _folders_around(paths: Sequence[str]) -> list[str]:
    """Folders that exist only to lead to what is shown: those that lie in nothing that is shown itself."""
    around = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
    shown = [Path(path) for path in paths]
    return sorted(path for path in around if not any(Path(path).is_relative_to(other) for other in shown))


def _small_disk(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(_SMALL_DISK), "--tmpfs", path]
