"""The system calls a sandboxed program never gets: a seccomp filter, assembled by hand.

A list of refusals as Docker's default profile makes it (mounts, namespaces, modules, keyrings, bpf, io_uring, perf,
clocks, handles), for bubblewrap's `--seccomp`.  libseccomp's Python binding is built against its headers, which a
machine that only runs the gateway does not have; the program below is three dozen comparisons and needs nothing.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # offsets in struct seccomp_data, low words
_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag that clone() knows
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # type into, or paste into, a terminal that is not one's own


@dataclass(frozen=True, slots=True)
class _Machine:
    architecture: int
    clone: int
    ioctl: int
    sched_setaffinity: int
    refused: tuple[int, ...]


_CLONE3 = 435
# io_uring, and the new mount calls: the same numbers on every architecture.
_COMMON = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442)
_X86_64 = (
    134, 136, 139, 155, 156, 161, 163, 164, 165, 166, 167, 168, 169, 174, 175, 176, 177, 178, 179, 180, 212,
    227, 237, 238, 246, 248, 249, 250, 272, 279, 298, 303, 304, 305, 308, 313, 320, 321, 323,
)  # fmt: skip
_AARCH64 = (
    18, 39, 40, 41, 42, 51, 60, 89, 97, 104, 105, 106, 112, 142, 170, 217, 218, 219, 224, 225, 235, 237, 239,
    241, 264, 265, 266, 268, 273, 280, 282, 294,
)  # fmt: skip
_MACHINES = {
    "x86_64": _Machine(
        architecture=0xC000003E,
        clone=56,
        ioctl=16,
        sched_setaffinity=203,
        refused=_X86_64,
    ),
    "aarch64": _Machine(
        architecture=0xC00000B7,
        clone=220,
        ioctl=29,
        sched_setaffinity=122,
        refused=_AARCH64,
    ),
}


def program(*, pin_cores: bool) -> bytes | None:
    """The compiled filter, or None on a machine whose numbers are not known here.

    `pin_cores` refuses sched_setaffinity too: where no cgroup limits the cpu, the cores a workspace is pinned to do.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return None
    refused = machine.refused + _COMMON + ((machine.sched_setaffinity,) if pin_cores else ())
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, machine.architecture, 1, 0),
        _refuse(errno.ENOSYS),  # 32-bit calls would have other numbers
        _step(_LOAD, _NUMBER),
        _step(_JUMP_GREATER_EQUAL, 0x40000000, 0, 1),
        _refuse(errno.ENOSYS),  # so would x32
        _step(_JUMP_EQUAL, _CLONE3, 0, 1),
        _refuse(errno.ENOSYS),  # its flags are behind a pointer, where no filter sees them: libc falls back to clone
    ]
    for number in refused:
        code += [_step(_JUMP_EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    code += [
        _step(_JUMP_EQUAL, machine.clone, 0, 4),
        _step(_LOAD, _ARGUMENT_0),
        _step(_JUMP_BITS, _NEW_NAMESPACE, 0, 1),
        _refuse(errno.EPERM),
        _step(_RETURN, _ALLOW),
        _step(_JUMP_EQUAL, machine.ioctl, 0, 4),
        _step(_LOAD, _ARGUMENT_1),
        _step(_JUMP_EQUAL, _TIOCSTI, 1, 0),
        _step(_JUMP_EQUAL, _TIOCLINUX, 0, 1),
        _refuse(errno.EPERM),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def _step(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when, otherwise, value)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)
