"""What the job types that move bytes work with."""

from msgspec import Struct

from calotype.blobs.stores import Stores
from calotype.buckets.service import Buckets
from calotype.disks.convert import Converter
from calotype.images.service import Images
from calotype.settings import Settings


class Parts(Struct, frozen=True, kw_only=True):
    settings: Settings
    images: Images
    blobs: Stores
    buckets: Buckets
    converter: Converter
