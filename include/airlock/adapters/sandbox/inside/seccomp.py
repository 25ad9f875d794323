"""A system call filter: no sockets, no new processes, no hold on other processes.

It needs no privileges and works in containers where namespaces are refused, so it is what keeps a
model off the network there. Threads stay possible, because OpenMP and BLAS need them.

Where the kernel offers it (Linux 5.0), refused calls are not answered by the filter itself but handed to
the process outside, which refuses them and writes down what was tried: a model cannot forge or hide that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

# Name: number on x86_64, number on aarch64 (linux/unistd.h); None where there is no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # the network; io_uring opens sockets without the call `socket`
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    # new processes and programs; `clone` is looked at below
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # leaving the process group that is killed in the end
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # other processes: signals, memory, file descriptors
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    # memory that outlives the process or escapes its limit
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    # mounts, namespaces, keys, and corners of the kernel with a history of holes
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
_CLONE, _CLONE3, _PRCTL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (157, 167), (234, 131), (302, 261)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # linux/audit.h
_X32 = 0x40000000  # the same calls under other numbers, on x86_64 only
_CLONE_THREAD, _PR_SET_PDEATHSIG = 0x10000, 1
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO, _KILL, _NOTIFY = 0x7FFF0000, 0x00050000, 0x80000000, 0x7FC00000  # linux/seccomp.h
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data
_SECCOMP_SET_MODE_FILTER, _PR_SET_SECCOMP = 2, 22
_SECCOMP, _SET_FILTER, _NEW_LISTENER = (317, 277), 1, 1 << 3

_NETWORK = ("socket", "io_uring_setup")
_PROCESSES = ("fork", "vfork", "execve", "execveat", "clone", "setsid", "setpgid")
_OTHERS = (
    *("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal"),
    *("pidfd_getfd", "ptrace", "process_vm_readv", "process_vm_writev", "prlimit64"),
)
_MEMORY = ("shmget", "semget", "msgget", "mq_open", "memfd_create")

_Instruction = tuple[int, int, int, int]


def what_was_tried(number: int) -> str:
    """A refused system call in words, such as ``use the network (socket)``."""
    column = _ARCHITECTURES.get(os.uname().machine, (0, 0))[0]
    looked_at = {"clone": _CLONE, "tgkill": _TGKILL, "prlimit64": _PRLIMIT}
    names = [name for name, numbers in {**_REFUSED, **looked_at}.items() if numbers[column] == number]
    name = names[0] if names else f"system call {number}"
    for words, calls in (
        ("use the network", _NETWORK),
        ("start a process", _PROCESSES),
        ("reach another process", _OTHERS),
        ("share memory", _MEMORY),
    ):
        if name in calls:
            return f"{words} ({name})"
    return f"change the system ({name})"


def refuse_escapes(*, listen: bool = False) -> int | None:
    """Install the filter for this process and all its threads, for good.

    With ``listen`` the refused calls wait for an answer from whoever holds the file descriptor that is
    returned; ``None`` where the kernel has none, and the filter refuses by itself.

    Raises:
        OSError: this kernel or processor has no filter for it.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(f"no system call numbers for {machine} are known here")
    column, architecture = _ARCHITECTURES[machine]
    libc = ctypes.CDLL(None, use_errno=True)
    if listen:
        pointer, _kept = _packed(_program(column, architecture, _NOTIFY))
        listener = libc.syscall(_SECCOMP[column], _SET_FILTER, _NEW_LISTENER, pointer)
        if listener >= 0:
            return int(listener)
    pointer, _kept = _packed(_program(column, architecture, _ERRNO | errno.EPERM))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_SET_MODE_FILTER, pointer, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "seccomp: the kernel refuses the filter")
    return None


def _packed(program: list[_Instruction]) -> tuple[bytes, object]:
    """The kernel's struct sock_fprog, and the memory it points to, which must be kept until it was read."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    return struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer)), buffer


def _program(column: int, architecture: int, refusal: int) -> list[_Instruction]:
    """The filter in the instructions of the kernel: load, compare, return."""
    refuse = (_RETURN, 0, 0, refusal)
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    if column == 0:
        program += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            program += [(_JUMP_EQUAL, 0, 1, number), refuse]
    # The C library falls back from clone3, whose flags a filter cannot see, to clone.
    program += [(_JUMP_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    program += _when(_CLONE[column], (_JUMP_BITS, 1, 0, _CLONE_THREAD), refusal)
    program += _when(_TGKILL[column], (_JUMP_EQUAL, 1, 0, os.getpid()), refusal)  # abort() signals itself
    program += _when(_PRLIMIT[column], (_JUMP_EQUAL, 1, 0, 0), refusal)  # its own limits only
    program += _when(_PRCTL[column], (_JUMP_EQUAL, 0, 1, _PR_SET_PDEATHSIG), _ERRNO | errno.EPERM)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _when(number: int, test: _Instruction, refusal: int) -> list[_Instruction]:
    """For one system call, refuse unless the test of its first argument jumps over the refusal."""
    return [
        (_JUMP_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        test,
        (_RETURN, 0, 0, refusal),
        (_RETURN, 0, 0, _ALLOW),
    ]
