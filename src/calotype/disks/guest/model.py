"""What was found on a disk."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Word = Annotated[str, Meta(max_length=255)]  # of the guest's own: shown to people, compared, never run


class Guest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operating system. A word is empty where the system does not say it."""

    family: Literal["linux", "windows", "freebsd"]
    id: Word  # of os-release: "debian"; "windows"
    version_id: Word  # of os-release: "12"; of Windows "10.0.17763"
    version: Word  # of os-release, for people: "12 (bookworm)"; the service pack of Windows
    release: Word  # the most exact number: "12.5"; the build of Windows
    name: Word  # for people: "Debian GNU/Linux 12 (bookworm)"
    edition: Word  # of Windows: "ServerStandard"
    architecture: Literal["x86", "arm", "riscv", "ppc", "s390", "other", ""]
    bits: Literal[0, 32, 64]  # of the programs on it; 0: not known
    firmware: Literal["bios", "uefi", "both", ""]  # what finds something to start on the disk
    root_filesystem: Word  # "ext4"
