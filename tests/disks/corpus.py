"""Disk images that somebody made to do harm, or that are broken; and files that look odd and are harmless.

Sources: the advisories that follow each name, and the bounds that QEMU itself has.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Final, Self

from msgspec import Struct

from calotype.errors import DiskRefused, DiskTooLarge, EmptyDisk, FormatMismatch, TruncatedDisk, UnsafeDisk
from tests.disks import build
from tests.disks.build import CONTENT, DESCRIPTOR, MIB, SECTOR, SIZE

MOST_VIRTUAL_BYTES: Final = 1024**4
# What a hostile image wants opened. The tests prove that nothing is.
TARGETS: Final = (
    b"/etc/passwd",
    b"../../../../etc/passwd",
    b"/dev/sda",
    b"/proc/self/environ",
    b"/run/calotype.fifo",
    b"self.qcow2",
    b'json:{"driver":"file","filename":"/etc/passwd"}',
    b"nbd:127.0.0.1:10809",
    b"nbd+unix:///?socket=/run/nbd.sock",
    b"http://169.254.169.254/latest/meta-data/",
    b"ssh://root@127.0.0.1/etc/shadow",
    b"fat:rw:/etc",
    b"fd:3",
    b"a" * 1023,
)
DATA_FILE: Final = 0x44415441
BACKING_FORMAT: Final = 0xE2792ACA
CRYPTO: Final = 0x0537BE77


class Case(Struct, frozen=True, kw_only=True):
    """`format` is the one that the file claims to be, and `error` what the gate says when it is declared as that."""

    name: str
    format: str
    packed: bytes  # hundreds of images, most of each of them zeros, are kept at once
    error: type[DiskRefused]

    @classmethod
    def of(cls, *, name: str, format_: str, content: bytes, error: type[DiskRefused]) -> Self:
        return cls(name=name, format=format_, packed=zlib.compress(content, 1), error=error)

    @property
    def content(self) -> bytes:
        return zlib.decompress(self.packed)

    @property
    def family(self) -> str:
        """What kind of attack it is: the first word of its name."""
        return self.name.partition("-")[0]


def hostile() -> Iterator[Case]:
    for cases in (qcow2(), vmdk(), vhd(), vhdx(), vdi(), qed(), qcow1(), foreign(), polyglots(), tiny()):
        yield from cases


def pointing(*paths: str, port: int) -> Iterator[Case]:
    """Images that want a file, or a service of this machine, opened; each in every way that its format has, and each at
    another one of `paths`.

    These are absolute, ASCII, and at most 200 characters long.
    """
    turn = itertools.cycle(paths)

    def case(format_: str, name: str, content: bytes, error: type[DiskRefused] = UnsafeDisk) -> Case:
        return Case.of(name=f"{format_}-{name}", format_=format_, content=content, error=error)

    for name in targets_at("/", port):

        def target() -> bytes:
            return targets_at(next(turn), port)[name]  # noqa: B023 - called before the next round

        for version in (2, 3):
            made = build.qcow2(version=version, backing=target(), l2_entry=0)
            yield case("qcow2", f"v{version}-backing-{name}", made)
        yield case("qcow2", f"data-{name}", build.qcow2(incompatible=4, extensions=((DATA_FILE, target()),)))
        yield case("qed", f"backing-{name}", build.qed(features=5, backing=target(), l1={0: 0}))
        yield case("qcow", f"backing-{name}", build.qcow1(backing=target(), l1={0: 0}))
        hint = build.vmdk_descriptor().replace(b"parentCID=ffffffff", b"parentCID=12345678")
        hint += b'parentFileNameHint="' + target() + b'"\n'
        yield case("vmdk", f"parent-{name}", build.vmdk(hint, grain=0))
        for kind in ("FLAT", "SPARSE", "VMFS"):
            extent = f'RW 8192 {kind} "{target().decode()}"' + (" 0" if kind == "FLAT" else "")
            text = build.vmdk_descriptor("monolithicFlat", extent)
            yield case("vmdk", f"text-{kind.lower()}-{name}", text)
            yield case("vmdk", f"embedded-{kind.lower()}-{name}", build.vmdk(text))
        yield case("vhd", f"parent-{name}", differencing_vhd(target()))
        yield case("vhdx", f"parent-{name}", differencing_vhdx(target()))


def targets_at(path: str, port: int) -> dict[str, bytes]:
    """How QEMU can be told to open a file, or to connect to a port of this machine."""
    plain = path.encode()
    return {
        "path": plain,
        "file": b"file:" + plain,
        "json": b'json:{"driver":"file","filename":"' + plain + b'"}',
        "json-qcow2": b'json:{"driver":"qcow2","file":{"driver":"file","filename":"' + plain + b'"}}',
        "device": b"host_device:" + plain,
        "fat": b"fat:" + plain.rpartition(b"/")[0],
        "nbd": f"nbd:127.0.0.1:{port}".encode(),
        "nbd-url": f"nbd://127.0.0.1:{port}/x".encode(),
        "nbd-socket": b"nbd+unix:///x?socket=" + plain,
        "http": f"http://127.0.0.1:{port}/x".encode(),
        "ssh": f"ssh://root@127.0.0.1:{port}/x".encode(),
    }


def differencing_vhd(target: bytes) -> bytes:
    """With the parent's name, and a locator of its path, as the format wants them."""
    path = target.decode().encode("utf-16-le")
    locator = b"W2ku" + struct.pack(">IIIQ", 512, len(path), 0, 1536)
    return build.vhd(
        footer=build.vhd_footer(kind=4),
        parent=b"\x01" * 16,
        parent_name=target.decode()[-200:],
        locators=locator,
        table_offset=2560,
        located=path,
    )


def differencing_vhdx(target: bytes) -> bytes:
    """With a parent locator whose entries are the parent's paths."""
    pairs = {"relative_path": target.decode(), "absolute_win32_path": target.decode()}
    head, text = b"", b""
    at = 20 + 12 * len(pairs)
    for key, value in pairs.items():
        words = (key.encode("utf-16-le"), value.encode("utf-16-le"))
        head += struct.pack("<IIHH", at + len(text), at + len(text) + len(words[0]), len(words[0]), len(words[1]))
        text += b"".join(words)
    locator = build.VHDX_LOCATOR + struct.pack("<HH", 0, len(pairs)) + head + text
    return build.vhdx(parameters=2, items=((build.PARENT_LOCATOR, locator, 4),), entry=4 << 20 | 7)


def payloads() -> Iterator[tuple[str, str, bytes]]:
    """Sound images whose guest sees an image that is none: name, format, content. What they are is a disk like any
    other; written out as a raw file it would be taken for what the guest has put there."""
    evil = {
        "qcow2-backing": build.qcow2(backing=b"/etc/passwd"),
        "qcow2": build.qcow2(),
        "vmdk-text": build.vmdk_descriptor("monolithicFlat", 'RW 8192 FLAT "/etc/passwd" 0'),
        "luks": b"LUKS\xba\xbe\0\1",
        "qed": build.qed(features=1, backing=b"/etc/passwd"),
    }
    for name, content in evil.items():
        disk = content[: 64 * 1024]
        yield f"{name}-in-qcow2", "qcow2", build.qcow2(content=disk)
        yield f"{name}-in-vmdk", "vmdk", build.vmdk(content=disk)
        yield f"{name}-in-vhd", "vhd", build.vhd(content=disk)
        yield f"{name}-in-vdi", "vdi", build.vdi(content=disk)


def qcow2() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"qcow2-{name}", format_="qcow2", content=content, error=error)

    for number, target in enumerate(TARGETS):  # CVE-2015-5163, CVE-2023-32684
        for version in (2, 3):
            made = build.qcow2(version=version, backing=target)
            yield case(f"v{version}-backing-{number}", UnsafeDisk, made)
    yield case("backing-outside-the-file", UnsafeDisk, build.qcow2(backing_offset=1 << 40))
    yield case("backing-without-offset", UnsafeDisk, build.qcow2(backing=b"/etc/passwd", backing_offset=0))
    yield case("backing-format-only", UnsafeDisk, build.qcow2(extensions=((BACKING_FORMAT, b"raw"),)))
    for number, target in enumerate(TARGETS):  # CVE-2024-32498
        made = build.qcow2(incompatible=4, extensions=((DATA_FILE, target),))
        yield case(f"data-file-{number}", UnsafeDisk, made)
    yield case("data-file-bit-only", UnsafeDisk, build.qcow2(incompatible=4))
    yield case("data-file-name-only", UnsafeDisk, build.qcow2(extensions=((DATA_FILE, b"/etc/passwd"),)))
    yield case("data-file-name-v2", UnsafeDisk, build.qcow2(version=2, extensions=((DATA_FILE, b"/etc/passwd"),)))
    after_unknown = ((0x12345678, b"whatever"), (DATA_FILE, b"/etc/passwd"))
    yield case("data-file-after-an-unknown-extension", UnsafeDisk, build.qcow2(extensions=after_unknown))
    yield case("data-file-raw-bit", UnsafeDisk, build.qcow2(autoclear=2))
    yield case("extension-longer-than-header", FormatMismatch, build.qcow2(extensions=((1, bytes(70000)),)))
    many = tuple((1, b"x") for _ in range(100))
    yield case("a-hundred-extensions", FormatMismatch, build.qcow2(extensions=many))
    for bit in range(5, 64):
        if bit in (5, 6, 31, 63):
            yield case(f"unknown-incompatible-bit-{bit}", UnsafeDisk, build.qcow2(incompatible=1 << bit))
    yield case("marked-corrupt", FormatMismatch, build.qcow2(incompatible=2))
    yield case("aes", UnsafeDisk, build.qcow2(crypt=1))
    yield case("luks", UnsafeDisk, build.qcow2(crypt=2))
    yield case("unknown-encryption", UnsafeDisk, build.qcow2(crypt=7))
    yield case("crypto-extension", UnsafeDisk, build.qcow2(extensions=((CRYPTO, bytes(16)),)))
    yield case("compression-without-bit", UnsafeDisk, build.qcow2(header_length=112, compression=1))
    yield case("compression-bit-without-type", UnsafeDisk, build.qcow2(incompatible=8))
    unknown = build.qcow2(header_length=112, compression=2, incompatible=8)
    yield case("unknown-compression", UnsafeDisk, unknown)
    yield case("version-4", FormatMismatch, build.qcow2(version=4))
    # CVE-2013-2096, CVE-2015-5162: small files that want much.
    yield case("64-tib", DiskTooLarge, build.qcow2(size=64 * 1024**4, l1_entries=1 << 17))
    yield case("16-eib", DiskTooLarge, build.qcow2(size=2**64 - 512, l1_entries=1 << 22, cluster_bits=21))
    yield case("size-0", EmptyDisk, build.qcow2(size=0))
    yield case("size-of-half-a-sector", FormatMismatch, build.qcow2(size=SIZE + 100))
    yield case("l1-of-32-gib", FormatMismatch, build.qcow2(l1_entries=0xFFFFFFFF))
    yield case("l1-too-short", FormatMismatch, build.qcow2(size=1024**3))
    yield case("l1-empty", FormatMismatch, build.qcow2(l1_entries=0))
    yield case("l1-outside-the-file", TruncatedDisk, build.qcow2(l1_offset=1 << 40))
    yield case("l1-at-no-place", FormatMismatch, build.qcow2(l1_offset=0))
    yield case("l1-not-aligned", FormatMismatch, build.qcow2(l1_offset=100))
    yield case("l2-outside-the-file", TruncatedDisk, build.qcow2(l1_entry=1 << 63 | 1 << 40))
    yield case("l2-not-aligned", FormatMismatch, build.qcow2(l1_entry=1 << 63 | 4 << 16 | 512))
    yield case("l2-reserved-bits", FormatMismatch, build.qcow2(l1_entry=1 << 60 | 4 << 16))
    yield case("l2-used-twice", FormatMismatch, l2_used_twice())
    yield case("data-outside-the-file", TruncatedDisk, build.qcow2(l2_entry=1 << 63 | 1 << 40))
    yield case("data-outside-the-file-not-copied", TruncatedDisk, build.qcow2(l2_entry=1 << 40))
    yield case("compressed-outside-the-file", TruncatedDisk, build.qcow2(l2_second=1 << 62 | 1 << 40))
    yield case("compressed-beyond-the-end", TruncatedDisk, build.qcow2(l2_second=1 << 62 | 255 << 54 | 5 << 16))
    yield case("l2-entry-nonsense", FormatMismatch, build.qcow2(l2_entry=1 << 59 | 5 << 16))
    yield case("clusters-of-2-bytes", FormatMismatch, build.qcow2()[:20] + struct.pack(">I", 1) + build.qcow2()[24:])
    yield case("clusters-of-2-exbibytes", FormatMismatch, build.qcow2()[:20] + b"\0\0\0\x3d" + build.qcow2()[24:])
    yield case("refcount-table-of-8-gib", FormatMismatch, build.qcow2(refcount_clusters=1 << 17))
    yield case("refcount-table-of-nothing", FormatMismatch, build.qcow2(refcount_clusters=0))
    yield case("refcount-table-at-no-place", FormatMismatch, build.qcow2(refcount_offset=0))
    yield case("refcount-table-outside", TruncatedDisk, build.qcow2(refcount_offset=1 << 40))
    yield case("refcount-block-outside", TruncatedDisk, build.qcow2(refcount_entry=1 << 40))
    yield case("refcount-block-not-aligned", FormatMismatch, build.qcow2(refcount_entry=513))
    yield case("refcounts-of-2-to-the-7-bits", FormatMismatch, build.qcow2(refcount_order=7))
    yield case("header-of-16-bytes", FormatMismatch, build.qcow2(header_length=16))
    yield case("header-of-4-gib", FormatMismatch, long_header())
    yield case("a-billion-snapshots", FormatMismatch, build.qcow2(snapshots=10**9, snapshots_offset=5 << 16))
    yield case("snapshots-outside", TruncatedDisk, build.qcow2(snapshots=1, snapshots_offset=1 << 40))
    yield case(
        "snapshot-table-cut", TruncatedDisk, build.qcow2(snapshots=9000, snapshots_offset=6 << 16) + bytes(1 << 16)
    )
    sound = build.qcow2()
    for length in (5, 71, 100, 65536, 3 * 65536, 4 * 65536 + 8, 5 * 65536, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])


def l2_used_twice() -> bytes:
    """Two L1 entries that share an L2 table: a small file that would take long to read."""
    made = bytearray(build.qcow2(size=1024**3, l1_entries=2))
    entry = made[3 * 65536 : 3 * 65536 + 8]
    made[3 * 65536 + 8 : 3 * 65536 + 16] = entry
    return bytes(made)


def long_header() -> bytes:
    made = bytearray(build.qcow2())
    made[100:104] = b"\xff\xff\xff\xf8"
    return bytes(made)


def vmdk() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"vmdk-{name}", format_="vmdk", content=content, error=error)

    extents = {  # CVE-2022-47951
        "flat": 'RW 8192 FLAT "disk-flat.vmdk" 0',
        "flat-absolute": 'RW 8192 FLAT "/etc/passwd" 0',
        "flat-up": 'RW 8192 FLAT "../../etc/passwd" 0',
        "vmfs": 'RW 8192 VMFS "disk-flat.vmdk"',
        "vmfssparse": 'RW 8192 VMFSSPARSE "disk-delta.vmdk"',
        "vmfsrdm": 'RW 8192 VMFSRDM "disk-rdm.vmdk"',
        "vmfsraw": 'RW 8192 VMFSRAW "/dev/sda"',
        "sesparse": 'RW 8192 SESPARSE "disk-se.vmdk"',
        "zero": "RW 8192 ZERO",
        "sparse-absolute": 'RW 8192 SPARSE "/etc/passwd"',
        "sparse-up": 'RW 8192 SPARSE "../passwd"',
        "sparse-protocol": 'RW 8192 SPARSE "nbd:localhost:10809"',
        "sparse-backslash": 'RW 8192 SPARSE "..\\passwd"',
        "sparse-unquoted": "RW 8192 SPARSE disk.vmdk",
        "sparse-offset": 'RW 8192 SPARSE "disk.vmdk" 128',
        "two": 'RW 4096 SPARSE "a.vmdk"\nRW 4096 SPARSE "b.vmdk"',
        "two-of-a-kind": 'RW 8192 SPARSE "a.vmdk"\nRW 8192 FLAT "/etc/passwd" 0',
        "none": "",
        "flat-lower-case": 'rw 8192 flat "/etc/passwd" 0',
        "zero-named": 'RW 8192 ZERO "/etc/passwd"',
        "sparse-quote-inside": 'RW 8192 SPARSE "a\\"b.vmdk"',
        "sparse-quote-open": 'RW 8192 SPARSE "disk.vmdk',
        "sparse-quote-single": "RW 8192 SPARSE 'disk.vmdk'",
        "sparse-no-name": 'RW 8192 SPARSE ""',
        "sparse-two-names": 'RW 8192 SPARSE "a.vmdk" "/etc/passwd"',
        "sparse-json": 'RW 8192 SPARSE "json:{}"',
        "sparse-long": f'RW 8192 SPARSE "{"a" * 256}"',
        "sparse-device": 'RW 8192 SPARSE "a.vmdk" 0 partitionUUID /dev/sda',
        "not-a-size": 'RW 8192x SPARSE "disk.vmdk"',
        "negative-size": 'RW -8192 SPARSE "disk.vmdk"',
        "unknown-access": 'RWX 8192 SPARSE "disk.vmdk"',
        "vertical-tab": 'RW 8192 SPARSE "a.vmdk"\vRW 8192 FLAT "/etc/passwd" 0',
        "carriage-return": 'RW 8192 SPARSE "a.vmdk"\rRW 8192 FLAT "/etc/passwd" 0',
        "form-feed": 'RW 8192 SPARSE "a.vmdk"\f',
    }
    for name, extent in extents.items():
        yield case(f"extent-{name}", UnsafeDisk, build.vmdk(build.vmdk_descriptor(extent=extent)))
        text = DESCRIPTOR.format(kind="monolithicFlat", extent=extent).encode()
        yield case(f"text-{name}", UnsafeDisk, text)
    odd = build.vmdk_descriptor().replace(b"disk.vmdk", "Gr\u00f6\u00dfe.vmdk".encode("latin-1"))
    yield case("extent-not-ascii", UnsafeDisk, build.vmdk(odd))
    odd = build.vmdk_descriptor().replace(b"disk.vmdk", "\u78c1\u76d8.vmdk".encode())
    yield case("extent-in-utf-8", UnsafeDisk, build.vmdk(odd))
    yield case("extent-in-utf-16", UnsafeDisk, build.vmdk(build.vmdk_descriptor().decode().encode("utf-16")))
    flat = build.vmdk_descriptor("monolithicFlat", 'RW 8192 FLAT "/etc/passwd" 0')
    yield case("two-descriptors", UnsafeDisk, build.vmdk(build.vmdk_descriptor() + flat))
    yield case("two-descriptors-after-zero", UnsafeDisk, build.vmdk(build.vmdk_descriptor() + b"\0" + flat))
    yield case(
        "two-descriptors-a-sector-later", UnsafeDisk, build.vmdk(build.vmdk_descriptor().ljust(1024, b"\0") + flat)
    )
    late = build.vmdk(header=build.vmdk_header(descriptor_offset=256))
    yield case("descriptor-lies-after-64-kib", UnsafeDisk, late + flat.ljust(20 * SECTOR, b"\0"))
    sound_late = build.vmdk(flat, header=build.vmdk_header(descriptor_offset=256))
    yield case("descriptor-in-both-places", UnsafeDisk, sound_late + build.vmdk_descriptor().ljust(20 * SECTOR, b"\0"))
    kinds = (
        "monolithicFlat",
        "vmfs",
        "vmfsSparse",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "fullDevice",
        "custom",
    )
    for kind in (*kinds, "", "x" * 200, "monolithicSparse2"):
        yield case(f"kind-{kind[:24]}", UnsafeDisk, build.vmdk(build.vmdk_descriptor(kind=kind)))
    nothing = build.vmdk_descriptor().replace(b"createType", b"creatorType")
    yield case("kind-missing", FormatMismatch, build.vmdk(nothing))
    parent = build.vmdk_descriptor().replace(b"parentCID=ffffffff", b"parentCID=12345678")
    yield case("parent-cid", UnsafeDisk, build.vmdk(parent))
    for number, line in enumerate((b"parentFileNameHint=", b"  PARENTFILENAMEHINT = ", b"# parentFileNameHint=")):
        for which, target in enumerate(TARGETS[:2]):
            made = build.vmdk(build.vmdk_descriptor() + line + b'"' + target + b'"\n')
            yield case(f"parent-hint-{number}-{which}", UnsafeDisk, made)
    for word in (b"00000000", b"fffffffe", b"0xffffffff", b"-1", b""):
        made = build.vmdk_descriptor().replace(b"parentCID=ffffffff", b"parentCID=" + word)
        yield case(f"parent-cid-{word.decode() or 'empty'}", UnsafeDisk, build.vmdk(made))
    hidden = build.vmdk_descriptor() + b"\0" + b'parentFileNameHint="/etc/passwd"\n'
    yield case("parent-hint-after-zero", UnsafeDisk, build.vmdk(hidden))
    outside = build.vmdk_descriptor().ljust(1024, b"#") + b'\nparentFileNameHint="/etc/passwd"\n'
    yield case(
        "parent-hint-after-the-descriptor",
        UnsafeDisk,
        build.vmdk(outside, header=build.vmdk_header(descriptor_sectors=2)),
    )
    for extra in ('createType="monolithicFlat"', "CID=00000000", 'parentCID="ffffffff"', "version=2"):
        made = build.vmdk(build.vmdk_descriptor(extra=extra + "\n"))
        yield case(f"twice-{extra.split('=')[0]}", UnsafeDisk, made)
    for number, extra in enumerate(('changeTrackPath="disk-ctk.vmdk"', 'encryption.keySafe="x"', "what is this")):
        yield case(f"line-{number}", UnsafeDisk, build.vmdk(build.vmdk_descriptor(extra=extra + "\n")))
    yield case("a-line-too-many", FormatMismatch, build.vmdk(build.vmdk_descriptor(extra="\n" * 2000)))
    headers: tuple[tuple[str, type[DiskRefused], bytes], ...] = (
        ("capacity-0", UnsafeDisk, build.vmdk_header(capacity=0)),
        ("no-descriptor", UnsafeDisk, build.vmdk_header(descriptor_offset=0, descriptor_sectors=0)),
        ("descriptor-after-64-kib", UnsafeDisk, build.vmdk_header(descriptor_offset=200)),
        ("descriptor-of-2-gib", FormatMismatch, build.vmdk_header(descriptor_sectors=1 << 22)),
        ("descriptor-of-2-to-the-64", FormatMismatch, build.vmdk_header(descriptor_sectors=2**64 - 1)),
        ("descriptor-outside", TruncatedDisk, build.vmdk_header(descriptor_sectors=2000)),
        ("sizes-differ", FormatMismatch, build.vmdk_header(capacity=1 << 20)),
        ("grain-0", FormatMismatch, build.vmdk_header(grain=0)),
        ("grain-3", FormatMismatch, build.vmdk_header(grain=3)),
        ("grain-of-terabytes", FormatMismatch, build.vmdk_header(grain=1 << 40)),
        ("tables-of-0", FormatMismatch, build.vmdk_header(table_entries=0)),
        ("tables-of-4-billion", FormatMismatch, build.vmdk_header(table_entries=0xFFFFFFFF)),
        ("version-9", FormatMismatch, build.vmdk_header(version=9)),
        ("sent-as-text", FormatMismatch, build.vmdk_header(newlines=b"\r\n \n")),
        ("unknown-compression", FormatMismatch, build.vmdk_header(compression=2, flags=1 | 1 << 16)),
        ("compression-without-flag", FormatMismatch, build.vmdk_header(compression=1)),
        ("directory-outside", TruncatedDisk, build.vmdk_header(directory=1 << 30)),
        ("directory-beyond-everything", TruncatedDisk, build.vmdk_header(directory=2**64 - 2)),
        ("second-directory-outside", TruncatedDisk, build.vmdk_header(flags=3, redundant=1 << 30)),
    )
    for name, error, header in headers:
        yield case(name, error, build.vmdk(header=header))
    huge = build.vmdk_descriptor(extent=f'RW {1 << 40} SPARSE "disk.vmdk"')
    yield case("512-tib", DiskTooLarge, build.vmdk(huge, header=build.vmdk_header(capacity=1 << 40)))
    yield case("table-outside", TruncatedDisk, build.vmdk(table=1 << 30))
    yield case("data-outside", TruncatedDisk, build.vmdk(grain=1 << 30))
    # The footer decides where the directory is.
    stream = build.vmdk_stream()
    flags = 1 | 1 << 16 | 1 << 17
    at_end = 0xFFFFFFFFFFFFFFFF
    again = build.vmdk_header(version=3, flags=flags, directory=at_end, compression=1)
    yield case("footer-names-a-footer", FormatMismatch, build.vmdk_stream(footer=again))
    for name, bent in (
        ("size", build.vmdk_header(version=3, flags=flags, directory=144, compression=1, capacity=1 << 30)),
        ("descriptor", build.vmdk_header(version=3, flags=flags, directory=144, compression=1, descriptor_offset=2)),
        ("version", build.vmdk_header(version=1, flags=flags, directory=144, compression=1)),
    ):
        yield case(f"footer-of-another-{name}", UnsafeDisk, build.vmdk_stream(footer=bent))
    for length in (70, 600, 64 * 1024, len(stream) - 512, len(stream) - 1):
        yield case(f"stream-cut-at-{length}", TruncatedDisk, stream[:length])
    yield case("stream-with-a-tail", TruncatedDisk, stream + bytes(512))
    sound = build.vmdk()
    for length in (100, 512, 11 * 512, len(sound) - 64 * 1024, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])


def vhd() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"vhd-{name}", format_="vhd", content=content, error=error)

    yield case("differencing", UnsafeDisk, build.vhd(footer=build.vhd_footer(kind=4)))
    yield case("differencing-at-the-end", UnsafeDisk, build.vhd_fixed(footer=build.vhd_footer(kind=4)))
    yield case("parent-id", UnsafeDisk, build.vhd(parent=b"\x01" * 16))
    locator = b"W2ku" + struct.pack(">IIIQ", 512, 22, 0, 1536)
    yield case("parent-locator", UnsafeDisk, build.vhd(locators=locator))
    yield case("parent-name", UnsafeDisk, build.vhd(parent_name="/etc/passwd"))
    yield case("locator-without-parent", UnsafeDisk, build.vhd(locators=bytes(168) + b"MacX" + bytes(20)))
    yield case("parent-in-full", UnsafeDisk, differencing_vhd(b"/etc/passwd"))
    yield case("kind-0", FormatMismatch, build.vhd(footer=build.vhd_footer(kind=0)))
    yield case("kind-77", FormatMismatch, build.vhd(footer=build.vhd_footer(kind=77)))
    yield case("version-2", FormatMismatch, build.vhd(footer=build.vhd_footer(version=0x00020000)))
    yield case("checksum", FormatMismatch, build.vhd(footer=build.vhd_footer(checksum=1)))
    yield case("fixed-with-a-header", FormatMismatch, build.vhd(footer=build.vhd_footer(kind=2)))
    yield case("dynamic-without-a-header", FormatMismatch, build.vhd_fixed(footer=build.vhd_footer(kind=3)))
    yield case("two-faces", FormatMismatch, build.vhd(end=build.vhd_footer(size=SIZE // 2)))
    yield case("footer-of-another-kind", FormatMismatch, build.vhd(end=build.vhd_footer(kind=2)))
    yield case("header-nowhere", TruncatedDisk, build.vhd(footer=build.vhd_footer(data_offset=1 << 60)))
    yield case("header-elsewhere", FormatMismatch, build.vhd(footer=build.vhd_footer(data_offset=1536)))
    yield case("size-0", EmptyDisk, build.vhd(footer=build.vhd_footer(size=0)))
    yield case("8-eib", DiskTooLarge, build.vhd(footer=build.vhd_footer(size=1 << 63)))
    yield case("no-entries", FormatMismatch, build.vhd(entries=0))
    yield case("four-billion-entries", FormatMismatch, build.vhd(entries=0xFFFFFFFF))
    yield case("a-million-entries", TruncatedDisk, build.vhd(entries=1 << 20))
    yield case("blocks-of-3-bytes", FormatMismatch, build.vhd(block=3))
    yield case("blocks-of-2-gib", FormatMismatch, build.vhd(block=1 << 31))
    yield case("table-outside", TruncatedDisk, build.vhd(table_offset=1 << 60))
    yield case("block-outside", TruncatedDisk, build.vhd(entry=0xFFFFFFFE))
    yield case("fixed-too-small", TruncatedDisk, build.vhd_fixed(footer=build.vhd_footer(kind=2, size=2 * SIZE)))
    fixed = build.vhd_fixed()
    yield case("fixed-footer-only", FormatMismatch, fixed[-512:])
    sound = build.vhd()
    for length in (100, 600, 1600, len(sound) - 512, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])


def vhdx() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"vhdx-{name}", format_="vhdx", content=content, error=error)

    yield case("has-parent", UnsafeDisk, build.vhdx(parameters=2))
    yield case("parent-locator", UnsafeDisk, build.vhdx(items=((build.PARENT_LOCATOR, bytes(64), 4),)))
    yield case("parent-in-full", UnsafeDisk, differencing_vhdx(b"/etc/passwd"))
    yield case("block-of-a-difference", UnsafeDisk, build.vhdx(entry=4 << 20 | 7))
    unknown = "00000000-1111-2222-3333-444444444444"
    yield case("unknown-item", UnsafeDisk, build.vhdx(items=((unknown, bytes(8), 4),)))
    yield case("unknown-region", UnsafeDisk, build.vhdx(regions=((unknown, 5 * MIB, MIB, 1),)))
    yield case("region-twice", FormatMismatch, build.vhdx(regions=((build.BAT, 5 * MIB, MIB, 1),)))
    yield case("item-twice", FormatMismatch, build.vhdx(items=((build.VIRTUAL_SIZE, bytes(8), 4),)))
    yield case("open-log", FormatMismatch, build.vhdx(log=b"\x01" * 16))
    yield case("version-2", FormatMismatch, build.vhdx(version=2))
    yield case("sectors-of-4096", FormatMismatch, build.vhdx(sector=4096))
    yield case("sectors-of-0", FormatMismatch, build.vhdx(sector=0))
    yield case("blocks-of-0", FormatMismatch, build.vhdx(block=0))
    yield case("blocks-of-4-gib", FormatMismatch, build.vhdx(block=0xFFFFFFFF))
    yield case("size-0", EmptyDisk, build.vhdx(size=0))
    yield case("16-eib", FormatMismatch, build.vhdx(size=2**64 - 512))
    yield case("64-tib", DiskTooLarge, build.vhdx(size=64 * 1024**4))
    yield case("table-too-short", TruncatedDisk, build.vhdx(size=1024**4 // 2))
    yield case("table-of-4-gib", TruncatedDisk, build.vhdx(bat_length=4095 * MIB))
    yield case("block-outside", TruncatedDisk, build.vhdx(entry=(1 << 30) << 20 | 6))
    yield case("block-in-the-headers", FormatMismatch, build.vhdx(entry=6))
    sound = build.vhdx()
    yield case("no-headers", FormatMismatch, sound[: 64 * 1024] + bytes(128 * 1024) + sound[192 * 1024 :])
    yield case("no-regions", FormatMismatch, sound[: 192 * 1024] + bytes(128 * 1024) + sound[320 * 1024 :])
    yield case("no-metadata", FormatMismatch, sound[: 3 * MIB] + bytes(MIB) + sound[4 * MIB :])
    for length in (8, 70_000, 200_000, 2 * MIB + 8, 3 * MIB, 4 * MIB, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])


def vdi() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"vdi-{name}", format_="vdi", content=content, error=error)

    yield case("undo", UnsafeDisk, build.vdi(kind=3))
    yield case("difference", UnsafeDisk, build.vdi(kind=4))
    yield case("parent", UnsafeDisk, build.vdi(parent=b"\x01" * 16))
    yield case("link", UnsafeDisk, build.vdi(link=b"\x01" * 16))
    yield case("kind-0", UnsafeDisk, build.vdi(kind=0))
    yield case("kind-of-2-to-the-32", UnsafeDisk, build.vdi(kind=0xFFFFFFFF))
    yield case("64-tib", DiskTooLarge, build.vdi(size=64 * 1024**4, blocks=64 * 1024**2))
    yield case("version-0", FormatMismatch, build.vdi(version=1))
    yield case("sectors-of-0", FormatMismatch, build.vdi(sector=0))
    yield case("blocks-of-0", FormatMismatch, build.vdi(block=0))
    yield case("blocks-of-4-gib", FormatMismatch, build.vdi(block=0xFFFFFFFF))
    yield case("too-few-blocks", FormatMismatch, build.vdi(blocks=3))
    yield case("four-billion-blocks", FormatMismatch, build.vdi(blocks=0xFFFFFFFF))
    yield case("half-a-billion-blocks", TruncatedDisk, build.vdi(blocks=0x1FFFFFFF))
    yield case("more-allocated-than-there-are", FormatMismatch, build.vdi(allocated=5))
    yield case("block-not-allocated", FormatMismatch, build.vdi(entry=1))
    yield case("block-outside", TruncatedDisk, build.vdi(entry=3, allocated=4))
    yield case("map-at-no-place", FormatMismatch, build.vdi(map_offset=0))
    yield case("map-outside", TruncatedDisk, build.vdi(map_offset=0xFFFFFE00))
    yield case("data-outside", TruncatedDisk, build.vdi(data_offset=0xFFFFFE00))
    yield case("size-0", EmptyDisk, build.vdi(size=0))
    yield case("16-eib", DiskTooLarge, build.vdi(size=2**64 - 1, blocks=0x1FFFFFFF))
    sound = build.vdi()
    for length in (100, 600, 2000, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])


def qed() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"qed-{name}", format_="qed", content=content, error=error)

    cluster = 4096
    for number, target in enumerate(TARGETS):
        yield case(f"backing-{number}", UnsafeDisk, build.qed(features=1, backing=target))
    yield case("backing-read-as-raw", UnsafeDisk, build.qed(features=5, backing=b"/etc/passwd"))
    yield case("backing-bit-only", UnsafeDisk, build.qed(features=1))
    yield case("backing-raw-bit-only", UnsafeDisk, build.qed(features=4))
    yield case("backing-name-only", UnsafeDisk, build.qed(backing=b"/etc/passwd"))
    yield case("backing-of-4-gib", UnsafeDisk, build.qed(features=1, backing_size=0xFFFFFFFF))
    for bit in (3, 4, 31, 63):
        yield case(f"unknown-feature-{bit}", UnsafeDisk, build.qed(features=1 << bit))
    for bad in (0, 1, 2048, 4097, 12288, 1 << 27, 0xFFFFFFFF):
        yield case(f"clusters-of-{bad}-bytes", FormatMismatch, over(build.qed(), struct.pack("<I", bad), 4))
    for bad in (0, 1, 3, 32, 0xFFFFFFFF):
        yield case(f"tables-of-{bad}-clusters", FormatMismatch, over(build.qed(), struct.pack("<I", bad), 8))
    # Each is within the specification; together they make tables of a gibibyte, of which QEMU keeps fifty.
    yield case("tables-of-1-gib", DiskTooLarge, over(build.qed(), struct.pack("<II", 1 << 26, 16), 4))
    yield case("header-of-nothing", FormatMismatch, over(build.qed(), bytes(4), 12))
    yield case("header-of-16-tib", TruncatedDisk, over(build.qed(), b"\xff" * 4, 12))
    yield case("size-0", EmptyDisk, build.qed(size=0))
    yield case("64-tib", DiskTooLarge, over(build.qed(size=64 * 1024**4), struct.pack("<II", 1 << 16, 16), 4))
    yield case("size-of-half-a-sector", FormatMismatch, build.qed(size=SIZE + 100))
    yield case("size-beyond-its-tables", FormatMismatch, build.qed(size=1024 * 1024 * cluster + 512))
    yield case("16-eib", DiskTooLarge, build.qed(size=2**64 - 512))
    yield case("l1-in-the-header", FormatMismatch, build.qed(l1_offset=0))
    yield case("l1-in-a-longer-header", FormatMismatch, build.qed(header=2, l1_offset=cluster))
    yield case("l1-not-aligned", FormatMismatch, build.qed(l1_offset=cluster + 8))
    yield case("l1-outside-the-file", TruncatedDisk, build.qed(l1_offset=1 << 40))
    yield case("l1-at-the-end-of-everything", TruncatedDisk, build.qed(l1_offset=2**64 - cluster))
    yield case("l2-in-the-header", FormatMismatch, build.qed(header=2, l1={1: cluster}))
    yield case("l2-is-a-zero-mark", FormatMismatch, build.qed(l1={1: 1}))
    yield case("l2-not-aligned", FormatMismatch, build.qed(l1={0: 3 * cluster + 512}))
    yield case("l2-outside-the-file", TruncatedDisk, build.qed(l1={1: 1 << 40}))
    yield case("l2-half-outside-the-file", TruncatedDisk, build.qed(l1={0: len(build.qed()) - cluster}))
    yield case("l2-outside-for-what-no-guest-sees", TruncatedDisk, build.qed(l1={1023: 1 << 40}))
    yield case("l2-used-twice", FormatMismatch, build.qed(l1={1: 3 * cluster}))
    yield case("l2-overlaps-another", FormatMismatch, build.qed(l1={1: 4 * cluster}))
    yield case("l2-is-the-l1", FormatMismatch, build.qed(l1={1: cluster}))
    yield case("l2-overlaps-the-l1", FormatMismatch, build.qed(l1={0: 2 * cluster}))
    yield case("data-in-the-header", FormatMismatch, build.qed(header=2, l2={500: cluster}))
    yield case("data-not-aligned", FormatMismatch, build.qed(l2={500: 5 * cluster + 512}))
    yield case("data-not-aligned-to-a-bit", FormatMismatch, build.qed(l2={500: 5 * cluster + 1}))
    yield case("data-is-2", FormatMismatch, build.qed(l2={500: 2}))
    yield case("data-outside-the-file", TruncatedDisk, build.qed(l2={500: 1 << 40}))
    yield case("data-at-the-end-of-everything", TruncatedDisk, build.qed(l2={500: 2**64 - cluster}))
    sound = build.qed()
    for length in (4, 63, 4095, 2 * cluster, 4 * cluster, 5 * cluster, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])


def qcow1() -> Iterator[Case]:
    def case(name: str, error: type[DiskRefused], content: bytes) -> Case:
        return Case.of(name=f"qcow-{name}", format_="qcow", content=content, error=error)

    for number, target in enumerate(TARGETS):
        yield case(f"backing-{number}", UnsafeDisk, build.qcow1(backing=target))
    yield case("backing-outside-the-file", UnsafeDisk, build.qcow1(backing_offset=1 << 40))
    yield case("backing-without-offset", UnsafeDisk, build.qcow1(backing=b"/etc/passwd", backing_offset=0))
    for crypt in (1, 2, 0xFFFFFFFF):
        yield case(f"encrypted-{crypt}", UnsafeDisk, build.qcow1(crypt=crypt))
    for version in (0, 4, 0xFFFFFFFF):
        yield case(f"version-{version}", FormatMismatch, build.qcow1(version=version))
    for bits in (0, 8, 17, 63, 255):
        yield case(f"clusters-of-2-to-the-{bits}-bytes", FormatMismatch, over(build.qcow1(), bytes([bits]), 32))
    for bits in (0, 5, 14, 63, 255):
        yield case(f"tables-of-2-to-the-{bits}-entries", FormatMismatch, over(build.qcow1(), bytes([bits]), 33))
    yield case("size-0", EmptyDisk, build.qcow1(size=0))
    yield case("size-1", FormatMismatch, build.qcow1(size=1))
    yield case("size-of-half-a-sector", FormatMismatch, build.qcow1(size=SIZE + 100))
    yield case("16-eib", DiskTooLarge, build.qcow1(size=2**64 - 512))
    # CVE-2014-0222, CVE-2014-0223: sizes that overflow, and an L1 table of gibibytes.
    yield case("l1-of-256-mib", FormatMismatch, over(build.qcow1(size=MOST_VIRTUAL_BYTES), bytes([9, 6]), 32))
    yield case("l1-of-4-mib", TruncatedDisk, build.qcow1(size=MOST_VIRTUAL_BYTES))
    yield case("l1-in-the-header", FormatMismatch, build.qcow1(l1_offset=40))
    yield case("l1-at-no-place", FormatMismatch, build.qcow1(l1_offset=0))
    yield case("l1-outside-the-file", TruncatedDisk, build.qcow1(l1_offset=1 << 40))
    yield case("l1-at-the-end-of-everything", TruncatedDisk, build.qcow1(l1_offset=2**64 - 8))
    yield case("l2-in-the-header", FormatMismatch, build.qcow1(l1={1: 8}))
    yield case("l2-outside-the-file", TruncatedDisk, build.qcow1(l1={1: 1 << 40}))
    yield case("l2-at-the-end-of-everything", TruncatedDisk, build.qcow1(l1={1: 2**64 - 8}))
    yield case("l2-half-outside-the-file", TruncatedDisk, build.qcow1(l1={0: len(build.qcow1()) - 512}))
    yield case("l2-used-twice", FormatMismatch, build.qcow1(l1={1: SECTOR}))
    yield case("l2-overlaps-another", FormatMismatch, build.qcow1(l1={1: 2 * SECTOR}))
    yield case("l2-is-the-l1", FormatMismatch, build.qcow1(l1={1: 48}))
    yield case("l2-holds-the-l1", FormatMismatch, build.qcow1(l1_offset=2 * SECTOR, l2={64: SECTOR}))
    yield case("data-not-at-a-sector", FormatMismatch, build.qcow1(l2={500: 9 * SECTOR + 1}))
    yield case("data-outside-the-file", TruncatedDisk, build.qcow1(l2={500: 1 << 40}))
    yield case("compressed-outside-the-file", TruncatedDisk, build.qcow1(l2={500: 1 << 63 | 9 << 51 | 1 << 40}))
    ends = len(build.qcow1())
    beyond = build.qcow1(l2={500: 1 << 63 | 101 << 51 | ends - 100})
    yield case("compressed-beyond-the-end", TruncatedDisk, beyond)
    yield case("compressed-to-nothing", FormatMismatch, build.qcow1(l2={500: 1 << 63 | ends - 100}))
    sound, packed_ = build.qcow1(), build.qcow1(compressed=True)
    for length in (8, 47, 50, 512, 4607, 4608, len(sound) - 1):
        yield case(f"cut-at-{length}", TruncatedDisk, sound[:length])
    yield case("compressed-cut", TruncatedDisk, packed_[:-1])


def foreign() -> Iterator[Case]:
    """Formats that are known in order to be refused, whatever they are declared as."""
    marks = {
        "parallels": b"WithoutFreeSpace" + struct.pack("<I", 2),
        "parallels-ext": b"WithouFreSpacExt" + struct.pack("<I", 2),
        "parallels-ploop": b"WithouFreSpacExt" + struct.pack("<IIIIIQ", 2, 16, 8, 2048, 4, 8192),
        "bochs": b"Bochs Virtual HD Image",
        "cloop": b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0",
        "cowd": b"COWD" + struct.pack("<III", 1, 3, 8192),
        "sesparse": struct.pack("<QQ", 0xCAFEBABE, 0x0000000200000001),
        "uml-cow": b"OOOM" + struct.pack(">I", 2) + b"/etc/passwd",
        "ewf": b"EVF\x09\x0d\x0a\xff\x00",
    }
    for name, mark in marks.items():
        content = mark.ljust(SECTOR, b"\0") + CONTENT
        declared = {"cowd": "vmdk", "sesparse": "vmdk"}.get(name, "raw")
        yield Case.of(name=f"foreign-{name}", format_=declared, content=content, error=FormatMismatch)
    dmg = CONTENT + b"koly".ljust(512, b"\0")
    yield Case.of(name="foreign-dmg", format_="raw", content=dmg, error=FormatMismatch)
    for version in (1, 2):
        luks = (b"LUKS\xba\xbe" + struct.pack(">H", version)).ljust(4096, b"\0") + CONTENT
        yield Case.of(name=f"luks-{version}", format_="raw", content=luks, error=UnsafeDisk)
        bootable = build.with_boot_sector(luks)
        yield Case.of(name=f"luks-{version}-with-a-boot-sector", format_="raw", content=bootable, error=UnsafeDisk)


def polyglots() -> Iterator[Case]:
    """Files that are one thing to one reader and another to the next (CVE-2024-40767)."""

    def case(name: str, format_: str, content: bytes) -> Case:
        return Case.of(name=f"polyglot-{name}", format_=format_, content=content, error=FormatMismatch)

    sound = build.qcow2()
    at_end = build.vhd_footer(kind=2, size=len(sound))
    yield case("qcow2-vhd", "qcow2", sound + at_end)
    yield case("qcow2-vhd-as-vhd", "vhd", sound + at_end)
    yield case("qcow2-vhd-bad-checksum", "qcow2", sound + build.vhd_footer(kind=2, checksum=7))
    yield case("qcow2-iso", "qcow2", over(build.iso(), sound[: 32 * 1024]))
    yield case("qcow2-iso-as-iso", "iso", over(build.iso(), sound[: 32 * 1024]))
    yield case("qcow2-mbr", "qcow2", build.with_boot_sector(sound))
    yield case("qcow2-gpt", "qcow2", over(build.gpt(), sound[:400]))
    yield case("qcow2-vdi", "qcow2", over(sound, b"\x7f\x10\xda\xbe", 0x40))
    yield case("qcow2-dmg", "qcow2", sound + b"koly".ljust(512, b"\0"))
    yield case("vmdk-vhd", "vmdk", build.vmdk() + build.vhd_footer(kind=2, size=len(build.vmdk())))
    yield case("vmdk-mbr", "vmdk", over(build.vmdk(), b"\x55\xaa", 510))
    yield case("vmdk-vdi", "vmdk", over(build.vmdk(), b"\x7f\x10\xda\xbe", 0x40))
    yield case("vmdk-iso", "vmdk", over(build.iso(), build.vmdk()[: 12 * 1024]))
    text = build.vmdk_descriptor("monolithicFlat", 'RW 8192 FLAT "/etc/passwd" 0')
    yield case("vmdk-text-iso", "iso", over(build.iso(), text))
    yield case("vmdk-text-mbr", "raw", build.with_boot_sector(text.ljust(SIZE, b"\n")))
    yield case("vmdk-text-gpt", "gpt", over(build.gpt(), text[:440]))
    yield case("vmdk-text-vhd", "vhd", text.ljust(MIB, b"\n") + build.vhd_footer(kind=2, size=MIB))
    yield case("iso-vhd", "iso", build.iso() + build.vhd_footer(kind=2, size=len(build.iso())))
    yield case("iso-dmg", "iso", build.iso() + b"koly".ljust(512, b"\0"))
    yield case("iso-luks", "iso", over(build.iso(), b"LUKS\xba\xbe\0\1"))
    yield case("iso-parallels", "iso", over(build.iso(), b"WithoutFreeSpace"))
    yield case("gpt-qcow2-as-gpt", "gpt", over(build.gpt(), sound[:400]))
    yield case("vdi-iso", "vdi", over(build.iso(), build.vdi()[:1024]))
    yield case("vdi-mbr", "vdi", over(build.vdi(), b"\x55\xaa", 510))
    yield case("vdi-vhd", "vdi", build.vdi() + build.vhd_footer(kind=2, size=MIB))
    yield case("vhdx-mbr", "vhdx", over(build.vhdx(), b"\x55\xaa", 510))
    yield case("vhdx-vhd", "vhdx", build.vhdx() + build.vhd_footer(kind=2, size=MIB))
    yield case("vhdx-iso", "vhdx", over(build.vhdx(), b"\x01CD001\x01", 32 * 1024))
    yield case("vhd-iso", "vhd", over(build.vhd(), b"\x01CD001\x01", 32 * 1024))
    yield case("vhd-fixed-iso", "vhd", build.vhd_fixed(content=build.iso()))
    yield case("vhd-fixed-qcow2", "vhd", build.vhd_fixed(content=sound))
    yield case("vhd-fixed-vmdk-text", "vhd", build.vhd_fixed(content=build.vmdk_descriptor(kind="monolithicFlat")))
    old, older = build.qed(), build.qcow1()
    for name, made in (("qed", old), ("qcow", older)):
        yield case(f"{name}-vhd", name, made + build.vhd_footer(kind=2, size=len(made)))
        yield case(f"{name}-mbr", name, over(made, b"\x55\xaa", 510))
        yield case(f"{name}-vdi", name, over(made, b"\x7f\x10\xda\xbe", 0x40))
        yield case(f"{name}-iso", name, over(made, b"\x01CD001\x01", 32 * 1024))
        yield case(f"{name}-dmg", name, made + b"koly".ljust(512, b"\0"))
        yield case(f"vhd-fixed-{name}", "vhd", build.vhd_fixed(content=made))
    yield case("luks-vhd", "vhd", b"LUKS\xba\xbe\0\1".ljust(SIZE, b"\0") + build.vhd_footer(kind=2))


def over(data: bytes, piece: bytes, offset: int = 0) -> bytes:
    return data[:offset] + piece + data[offset + len(piece) :]


def tiny() -> Iterator[Case]:
    """Nothing, or a mark and nothing else."""
    yield Case.of(name="empty", format_="raw", content=b"", error=EmptyDisk)
    marks = {
        "qcow2": b"QFI\xfb",
        "vmdk": b"KDMV",
        "vhd": b"conectix",
        "vhdx": b"vhdxfile",
        "vdi": bytes(0x40) + b"\x7f\x10\xda\xbe",
        "iso": bytes(32 * 1024 + 1) + b"CD001",
        "qed": b"QED\0",
        "qcow": b"QFI\xfb\0\0\0\x01",
    }
    for length in (8, 12, 512):
        made = build.qcow2()[:length]
        yield Case.of(name=f"tiny-qcow2-{length}", format_="qcow2", content=made, error=TruncatedDisk)
        made = build.vmdk()[:length]
        yield Case.of(name=f"tiny-vmdk-{length}", format_="vmdk", content=made, error=TruncatedDisk)
    yield Case.of(name="tiny-luks", format_="raw", content=b"LUKS\xba\xbe", error=UnsafeDisk)
    yield Case.of(name="tiny-koly", format_="raw", content=b"koly".ljust(512, b"\0"), error=FormatMismatch)
    yield Case.of(name="tiny-vmdk-text", format_="vmdk", content=b"# Disk DescriptorFile", error=UnsafeDisk)
    yield Case.of(name="tiny-vmdk-version", format_="vmdk", content=b"version=1", error=UnsafeDisk)
    for format_, mark in marks.items():
        yield Case.of(name=f"mark-only-{format_}", format_=format_, content=mark, error=TruncatedDisk)


def truncated_raw() -> Iterator[Case]:
    whole = build.gpt()
    for length in (len(whole) - 1, len(whole) - SECTOR, len(whole) // 2, 4096):
        yield Case.of(name=f"gpt-cut-at-{length}", format_="raw", content=whole[:length], error=TruncatedDisk)
    disc = build.iso()
    for length in (34 * 1024, 36 * 1024, len(disc) - 1):
        yield Case.of(name=f"iso-cut-at-{length}", format_="iso", content=disc[:length], error=TruncatedDisk)


def harmless() -> Iterator[tuple[str, bytes]]:
    """Bytes that are a raw disk and nothing else, however odd. (What is named like a path is never opened.)"""
    yield "a-byte", b"x"
    yield "bytes", CONTENT
    yield "boot-sector", build.with_boot_sector(build.raw())
    yield "gpt", build.gpt()
    yield "text", b"/etc/passwd\n" * 100
    yield "json", b'json:{"driver":"qcow2","file":{"driver":"file","filename":"/etc/passwd"}}'
    yield "ascii-then-not", b"a" * 600 + bytes(range(128, 256)) * 8
    yield "qcow2-in-the-middle", bytes(SECTOR) + build.qcow2()
    yield "vmdk-in-the-middle", bytes(SECTOR) + build.vmdk()
    yield "vhd-footer-not-at-the-end", build.vhd_fixed() + bytes(SECTOR)
    yield "almost-qcow2", b"QFI\xfa" + CONTENT
    yield "almost-qed", b"QED\x01" + CONTENT
    yield "qed-in-the-middle", bytes(SECTOR) + build.qed()
    yield "qcow-in-the-middle", bytes(SECTOR) + build.qcow1()
    yield "elf", b"\x7fELF" + CONTENT


def packed() -> Iterator[tuple[str, bytes]]:
    """Not disks at all: raw bytes where raw is declared (an initial ramdisk is gzip), refused where it is not."""
    yield "gzip", b"\x1f\x8b\x08\x00" + CONTENT
    yield "xz", b"\xfd7zXZ\x00" + CONTENT
    yield "zstd", b"\x28\xb5\x2f\xfd" + CONTENT
    yield "bzip2", b"BZh91AY&SY" + CONTENT
    yield "zip", b"PK\x03\x04" + CONTENT
    yield "tar", bytes(257) + b"ustar\x0000" + CONTENT
