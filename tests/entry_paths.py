"""Every way by which bytes from outside become those of an image, or reach qemu: what the tests attack.

`PATHS` are the ways, each with what attacks through it. The tables below them say of each member of a list that is
made from the source (`tests/architecture/test_entry_paths.py`) by which of these ways bytes come to it, or why none do.
A new job type, route, import method or call in none of them fails a test, and so does an entry for what is gone.

To add a way: a driver in `entry_drivers.py`, an entry in `PATHS`, its name in the tables.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from calotype.jobs.model import JobType
from tests import entry_drivers as drive
from tests.disks.corpus import Case
from tests.entry_drivers import Ground, Wait


class EntryPath(Struct, frozen=True, kw_only=True):
    """`codes`: of IMS, that are told in place of the gate's own, because something looks at the disk before it."""

    drive: Callable[[Ground, Case], Wait]
    takes: Callable[[Case], bool] = lambda _case: True  # other content goes no way that is different from another
    codes: frozenset[str] = frozenset()


CAPTURE: Final = frozenset({"IMG.0022", "IMG.0111"})  # the disk is larger than one may be
PATHS: Final[Mapping[str, EntryPath]] = {
    # Image v2
    "upload": EntryPath(drive=drive.upload),
    "stage": EntryPath(drive=drive.stage),
    **{f"stage-{packing}": EntryPath(drive=drive.packed(packing)) for packing in drive.PACKERS},
    "web-download": EntryPath(drive=drive.web_download),
    "glance-download": EntryPath(drive=drive.glance_download),
    "task": EntryPath(drive=drive.task),
    "location-patch": EntryPath(drive=drive.patch_location),
    "location-post": EntryPath(drive=drive.post_location),
    # a file in a bucket
    "import": EntryPath(drive=drive.import_system),
    "import-mapped": EntryPath(drive=drive.import_mapped),
    **{f"import-{packing}": EntryPath(drive=drive.import_packed(packing)) for packing in drive.PACKERS},
    "import-data": EntryPath(drive=drive.import_data),
    "import-quick": EntryPath(drive=drive.import_quick),
    "import-iso": EntryPath(drive=drive.import_iso),
    "import-several": EntryPath(drive=drive.import_several),
    "import-unseen": EntryPath(drive=drive.import_unseen),
    "import-zvhd": EntryPath(drive=drive.import_zvhd, takes=drive.is_opened),
    "import-zvhd2": EntryPath(drive=drive.import_zvhd2, takes=drive.is_opened),
    "import-ova": EntryPath(drive=drive.import_ova),
    "import-packed-ova": EntryPath(drive=drive.import_packed_ova),
    "register": EntryPath(drive=drive.register),
    # servers, disks, backups
    "server": EntryPath(drive=drive.server, codes=CAPTURE),
    "volume": EntryPath(drive=drive.volume, codes=CAPTURE),
    "data-volumes": EntryPath(drive=drive.data_volumes, codes=CAPTURE),
    "whole-server": EntryPath(drive=drive.whole_server, codes=CAPTURE),
    "whole-backup": EntryPath(drive=drive.whole_backup, codes=CAPTURE),
}

PACKED_FILE: Final = tuple(f"import-{packing}" for packing in drive.PACKERS)
BUCKET: Final = (
    "import",
    "import-mapped",
    *PACKED_FILE,
    "import-data",
    "import-quick",
    "import-iso",
    "import-several",
    "import-unseen",
    "import-zvhd",
    "import-zvhd2",
    "import-ova",
    "import-packed-ova",
    "register",
)
INTEROPERABLE: Final = ("stage", *(f"stage-{packing}" for packing in drive.PACKERS), "web-download", "glance-download")
ONE_DISK: Final = ("server", "volume", "data-volumes")
WHOLE: Final = ("whole-server", "whole-backup")
ALL_JOBS: Final = (*BUCKET, *ONE_DISK, *INTEROPERABLE, "task")

# Names in `PATHS`, or why no bytes come in.
Ways = tuple[str, ...] | str

SHARED: Final = "changes who may see an image, and no byte of it"
JOBS: Final[Mapping[JobType, Ways]] = {
    JobType.IMPORT: tuple(name for name in BUCKET if name not in ("import-data", "register")),
    JobType.IMPORT_DATA: ("import-data", "import-several"),
    JobType.OVA: ("import-ova", "import-packed-ova"),
    JobType.REGISTER: ("register",),
    JobType.INTEROPERABLE: INTEROPERABLE,
    JobType.TASK: ("task",),
    JobType.LOCATE: ("location-post",),
    JobType.FROM_SERVER: ("server",),
    JobType.FROM_VOLUME: ("volume",),
    JobType.FROM_VOLUMES: ("data-volumes",),
    JobType.COPY_VOLUME: ("data-volumes",),
    JobType.WHOLE_FROM_SERVER: ("whole-server",),
    JobType.WHOLE_FROM_BACKUP: ("whole-backup",),
    JobType.COPY: "a second row for the bytes of an active image, which came in by another way",
    JobType.COPY_ACROSS: "bytes of an active image leave; the region that they go to takes them as an upload",
    JobType.REPLICATE: "bytes of an active image, whose digests are compared, go to another store of the service",
    JobType.EXPORT: "bytes of an active image leave; they are looked at again before qemu reads them",
    JobType.ADD_MEMBERS: SHARED,
    JobType.REMOVE_MEMBERS: SHARED,
    JobType.ANSWER_OFFERS: SHARED,
}

# Routes whose body is bytes of any kind, by method and path.
ROUTES: Final[Mapping[str, Ways]] = {
    "PUT /v2/images/{image_id}/file": ("upload",),
    "PUT /v2/images/{image_id}/stage": ("stage",),
    "PUT /calotype/v1/buckets/{bucket}/objects/{key:path}": BUCKET,  # an object is no image's until it is imported
}

# Methods of an interoperable import, as the settings have them.
METHODS: Final[Mapping[str, Ways]] = {
    "glance-direct": ("stage",),
    "web-download": ("web-download",),
    "glance-download": ("glance-download",),
    "copy-image": JOBS[JobType.REPLICATE],
}

AFTER_GATE: Final = "is given what the gate has let pass, by those who call it: they are in this table"
# Uses of what makes an image active, gives bytes their last name, or lets a child read them: MODULE SCOPE NAME.
CALLS: Final[Mapping[str, Ways]] = {
    # an image becomes active
    "images/upload.py Upload._finish activate_in": ("upload",),
    "images/locations.py Locations._write point_in": ("location-patch",),
    "jobs/kinds/locate.py Locate._publish point_in": ("location-post",),
    "jobs/kinds/ingest.py Ingest._publish activate_in": (*BUCKET, *ONE_DISK),
    "jobs/kinds/interoperable.py Interoperable._publish activate_in": (*INTEROPERABLE, "task"),
    "jobs/kinds/whole_server.py WholeServer._activate_in activate_in": WHOLE,
    "jobs/kinds/whole_server.py WholeServer._publish keep_in": WHOLE,
    # a row for bytes
    "images/lifecycle.py Lifecycle.activate_in insert_blob": AFTER_GATE,
    "images/lifecycle.py Lifecycle.point_in insert_blob": AFTER_GATE,
    "backups/service.py Backups.keep_in insert_blob": AFTER_GATE,
    # bytes get their last name
    "images/upload.py Upload._finish publish": ("upload",),
    "jobs/kinds/ingest.py Ingest._publish publish": (*BUCKET, *ONE_DISK),
    "jobs/kinds/interoperable.py Interoperable._place publish": (*INTEROPERABLE, "task"),
    "jobs/kinds/whole_server.py WholeServer._publish publish": WHOLE,
    "blobs/stores.py Stores.publish publish": AFTER_GATE,
    "blobs/stores.py Stores.replicate publish": JOBS[JobType.REPLICATE],
    "buckets/folder.py FolderStore.put_file publish": "an object of a bucket, which is no image: an export's result",
    "buckets/service.py Buckets.put publish": "an object of a bucket, which is no image's until it is imported",
    # qemu reads an image
    "jobs/kinds/ingest.py Ingest._inspect check": (*BUCKET, *ONE_DISK, "whole-server", "whole-backup"),
    "jobs/kinds/ingest.py Ingest._convert convert": ALL_JOBS,
    "jobs/kinds/ingest.py Ingest._compare compare": ALL_JOBS,
    "jobs/kinds/ingest.py Ingest._detected detect": (*BUCKET, *ONE_DISK, "whole-server", "whole-backup"),
    "jobs/kinds/ingest.py Ingest._compare check": ALL_JOBS,
    "jobs/kinds/import_ova.py ImportDisk._kept compare": ("import-ova",),
    "jobs/kinds/interoperable.py Interoperable._inspect check": (*INTEROPERABLE, "task"),
    "jobs/kinds/whole_server.py DiskSteps._inspect check": WHOLE,
    "jobs/kinds/export.py Export._convert convert": JOBS[JobType.EXPORT],
    "jobs/kinds/export.py Export._verify compare": JOBS[JobType.EXPORT],
    "servers/flattening.py flattening flatten": "layers that the gate has let pass one by one (servers/disk_files.py)",
    # a child sees bytes
    "disks/convert.py Converter._qemu_img run": AFTER_GATE,
    "disks/guest/detect.py _run run": AFTER_GATE,
    "disks/measure.py most_bytes run": AFTER_GATE,
    "disks/writers/run.py _served run": AFTER_GATE,
    "jobs/kinds/ingest_file.py IngestFile._is_seen_inside run": "asks whether it can be read there",
    "disks/unpack.py unpack_zstd run": (
        "stage-zst",
        "import-zst",
        "import-zvhd2",
    ),  # not qemu: what comes out goes to the gate
    "disks/zvhd.py _packed run": JOBS[JobType.EXPORT],
    # a packed file is opened
    "jobs/kinds/unpacking.py _by_the_tool unpack_zstd": ("stage-zst", "import-zst"),
    "jobs/kinds/zvhd_file.py unpack unpack_zstd": ("import-zvhd2",),
}
