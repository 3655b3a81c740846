"""The text in a VMDK image that says how it is made up. Source: VMware, "Virtual Disk Format 5.0"; QEMU, block/vmdk.c.

A line that is not understood is refused: what QEMU, VMware and this parser make of a descriptor must be the same.
"""

import re
from typing import Final

from msgspec import Struct

from calotype.errors import FormatMismatch, UnsafeDisk

MOST_BYTES: Final = 1024 * 1024  # of a descriptor; QEMU reads no more
MOST_LINES: Final = 1024
KINDS: Final = ("monolithicSparse", "streamOptimized")
REWRITE: Final = "write it as one file first: qemu-img convert -O vmdk -o subformat=streamOptimized DISK.vmdk ONE.vmdk"
# VMware's tools write neither of them into a disk that stands for itself.
POINTERS: Final = ("parentfilenamehint", "changetrackpath")

_FIELD: Final = re.compile(r"([a-z][a-z0-9_.]*)\s*=\s*(\"[^\"]*\"|[^\"]*)", re.IGNORECASE)
_EXTENT: Final = re.compile(r"(RW|RDONLY|NOACCESS)\s+(\d{1,19})\s+([A-Z0-9]+)(\s+.*)?", re.IGNORECASE)
_SPARSE_NAME: Final = re.compile(r'\s+"([^"/\\:]{1,255})"(\s+0)?')
_NUMBER: Final = re.compile(r"[0-9a-f]{1,8}", re.IGNORECASE)
_FIRST_LINE: Final = re.compile(rb"version\s*=\s*\d+\s*", re.IGNORECASE)


class Descriptor(Struct, frozen=True, kw_only=True):
    kind: str
    sectors: int  # of its only extent


def looks_like_descriptor(head: bytes) -> bool:
    """Whether a file that begins so would be taken for a descriptor by QEMU, or by a generous reader.

    QEMU skips comments and blank lines and then wants "version=".
    """
    start = head.lstrip().lower()
    if start.startswith(b"# disk descriptorfile"):
        return True
    for line in head.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#"):
            if _FIRST_LINE.fullmatch(stripped):
                return True
            break
    is_text = bool(head) and not any(byte < 32 and byte not in b"\t\n\r\f\v" for byte in head[:512])
    return is_text and re.search(rb"createtype\s*=", start) is not None


def parse(data: bytes) -> Descriptor:
    """The descriptor of an image that is one file. Raises `UnsafeDisk` if it names another, `FormatMismatch`."""
    text = _text(data)
    fields: dict[str, str] = {}
    extents: list[tuple[int, str, str]] = []
    for line in text:
        if not line or line.startswith("#"):
            continue
        extent = _EXTENT.fullmatch(line)
        field = _FIELD.fullmatch(line)
        if extent is not None:
            extents.append((int(extent[2]), extent[3].upper(), extent[4] or ""))
        elif field is not None:
            _add(fields, field[1].lower(), field[2].strip().strip('"'))
        else:
            raise UnsafeDisk("a VMDK image whose descriptor has a line that is not understood")
    return _checked(fields, extents)


def _text(data: bytes) -> list[str]:
    if b"parentfilenamehint" in data.lower():
        raise UnsafeDisk(f"a VMDK image that is a difference to another one; {REWRITE}")
    try:
        text = data.split(b"\0", 1)[0].decode("ascii")
    except UnicodeDecodeError:
        raise UnsafeDisk(f"a VMDK image whose descriptor is not plain ASCII; {REWRITE}") from None
    lines = text.replace("\r\n", "\n").replace("\t", " ").split("\n")
    if len(lines) > MOST_LINES:
        raise FormatMismatch(f"not a usable VMDK image: its descriptor has more than {MOST_LINES} lines")
    if not all(line.isprintable() for line in lines):
        raise UnsafeDisk("a VMDK image whose descriptor has control characters")
    return [line.strip() for line in lines]


def _add(fields: dict[str, str], name: str, value: str) -> None:
    if name in fields and not name.startswith("ddb."):
        raise UnsafeDisk(f"a VMDK image whose descriptor says {name} twice")
    if name in POINTERS:
        raise UnsafeDisk(f"a VMDK image that names another file ({name}); {REWRITE}")
    if name.startswith(("encryption", "keysafe")):
        raise UnsafeDisk("an encrypted VMDK image; decrypt it first")
    fields[name] = value


def _checked(fields: dict[str, str], extents: list[tuple[int, str, str]]) -> Descriptor:
    kinds = {kind.lower(): kind for kind in KINDS}
    wanted = fields.get("createtype")
    if wanted is None:
        raise FormatMismatch("not a usable VMDK image: its descriptor has no createType")
    if wanted.lower() not in kinds:
        known = wanted if re.fullmatch(r"\w{1,32}", wanted) else "an unknown kind"
        raise UnsafeDisk(f"a VMDK image of the kind {known}, whose data is in other files; {REWRITE}")
    # QEMU opens no image without either of them.
    if not _NUMBER.fullmatch(fields.get("cid", "")) or "parentcid" not in fields:
        raise FormatMismatch("not a usable VMDK image: its descriptor has no CID or no parentCID")
    if fields["parentcid"].lower() != "ffffffff":
        raise UnsafeDisk(f"a VMDK image that is a difference to another one; {REWRITE}")
    if len(extents) != 1:
        raise UnsafeDisk(f"a VMDK image of {len(extents)} extents; one is taken, in the file itself: {REWRITE}")
    sectors, kind, name = extents[0]
    if kind != "SPARSE" or _SPARSE_NAME.fullmatch(name) is None:
        raise UnsafeDisk(f"a VMDK image with an extent outside itself; {REWRITE}")
    return Descriptor(kind=kinds[wanted.lower()], sectors=sectors)
