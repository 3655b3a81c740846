"""How large the disk in an object is, from the object's first bytes: what `min_disk` has to be at least.

Only to save the person the number: the service looks at the whole file itself, and refuses what does not fit.
"""

import io
from collections.abc import Mapping
from typing import IO, Final, cast

from calotype.cli.failure import Failure
from calotype.cli.session import Api
from calotype.disks.formats import qed
from calotype.disks.unpack import MARKS

HEAD_BYTES: Final = 4 * 1024 * 1024  # holds what every format says of its size
FOOTER_BYTES: Final = 512  # of a fixed VHD, which is a raw disk otherwise
GIB: Final = 1024**3


def least_disk(api: Api, path: str) -> int:
    """GB that a server's disk needs at least for the disk image at `path`; 1 when there is nothing to see.

    Raises `Failure` when there is no such object, and when it is packed, so that its first bytes say nothing.
    """
    try:
        with api.answer("GET", path, headers={"range": f"bytes=0-{HEAD_BYTES - 1}"}) as response:
            size = _whole_size(response.headers)
            head = response.read()
    except Failure as failure:
        if failure.status == 416:  # an empty object has no first byte
            return 1
        raise
    if head.startswith(tuple(MARKS)):
        raise Failure("size_unknown", "the object is packed: how large the disk is cannot be seen", "give --min-disk")
    virtual = virtual_size(head)
    if virtual is None:
        virtual = size - (FOOTER_BYTES if _has_footer(api, path) else 0)
    return max(1, -(-virtual // GIB))


def virtual_size(head: bytes) -> int | None:
    """Bytes that a guest sees, as the header says; None where the file itself is the disk, or nothing is said."""
    from oslo_utils.imageutils import format_inspector

    if head.startswith(qed.MAGIC):  # whose header oslo.utils does not read
        return qed.size_in(head)
    wrapper = format_inspector.InspectWrapper(cast("IO[bytes]", io.BytesIO(head)))
    while wrapper.read(64 * 1024):
        pass
    wrapper.close()
    try:
        found = wrapper.format
        size = (
            int(found.virtual_size)
            if found is not None and str(found) in ("qcow2", "vmdk", "vhd", "vhdx", "vdi")
            else 0
        )
    except (format_inspector.ImageFormatError, ValueError, KeyError, IndexError):
        return None
    return size if size > 0 else None


def _has_footer(api: Api, path: str) -> bool:
    with api.answer("GET", path, headers={"range": f"bytes=-{FOOTER_BYTES}"}) as response:
        return response.read().startswith(b"conectix")


def _whole_size(headers: Mapping[str, str]) -> int:
    told = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "0")
    return int(told) if told.isdigit() else 0
