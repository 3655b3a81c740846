"""An object that stays open while it is read: whatever becomes of its name, the bytes are those of one file."""

import hashlib
import os

from calotype.blobs.local import BlobReader
from calotype.buckets.model import ObjectInfo
from calotype.errors import ObjectChanged


class HeldObject(BlobReader):
    """Of a folder that other programs may write to as well: its file may be changed in place, and is another version
    then. In a bucket of our own it is not, but other names of the file come and go, which makes another version too."""

    def __init__(self, fd: int, info: ObjectInfo) -> None:
        super().__init__(fd, info.size)
        self.info = info
        self.version = version_of(os.fstat(fd))

    def check(self, version: str | None = None) -> None:
        """Raise `ObjectChanged` if the file is no longer what it was when it was opened, or at `version`."""
        if version_of(os.fstat(self.fileno())) != (version or self.version):
            raise ObjectChanged(f"object {self.info.key} was changed meanwhile")


def version_of(found: os.stat_result) -> str:
    """Another one after every change to a file, also after one that sets the time of the last change back. As an etag,
    it is not of the device, whose number may change when the machine starts anew; who holds a file needs no number."""
    identity = f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
