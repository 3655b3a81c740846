"""Attacks through each way by which bytes come in, over HTTP, as a client makes them.

A driver brings an attack in and returns how to wait for its end, so that many can be under way at once.
"""

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import subprocess
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec import Struct

from calotype.disks import zvhd
from tests import importing
from tests.disks import ova
from tests.disks.corpus import Case
from tests.importing import OCTETS, Source
from tests.inventory import Described
from tests.service import Client, Service, until

EVIL: Final = "evil"  # a region of the catalog whose image service is the attacker's
MAPPED: Final = "mapped"
SYSTEM: Final = {"os_version": "Ubuntu 18.04 server 64bit", "min_disk": 4}
TIB: Final = 1024**4
ACCEPTED: Final = (200, 202)
# Formats that the API of the path has a name for; what is of another one is said to be raw.
NAMED: Final = frozenset({"raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "gpt"})
DESCRIBED: Final = frozenset({"raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"})


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attack was refused: what was told, and with which of IMS's codes, where the API has them."""

    told: str
    code: str | None = None


Wait = Callable[[], Outcome]


class Passed(AssertionError):
    """An attack got in."""


class Ground:
    """A service, and everything that attacks come from."""

    def __init__(self, service: Service, demo: Client, admin: Client, source: Source, mapped: Path) -> None:
        self.service = service
        self.demo = demo
        self.admin = admin
        self.source = source
        self.mapped = mapped  # a folder that is the bucket `MAPPED`
        self.described = Described(service)
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"

    def put(self, key: str, content: bytes) -> str:
        """Put an object into the bucket, in a folder of its own; its address."""
        key = f"{uuid.uuid4().hex}/{key}"
        self.demo.put_object(self.bucket, key, content)
        return f"{self.bucket}:{key}"

    def usage(self) -> list[tuple[int, int, int]]:
        """Images, bytes and staged bytes that count in each project's quota, where there are any."""
        with closing(sqlite3.connect(self.service.data_dir / "calotype.db")) as db:
            rows = db.execute("SELECT images, bytes, staged_bytes FROM image_usage").fetchall()
        return [row for row in rows if any(row)]

    def images(self) -> list[dict[str, Any]]:
        """All there are, of every project."""
        found: list[dict[str, Any]] = []
        for client in (self.demo, self.admin):
            for hidden in ("false", "true"):
                path = f"/v2/images?limit=1000&os_hidden={hidden}"
                while path:
                    answer = client.http.get(path).json()
                    found += [image for image in answer["images"] if image["owner"] == client.project_id]
                    path = answer.get("next", "")
        return found


def declared(case: Case) -> str:
    return case.format if case.format in NAMED else "raw"


def refused(answer: httpx.Response) -> Outcome:
    """What an answer says that must be a refusal."""
    if answer.status_code < 400 or answer.status_code >= 500:
        raise Passed(f"answered {answer.status_code}: {answer.text[:200]}")
    error = answer.json()["error"]
    code = error["code"] if isinstance(error["code"], str) else None
    return Outcome(told=error.get("detail", error["message"]), code=code)


# --- Image v2 ---------------------------------------------------------------------------------------------------------


def new_image(ground: Ground, case: Case, **fields: Any) -> dict[str, Any]:
    return importing.create(ground.demo, **{"disk_format": declared(case), **fields})


def is_queued(client: Client, image: Mapping[str, Any]) -> None:
    status = client.image(image["id"])["status"]
    if status != "queued":
        raise Passed(f"the image is {status}")


def upload(ground: Ground, case: Case) -> Wait:
    return uploaded_as(ground, case, declared(case))


def uploaded_as(ground: Ground, case: Case, format_: str, container: str = "bare") -> Wait:
    image = new_image(ground, case, disk_format=format_, container_format=container)
    answer = ground.demo.http.put(image["file"], content=case.content, headers=OCTETS)
    is_queued(ground.demo, image)
    if not case.content and answer.status_code == 204:  # nothing was sent, so nothing is the matter
        return lambda: Outcome(told="")
    outcome = refused(answer)
    return lambda: outcome


def of_task(client: Client, image: Mapping[str, Any]) -> Outcome:
    task = importing.ended(client, image)
    if task["status"] != "failure":
        raise Passed(f"the task ended with {task['status']}")
    is_queued(client, image)
    return Outcome(told=task["message"])


def asked(ground: Ground, image: Mapping[str, Any], method: str, **fields: Any) -> Wait:
    answer = importing.ask(ground.demo, image, method, **fields)
    if answer.status_code != 202:
        outcome = refused(answer)
        return lambda: outcome
    return lambda: of_task(ground.demo, image)


def stage(ground: Ground, case: Case) -> Wait:
    return staged(ground, case, case.content)


def staged(ground: Ground, case: Case, content: bytes) -> Wait:
    image = new_image(ground, case)
    answer = importing.stage(ground.demo, image, content)
    if answer.status_code != 204:
        outcome = refused(answer)
        is_queued(ground.demo, image)
        return lambda: outcome
    return asked(ground, image, "glance-direct")


def zstd(content: bytes) -> bytes:
    command = ["zstd", "-q", "-1", "-c"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gz": lambda content: gzip.compress(content, 1),
    "xz": lambda content: lzma.compress(content, preset=0),
    "zst": zstd,
    "bz2": lambda content: bz2.compress(content, 1),
}


def packed(packing: str) -> Callable[[Ground, Case], Wait]:
    return lambda ground, case: staged(ground, case, PACKERS[packing](case.content))


def web_download(ground: Ground, case: Case) -> Wait:
    return asked(ground, new_image(ground, case), "web-download", uri=ground.source.url(case.content))


def glance_download(ground: Ground, case: Case) -> Wait:
    """From a service that says of its image what it likes."""
    image_id = str(uuid.uuid4())
    document = {
        "id": image_id,
        "status": "active",
        "size": len(case.content),
        "disk_format": declared(case),
        "container_format": "bare",
    }
    ground.source.files[f"/v2/images/{image_id}"] = json.dumps(document).encode()
    ground.source.files[f"/v2/images/{image_id}/file"] = case.content
    image = new_image(ground, case)
    return asked(ground, image, "glance-download", glance_image_id=image_id, glance_region=EVIL)


def task(ground: Ground, case: Case) -> Wait:
    """An admin's: it makes the image too."""
    name = f"task-{uuid.uuid4().hex}"
    properties = {"name": name, "disk_format": declared(case), "container_format": "bare"}
    url = ground.source.url(case.content)
    body = {
        "type": "import",
        "input": {"import_from": url, "import_from_format": "raw", "image_properties": properties},
    }
    answer = ground.admin.http.post("/v2/tasks", json=body)
    assert answer.status_code == 201, answer.text

    def wait() -> Outcome:
        ended = until(
            lambda: (
                (now := ground.admin.http.get(f"/v2/tasks/{answer.json()['id']}").json())["status"] in importing.ENDED
                and now
            ),
            "the task",
        )
        if ended["status"] != "failure" or named(ground.admin, name):
            raise Passed(f"the task ended with {ended['status']}")
        return Outcome(told=ended["message"])

    return wait


def patch_location(ground: Ground, case: Case) -> Wait:
    image = new_image(ground, case)
    operation = {
        "op": "add",
        "path": "/locations/-",
        "value": {"url": ground.source.url(case.content), "metadata": {}},
    }
    answer = ground.demo.http.patch(
        image["self"],
        content=json.dumps([operation]),
        headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
    )
    is_queued(ground.demo, image)
    outcome = refused(answer)
    return lambda: outcome


def post_location(ground: Ground, case: Case) -> Wait:
    image = new_image(ground, case)
    answer = ground.demo.http.post(f"{image['self']}/locations", json={"url": ground.source.url(case.content)})
    assert answer.status_code == 202, answer.text
    return lambda: of_task(ground.demo, image)


# --- IMS --------------------------------------------------------------------------------------------------------------


def named(client: Client, name: str) -> list[str]:
    """The statuses of the images whose names begin so."""
    found = client.http.get("/v2/images", params={"name": name}).json()["images"]
    return [image["status"] for image in found]


def job(ground: Ground, path: str, body: Mapping[str, Any], *, method: str = "POST") -> Wait:
    """A job that makes its image: none is left."""
    name = f"job-{uuid.uuid4().hex}"
    wait = submitted(ground, path, {"name": name, **body}, method=method)

    def waited() -> Outcome:
        outcome = wait()
        if left := named(ground.demo, name):
            raise Passed(f"an image is there: {left}")
        return outcome

    return waited


def submitted(ground: Ground, path: str, body: Mapping[str, Any], *, method: str = "POST") -> Wait:
    answer = ground.demo.http.request(method, path, json=body)
    if answer.status_code not in ACCEPTED:
        outcome = refused(answer)
        return lambda: outcome
    job_id = answer.json()["job_id"]

    def wait() -> Outcome:
        ended = ground.demo.ended(job_id)
        if ended["status"] != "FAIL":
            raise Passed(f"the job ended with {ended['status']}")
        return Outcome(told=ended["fail_reason"], code=ended["error_code"])

    return wait


CREATE: Final = "/v2/cloudimages/action"
DATA: Final = "/v1/cloudimages/dataimages/action"
QUICK: Final = "/v2/cloudimages/quickimport/action"
WHOLE: Final = "/v1/cloudimages/wholeimages/action"


def import_system(ground: Ground, case: Case) -> Wait:
    return job(ground, CREATE, {"image_url": ground.put("disk.img", case.content), **SYSTEM})


def import_packed(packing: str) -> Callable[[Ground, Case], Wait]:
    def imported(ground: Ground, case: Case) -> Wait:
        address = ground.put(f"disk.img.{packing}", PACKERS[packing](case.content))
        return job(ground, CREATE, {"image_url": address, **SYSTEM})

    return imported


def import_mapped(ground: Ground, case: Case) -> Wait:
    """From a folder of the host that is a bucket, whose files are read where they lie."""
    key = f"{uuid.uuid4().hex}.img"
    (ground.mapped / key).write_bytes(case.content)
    return job(ground, CREATE, {"image_url": f"{MAPPED}:{key}", **SYSTEM})


def import_data(ground: Ground, case: Case) -> Wait:
    return job(ground, DATA, {"image_url": ground.put("disk.img", case.content), "min_disk": 4})


def import_quick(ground: Ground, case: Case) -> Wait:
    address = ground.put("disk.raw", case.content)
    ground.demo.put_object(ground.bucket, address.partition(":")[2].replace(".raw", ".mf"), b"bitmap")
    return job(ground, QUICK, {"image_url": address, **SYSTEM})


def import_iso(ground: Ground, case: Case) -> Wait:
    return job(ground, CREATE, {"image_url": ground.put("disk.iso", case.content), "type": "IsoImage", **SYSTEM})


def import_several(ground: Ground, case: Case) -> Wait:
    """The system disk and two data disks, each of them an attack."""
    more = [{"image_url": ground.put(f"{name}.img", case.content), "min_disk": 4} for name in ("one", "two")]
    return job(ground, CREATE, {"image_url": ground.put("disk.img", case.content), **SYSTEM, "data_images": more})


def import_unseen(ground: Ground, case: Case) -> Wait:
    """Under a name of files that are kept without being looked into, where nothing is known of them."""
    return job(ground, CREATE, {"image_url": ground.put("disk.zvhd2", case.content), **SYSTEM})


def import_zvhd(ground: Ground, case: Case) -> Wait:
    """A VHD in the layout that is opened."""
    return job(ground, CREATE, {"image_url": ground.put("disk.zvhd", zlib.compress(case.content, 1)), **SYSTEM})


def import_zvhd2(ground: Ground, case: Case) -> Wait:
    return job(ground, CREATE, {"image_url": ground.put("disk.zvhd2", zvhd2(case.content)), **SYSTEM})


def zvhd2(content: bytes) -> bytes:
    """One frame, the label, and the table of both."""
    frame, label = zstd(content), zvhd.FRAME_HEAD.pack(zvhd.SKIPPABLE, len(zvhd.LAYOUT)) + zvhd.LAYOUT
    table = zvhd.ENTRY.pack(len(frame), len(content)) + zvhd.ENTRY.pack(len(label), 0)
    table += zvhd.TABLE_END.pack(2, 0, zvhd.SEEKABLE)
    return frame + label + zvhd.FRAME_HEAD.pack(zvhd.SEEK_TABLE, len(table)) + table


def is_opened(case: Case) -> bool:
    """Whether the content is taken for that of a ZVHD; what is not is kept without being looked into."""
    return zvhd.kind_in(io.BytesIO(zlib.compress(case.content, 1))) is not None


def import_ova(ground: Ground, case: Case) -> Wait:
    content = ova.ova([ova.disk(case.content, TIB)])
    return job(ground, CREATE, {"image_url": ground.put("machine.ova", content), **SYSTEM})


def import_packed_ova(ground: Ground, case: Case) -> Wait:
    content = ova.ova([ova.disk(gzip.compress(case.content, 1), TIB, compression="gzip")])
    return job(ground, CREATE, {"image_url": ground.put("machine.ova", content), **SYSTEM})


def register(ground: Ground, case: Case) -> Wait:
    image = new_image(ground, case)
    body = {"image_url": ground.put("disk.img", case.content)}
    wait = submitted(ground, f"/v1/cloudimages/{image['id']}/upload", body, method="PUT")

    def waited() -> Outcome:
        outcome = wait()
        is_queued(ground.demo, image)
        return outcome

    return waited


def told(case: Case) -> dict[str, Any]:
    """What the operator says of a disk. A size, because none is to be had from a file that is refused."""
    return {"format": case.format if case.format in DESCRIBED else "raw", "size_gb": 4}


def server(ground: Ground, case: Case) -> Wait:
    return job(ground, CREATE, {"instance_id": ground.described.server((case.content, told(case)))})


def volume(ground: Ground, case: Case) -> Wait:
    return job(ground, CREATE, {"volume_id": ground.described.volume(case.content, **told(case)), **SYSTEM})


def data_volumes(ground: Ground, case: Case) -> Wait:
    disks = ((case.content, told(case)) for _ in range(3))
    server_id = ground.described.server(*disks)
    volumes = [{"volume_id": f"{server_id[:8]}-vol{number}"} for number in (1, 2)]
    return job(ground, CREATE, {"data_images": volumes})


def whole_server(ground: Ground, case: Case) -> Wait:
    """A sound system disk, and an attack as data disk."""
    server_id = ground.described.server((b"\0" * 4096, {"size_gb": 4}), (case.content, told(case)))
    return job(ground, WHOLE, {"instance_id": server_id})


def whole_backup(ground: Ground, case: Case) -> Wait:
    backup_id = ground.described.backup((case.content, told(case)))
    return job(ground, WHOLE, {"backup_id": backup_id, "whole_image_type": "CBR"})
