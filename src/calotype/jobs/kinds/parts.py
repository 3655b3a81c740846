"""What the job types that move bytes work with."""

from msgspec import Struct

from calotype.blobs.stores import Stores
from calotype.buckets.service import Buckets
from calotype.disks.convert import Converter
from calotype.disks.sandbox import Sandbox
from calotype.fetch.fetcher import Fetcher
from calotype.images.service import Images
from calotype.jobs.kinds.remote_image import RemoteImages
from calotype.servers.source import ServerSource
from calotype.settings import Settings


class Parts(Struct, frozen=True, kw_only=True):
    settings: Settings
    images: Images
    blobs: Stores
    buckets: Buckets
    converter: Converter
    sandbox: Sandbox
    fetcher: Fetcher  # of what users name
    remote: RemoteImages
    servers: ServerSource
