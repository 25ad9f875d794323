"""The Linux system calls that confine a process; Python 3.11 offers none of them.

Every function raises ``OSError`` when the kernel says no, so that the caller can fall back to less
and say honestly what it got.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

# Values of linux/sched.h, linux/mount.h, linux/prctl.h, linux/fcntl.h and linux/landlock.h.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH, _AT_FDCWD, _AT_RECURSIVE = 2, -100, 0x8000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_RULE_PATH_BENEATH = 1

_NUMBERS = {  # system call numbers of linux/unistd.h
    "x86_64": {"pivot_root": 155, "capset": 126},
    "aarch64": {"pivot_root": 41, "capset": 91},
}
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446  # everywhere

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str, path: str | Path = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", str(path))
    return result


def _number(name: str) -> int:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(f"no system call numbers for {machine} are known here")
    return _NUMBERS[machine][name]


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags``; in a new user namespace keep the same user."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(flags), "unshare")
    if flags & CLONE_NEWUSER:
        with contextlib.suppress(OSError):  # kernels before 3.19 have no such file
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a file system or a folder at ``target``."""
    arguments = [os.fsencode(str(value)) or None for value in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None), "mount", target)


def bind(source: str | Path, target: str | Path) -> None:
    """Make a file or folder, with what is mounted below it, visible at ``target``."""
    mount(source, target, flags=MS_BIND | MS_REC)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def restrict_mount(path: str | Path, flags: int, *, below: bool = True) -> None:
    """Add ``MS_RDONLY``, ``MS_NOSUID``, ``MS_NODEV`` to a mount and to those below it (Linux 5.12)."""
    attributes = _MountAttributes(attr_set=flags)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    reach = _AT_RECURSIVE if below else 0
    where = os.fsencode(str(path))
    result = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, where, reach, ctypes.byref(attributes), size)
    _check(result, "mount_setattr", path)


def change_root(folder: str | Path) -> None:
    """Make ``folder``, a mount, the root and let go of the old one."""
    os.chdir(folder)
    _check(_libc.syscall(_number("pivot_root"), b".", b"."), "pivot_root", folder)
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def drop_privileges() -> None:
    """Give up every capability for good: what was mounted cannot be unmounted any more."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # past the last one this kernel knows, or not ours to drop
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    _check(_libc.syscall(_number("capset"), header, empty), "capset")


def become(user: int) -> None:
    """Be a user that owns nothing, for good; changing from root also takes every capability away."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def no_new_privileges() -> None:
    """Make set-uid programs powerless; also what the kernel asks for before it takes a filter."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_FOLDER
_FILE_ACCESS = _EXECUTE | 1 << 1 | _READ_FILE | 1 << 14 | 1 << 15  # the rest has meaning for folders only
_LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # file rights by version; 16 since version 5
_SCOPED, _SCOPED_SINCE = 3, 6  # no signals and no abstract sockets to processes outside


def landlock(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Put all files out of reach but those below ``readable`` and ``writable`` (Linux 5.13)."""
    version = _check(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1), "landlock")
    everything = (1 << _LANDLOCK_RIGHTS.get(version, 16)) - 1
    rules = _RulesetAttributes(fs=everything, scoped=_SCOPED if version >= _SCOPED_SINCE else 0)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE, ctypes.byref(rules), size, 0), "landlock")
    try:
        for paths, access in ((readable, _READ), (writable, everything)):
            for path in paths:
                _allow(ruleset, path, access & everything)
        _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        wanted = access if Path(path).is_dir() else access & _FILE_ACCESS
        rule = _PathBeneath(access=wanted, parent=parent)
        result = _libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        _check(result, "landlock", path)
    finally:
        os.close(parent)
