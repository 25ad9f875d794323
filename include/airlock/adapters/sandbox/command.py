"""What a job sees of the machine: its environment, the folders Python needs, and bubblewrap's arguments."""

from __future__ import annotations

import os
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


@cache
def bubblewrap() -> str | None:
    """Path of bubblewrap, when it is installed and works here: many containers refuse what it needs."""
    program = shutil.which("bwrap")
    if program is None or sys.platform != "linux":
        return None
    with tempfile.TemporaryDirectory(prefix="airlock-probe-") as folder:
        (Path(folder) / "inputs").mkdir()
        command = [
            *bubble_command(program, view(readable_paths(_HERE), []), Path(folder)),
            *(sys.executable, "-I", "-S", "-c", ""),
        ]
        try:
            trial = subprocess.run(command, env={}, capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
    return program if trial.returncode == 0 else None


def bubble_command(program: str, seen: Sequence[tuple[str, str]], work: Path) -> list[str]:
    """The bubblewrap command line in front of Python's."""
    command = [program, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--tmpfs", "/tmp"]  # noqa: S108
    for kind, path in seen:
        if kind == "cover":
            command += ["--tmpfs", path] if Path(path).is_dir() else []
        elif Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        else:
            command += ["--ro-bind-try", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--bind", str(work), str(work)]
    command += ["--ro-bind", str(work / "inputs"), str(work / "inputs"), "--remount-ro", "/"]
    return [*command, "--chdir", str(work)]
