"""Checksums made right again in a bent file: else a fuzzer would see no further than them."""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

from calotype.disks.formats.crc32c import crc32c
from fuzz.sparse import SECTOR, reading

VHD_FOOTER: Final = (b"conectix", 64, SECTOR)
VHD_HEADER: Final = (b"cxsparse", 36, 2 * SECTOR)
VHDX: Final = {b"head": 4 * 1024, b"regi": 64 * 1024}
TAR_MARK: Final = b"ustar"


def repaired(sectors: Mapping[int, bytes], size: int) -> dict[int, bytes]:
    """Of VHD (footer and header), VHDX (headers and region tables), GPT and tar."""
    whole = dict(sectors)
    for number, sector in sectors.items():
        at = number * SECTOR
        if sector[:8] in (VHD_FOOTER[0], VHD_HEADER[0]):
            _, place, length = VHD_FOOTER if sector[:8] == VHD_FOOTER[0] else VHD_HEADER
            data = reading(whole, size)(at, length).ljust(length, b"\0")
            total = ~(sum(data) - sum(data[place : place + 4])) & 0xFFFFFFFF
            whole[number] = _put(sector, place, struct.pack(">I", total))
        elif sector[:4] in VHDX:
            data = reading(whole, size)(at, VHDX[sector[:4]])
            whole[number] = _put(sector, 4, struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])))
        elif sector[:8] == b"EFI PART":
            length = struct.unpack_from("<I", sector, 12)[0]
            if 92 <= length <= SECTOR:
                whole[number] = _put(
                    sector, 16, struct.pack("<I", zlib.crc32(sector[:16] + bytes(4) + sector[20:length]))
                )
        elif sector[257:262] == TAR_MARK:
            total = sum(sector) - sum(sector[148:156]) + 8 * ord(" ")
            whole[number] = _put(sector, 148, b"%06o\0 " % total)
    return whole


def _put(sector: bytes, at: int, data: bytes) -> bytes:
    return sector[:at] + data + sector[at + len(data) :]
