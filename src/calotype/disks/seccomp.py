"""A filter of system calls for the sandbox's children, as the classic BPF program that Linux takes.

It refuses what no converter of disk images needs and what holes in kernels were reached through: tracing others,
keys, BPF, io_uring, mounts, namespaces, modules, clocks, handles, and every socket but those of AF_UNIX.
Sources: Linux, Documentation/userspace-api/seccomp_filter.rst, and the tables of system calls of each architecture.
"""

import errno
import platform
import struct
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

# Instructions: load a word of `struct seccomp_data`, jump, return.
LOAD, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # the argument's low word, on a little-endian machine
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

NEW_NAMESPACES: Final = 0x7E020000 | 0x80  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET; CLONE_NEWTIME
UNIX: Final = 1  # AF_UNIX
X32: Final = 0x40000000  # numbers from here on are x86-64's second ABI, which would go round the filter

# The same numbers on every architecture that came late enough.
NEWER: Final[Mapping[str, int]] = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip


class Architecture(Struct, frozen=True, kw_only=True):
    audit: int  # how `seccomp_data` names it
    refused: Mapping[str, int]
    clone: int
    clone3: int
    socket: int
    has_x32: bool = False


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "x86_64": Architecture(
        audit=0xC000003E, clone=56, clone3=435, socket=41, has_x32=True,
        refused={
            "ptrace": 101, "syslog": 103, "personality": 135, "modify_ldt": 154, "pivot_root": 155, "adjtimex": 159,
            "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
            "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176,
            "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
            "request_key": 249, "keyctl": 250, "unshare": 272, "vmsplice": 278, "perf_event_open": 298,
            "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
            "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
            "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, **NEWER,
        },
    ),
    "aarch64": Architecture(
        audit=0xC00000B7, clone=220, clone3=435, socket=198,
        refused={
            "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "quotactl": 60,
            "vmsplice": 75, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
            "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142,
            "settimeofday": 170, "adjtimex": 171, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224,
            "swapoff": 225, "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265,
            "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
            "finit_module": 273, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294, **NEWER,
        },
    ),
}  # fmt: skip


def filter_program(machine: str | None = None) -> bytes:
    """The program for this machine (or the named one); empty where its system calls are not known here."""
    architecture = ARCHITECTURES.get(platform.machine() if machine is None else machine)
    return b"" if architecture is None else _program(architecture)


def _program(architecture: Architecture) -> bytes:
    refuse, allow = _return(ERRNO | errno.EPERM), _return(ALLOW)
    steps = [
        _load(ARCHITECTURE_AT),
        _jump(JUMP_EQUAL, architecture.audit, then=1, otherwise=0),
        _return(KILL),
        _load(NUMBER_AT),
    ]
    if architecture.has_x32:
        steps += [_jump(JUMP_GREATER_OR_EQUAL, X32, then=0, otherwise=1), refuse]
    for number in sorted(architecture.refused.values()):
        steps += [_jump(JUMP_EQUAL, number, then=0, otherwise=1), refuse]
    steps += [
        # Its flags are in memory, where no filter can look: without it, the C library uses clone.
        _jump(JUMP_EQUAL, architecture.clone3, then=0, otherwise=1),
        _return(ERRNO | errno.ENOSYS),
        _jump(JUMP_EQUAL, architecture.clone, then=0, otherwise=4),
        _load(FIRST_ARGUMENT_AT),
        _jump(JUMP_IF_SET, NEW_NAMESPACES, then=0, otherwise=1),
        refuse,
        allow,
        _jump(JUMP_EQUAL, architecture.socket, then=0, otherwise=3),
        _load(FIRST_ARGUMENT_AT),
        _jump(JUMP_EQUAL, UNIX, then=1, otherwise=0),
        _return(ERRNO | errno.EAFNOSUPPORT),
        allow,
    ]
    return b"".join(steps)


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", LOAD, 0, 0, offset)


def _jump(test: int, value: int, *, then: int, otherwise: int) -> bytes:
    """`then` and `otherwise` are how many instructions to skip."""
    return struct.pack("=HBBI", test, then, otherwise, value)


def _return(action: int) -> bytes:
    return struct.pack("=HBBI", RETURN, 0, 0, action)
