"""The filter of system calls, run by a small interpreter of its own."""

import errno
import struct
from typing import Final

import pytest

from calotype.disks.seccomp import ALLOW, ARCHITECTURES, ERRNO, KILL, Architecture, filter_program

EPERM: Final = ERRNO | errno.EPERM


def verdict(program: bytes, audit: int, number: int, argument: int = 0) -> int:
    """What the kernel would do with the call."""
    data = struct.pack("=IIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    steps = list(struct.iter_unpack("=HBBI", program))
    at, register = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
            at += 1
            continue
        true = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
        at += 1 + (then if true else otherwise)


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def architecture(machine: str) -> Architecture:
    return ARCHITECTURES[machine]


def test_every_named_call_is_refused_and_its_neighbours_are_not(machine: str, architecture: Architecture) -> None:
    program = filter_program(machine)
    special = {architecture.clone3, architecture.socket}

    for number in range(500):
        expected = EPERM if number in architecture.refused.values() else ALLOW
        if number not in special:
            assert verdict(program, architecture.audit, number) == expected, number


def test_another_architecture_ends_the_process(machine: str, architecture: Architecture) -> None:
    assert verdict(filter_program(machine), 0x40000003, 1) == KILL


def test_the_second_abi_of_x86_64_is_refused() -> None:
    assert verdict(filter_program("x86_64"), ARCHITECTURES["x86_64"].audit, 0x40000000 | 101) == EPERM


def test_threads_can_be_started_and_namespaces_cannot(machine: str, architecture: Architecture) -> None:
    program, audit = filter_program(machine), architecture.audit

    assert verdict(program, audit, architecture.clone, 0x3D0F00) == ALLOW  # as pthread_create does
    assert verdict(program, audit, architecture.clone, 0x01200011) == ALLOW  # as fork does
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        assert verdict(program, audit, architecture.clone, bit) == EPERM
    assert verdict(program, audit, architecture.clone3) == ERRNO | errno.ENOSYS


def test_only_local_sockets_can_be_made(machine: str, architecture: Architecture) -> None:
    program, audit = filter_program(machine), architecture.audit

    assert verdict(program, audit, architecture.socket, 1) == ALLOW
    for family in (2, 10, 16, 17, 40):
        assert verdict(program, audit, architecture.socket, family) == ERRNO | errno.EAFNOSUPPORT


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert filter_program("vax") == b""
