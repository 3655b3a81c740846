"""An OVA in a bucket becomes images: one of the system disk, one of each data disk. The disks are made by qemu-img."""

import gzip
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.test_kills import dying_worker, healthy_worker
from tests.disks import build, ova
from tests.disks.ova import Disk, disk
from tests.service import Client, Service, until

SIZE: Final = 3 * 1024**2
GIB: Final = 1024**3
FORMATS: Final = {
    "vmdk": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    "qcow2": ("-O", "qcow2", "-c"),
    "raw": ("-O", "raw"),
    "vhd": ("-O", "vpc", "-o", "subformat=dynamic,force_size=on"),
    "fixed.vhd": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("-O", "vhdx"),
    "vdi": ("-O", "vdi"),
}
DEBIAN: Final = "Debian GNU/Linux 12.0.0 64bit"
WINDOWS: Final = '<OperatingSystemSection ovf:id="1" v:osType="windows9_64Guest"><Info/></OperatingSystemSection>'


class Made:
    """A disk as a file of one format, and as the bytes that its guest sees."""

    def __init__(self, folder: Path, number: int, format_: str) -> None:
        self.raw = folder / f"{number}.bytes"
        self.raw.write_bytes(build.raw(SIZE)[:-512] + bytes([number]) * 512)
        self.file = folder / f"{number}.{format_}"
        command = ["qemu-img", "convert", "-f", "raw", *FORMATS[format_], str(self.raw), str(self.file)]
        subprocess.run(command, check=True)

    def disk(self, number: int, **fields: Any) -> Disk:
        return disk(self.file.read_bytes(), SIZE, number, name=self.file.name, **fields)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[int, str], Made]:
    return lambda number, format_: Made(tmp_path, number, format_)


@pytest.fixture
def bucket(demo: Client) -> str:
    name = f"ova-{os.urandom(4).hex()}"
    assert demo.http.put(f"/calotype/v1/buckets/{name}").status_code == 201
    return name


def submitted(client: Client, bucket: str, content: bytes, *, key: str = "web.ova", **fields: Any) -> str:
    client.put_object(bucket, key, content)
    return client.import_image(f"{bucket}:{key}", fields.pop("name", f"ova-{os.urandom(4).hex()}"), **fields)


def images_of(job: Mapping[str, Any]) -> list[str]:
    return [sub["entities"]["image_id"] for sub in job["entities"]["sub_jobs_result"]]


def assert_same_disk(client: Client, image_id: str, expected: Path, folder: Path) -> dict[str, Any]:
    """What a guest sees of an image is what was in the OVA."""
    image = client.image(image_id)
    assert image["status"] == "active"
    target = folder / image_id
    target.write_bytes(client.http.get(f"/v2/images/{image_id}/file").content)
    command = ["qemu-img", "compare", "-f", "raw", "-F", image["disk_format"]]
    subprocess.run([*command, str(expected), str(target)], check=True, capture_output=True)
    return image


def files_of(service: Service, *job_ids: str) -> set[str]:
    """Of jobs, beside the bytes of their images."""
    kept = {f"blobs/{job_id[:2]}/{job_id}" for job_id in job_ids}
    return {file for file in service.files() if any(job_id in file for job_id in job_ids)} - kept


# --- success ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_an_ova_of_one_disk_becomes_an_image_with_the_same_guest_bytes(
    service: Service, demo: Client, bucket: str, make: Callable[[int, str], Made], tmp_path: Path, format_: str
) -> None:
    made = make(1, format_)

    job = demo.succeeded(submitted(demo, bucket, ova.ova([made.disk(0)]), name="one-disk", os_version=DEBIAN))

    [image_id] = images_of(job)
    image = assert_same_disk(demo, image_id, made.raw, tmp_path)
    assert job["job_type"] == "imsImportOvaImageJob"
    assert [sub["job_type"] for sub in job["entities"]["sub_jobs_result"]] == ["imsImportImageJob"]
    assert job["entities"]["sub_jobs_list"] == [sub["job_id"] for sub in job["entities"]["sub_jobs_result"]]
    assert (job["entities"]["image_id"], job["entities"]["image_name"]) == (image_id, "one-disk")
    assert (image["name"], image["disk_format"], image["virtual_size"]) == ("one-disk", "qcow2", SIZE)
    assert (image["__os_version"], image["min_disk"]) == (DEBIAN, 4)
    assert image["__data_origin"] == f"file,{bucket}:web.ova"
    until(lambda: not files_of(service, job["job_id"], *job["entities"]["sub_jobs_list"]), "no stray file")


def test_an_ova_of_four_disks_becomes_a_system_image_and_three_data_images_in_the_order_of_the_machine(
    demo: Client, bucket: str, make: Callable[[int, str], Made], tmp_path: Path
) -> None:
    made = [make(number, format_) for number, format_ in enumerate(("qcow2", "vmdk", "raw", "vhdx"))]
    disks = [one.disk(place) for one, place in zip(made, (2, 0, 1, 3), strict=True)]
    disks[2].data, disks[2].compression = gzip.compress(disks[2].data), "gzip"
    body = {"name": "four", "description": "a machine", "enterprise_project_id": "0"}

    job = demo.succeeded(submitted(demo, bucket, ova.ova(disks, algorithm="SHA512", signed=True), **body))

    found = [
        assert_same_disk(demo, image_id, made[number].raw, tmp_path)
        for image_id, number in zip(images_of(job), (1, 2, 0, 3), strict=True)
    ]
    assert [image["name"] for image in found] == ["four", "four-data1", "four-data2", "four-data3"]
    assert [image["virtual_env_type"] for image in found] == ["FusionCompute", *["DataImage"] * 3]
    assert [image["min_disk"] for image in found] == [4, 1, 1, 1]
    assert {image["__os_type"] for image in found} == {"Linux"}
    assert {image["__description"] for image in found} == {"a machine"}
    assert "__os_version" not in found[1]
    types = [sub["job_type"] for sub in job["entities"]["sub_jobs_result"]]
    assert types == ["imsImportImageJob", *["imsImportDataImageJob"] * 3]


def test_the_os_is_that_of_the_ovf_where_it_is_certain_and_the_request_has_none(
    demo: Client, bucket: str, make: Callable[[int, str], Made]
) -> None:
    disks = [make(1, "vmdk").disk(0), make(2, "raw").disk(1)]
    content = ova.ova(disks, described=ova.ovf(disks, os=WINDOWS))

    of_ovf = demo.succeeded(submitted(demo, bucket, content))
    given = demo.succeeded(submitted(demo, bucket, content, os_version=DEBIAN))
    typed = demo.succeeded(submitted(demo, bucket, content, os_type="Linux"))

    told = [[demo.image(one).get("__os_version") for one in images_of(job)] for job in (of_ovf, given, typed)]
    kinds = [[demo.image(one)["__os_type"] for one in images_of(job)] for job in (of_ovf, given, typed)]
    assert told == [["Windows 10 64bit", None], [DEBIAN, None], ["Other Linux(64 bit)", None]]
    assert kinds == [["Windows"] * 2, ["Linux"] * 2, ["Linux"] * 2]


def test_a_file_is_an_ova_by_its_content_whatever_its_name(
    demo: Client, bucket: str, make: Callable[[int, str], Made]
) -> None:
    content = ova.ova([make(1, "vmdk").disk(0)], algorithm="")

    job = demo.succeeded(submitted(demo, bucket, content, key="disks/web.img"))

    assert job["job_type"] == "imsImportOvaImageJob"


def test_a_disk_is_kept_in_its_format_where_the_settings_say_so(
    make_service: Callable[..., Service], make: Callable[[int, str], Made], tmp_path: Path
) -> None:
    """In a bucket of the service the archive is linked, in a mapped folder only the disk is copied: both ways."""
    folder = tmp_path / "mapped"
    folder.mkdir()
    config = tmp_path / "calotype.toml"
    config.write_text(f'[buckets.mapped]\nfolder = "{folder}"\n')
    environment = {"CALOTYPE_CONFIG": str(config), "CALOTYPE_IMPORTS_FORMAT": "keep"}
    made = [make(1, "qcow2"), make(2, "vhdx")]
    content = ova.ova([made[0].disk(0), made[1].disk(1)])
    (folder / "web.ova").write_bytes(content)
    service = make_service(environment=environment).start()
    with service.demo() as client:
        jobs = [
            client.succeeded(submitted(client, "owned", content)),
            client.succeeded(client.import_image("mapped:web.ova", "mapped")),
        ]

        for job in jobs:
            for image_id, one, format_ in zip(images_of(job), made, ("qcow2", "vhdx"), strict=True):
                assert assert_same_disk(client, image_id, one.raw, tmp_path)["disk_format"] == format_
                assert client.image(image_id)["size"] == one.file.stat().st_size
        ids = [job_id for job in jobs for job_id in (job["job_id"], *job["entities"]["sub_jobs_list"])]
        until(lambda: not files_of(service, *ids), "no stray file")


# --- refusal and failure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "IsoImage", "os_version": DEBIAN}, "IMG.0024"),
        ({"is_quick_import": True, "os_version": DEBIAN}, "IMG.0072"),
        ({"data_images": [{"image_url": "other:disk", "min_disk": 1}]}, "IMG.0001"),
    ],
    ids=["an ISO", "a quick import", "data disks"],
)
def test_an_ova_is_refused_as(
    demo: Client, bucket: str, make: Callable[[int, str], Made], fields: dict[str, Any], code: str
) -> None:
    name = f"refused-{bucket}"
    key = "web.iso" if "type" in fields else "web.ova"
    demo.put_object(bucket, key, ova.ova([make(1, "raw").disk(0)]))
    body = {"name": name, "image_url": f"{bucket}:{key}", "min_disk": 4, **fields}

    answer = demo.http.post("/v2/cloudimages/action", json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert demo.http.get("/v2/images", params={"name": name}).json()["images"] == []


def failing(make: Callable[[int, str], Made], kind: str) -> bytes:
    disks = [make(number, "raw").disk(number) for number in range(2)]
    match kind:
        case "a file that is none":
            return disks[0].data
        case "a document type":
            return ova.ova(disks, described=ova.ovf(disks, before="<!DOCTYPE x>"))
        case "a disk at a URL":
            disks[1].name = "http://elsewhere/disk"
            return ova.ova(disks[:1], described=ova.ovf(disks), algorithm="")
        case "a disk larger than it says":
            disks[1].capacity = SIZE - 512
            return ova.ova(disks)
        case "a disk that names a file":
            disks[1].data = build.qcow2(backing=b"/etc/passwd")
            return ova.ova(disks)
        case "too many disks":
            return ova.ova([make(number, "raw").disk(number) for number in range(5)])
        case "a large system disk":
            disks[0].data, disks[0].capacity = build.qcow2(size=5 * GIB, l1_entries=10), 5 * GIB
            return ova.ova(disks)
    return ova.ova(disks)[: -SIZE // 2]


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        ("a file that is none", "IMG.0057", "tar"),
        ("a document type", "IMG.0057", "document type"),
        ("a disk at a URL", "IMG.0057", "no file of the archive"),
        ("a disk larger than it says", "IMG.0057", "the OVF says"),
        ("a disk that names a file", "IMG.0057", "backing file"),
        ("too many disks", "IMG.0194", "5 disks"),
        ("a large system disk", "IMG.0055", "5"),
        ("an archive that is cut", "IMG.0057", "cut short"),
    ],
)
def test_an_ova_fails_its_job_before_any_disk_is_read_and_leaves_no_image_for(
    service: Service, demo: Client, bucket: str, make: Callable[[int, str], Made], kind: str, code: str, says: str
) -> None:
    usage = demo.http.get("/v2/info/usage").json()
    name = f"broken-{bucket}"

    job = demo.ended(submitted(demo, bucket, failing(make, kind), name=name))

    assert (job["status"], job["error_code"]) == ("FAIL", code), job
    assert says in job["fail_reason"]
    assert job["entities"] == {"image_name": name, "error_code": code, "error": job["fail_reason"]}
    assert demo.http.get("/v2/images", params={"name": name}).json()["images"] == []
    assert demo.http.get("/v2/info/usage").json() == usage
    until(lambda: not files_of(service, job["job_id"]), "no stray file")


def spoilt(make: Callable[[int, str], Made], kind: str) -> bytes:
    """The second of three disks is not what it should be, which shows when it is read."""
    disks = [make(number, "vmdk").disk(number) for number in range(3)]
    if kind == "digest":
        whole = ova.ova(disks)
        at = whole.index(disks[1].data) + len(disks[1].data) - 1
        return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    disks[1].compression = "gzip"
    disks[1].data = {
        "damage": gzip.compress(disks[1].data)[:-20],
        "not packed": disks[1].data,
        "bomb": gzip.compress(bytes(80 * 1024**2)),
        "two formats": gzip.compress(build.qcow2(backing=b"/etc/passwd")),
    }[kind]
    return ova.ova(disks)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("digest", "does not have the sha256"),
        ("damage", "gzip data ends too early"),
        ("not packed", "gzip data is damaged"),
        ("bomb", "would be unpacked"),
        ("two formats", "backing file"),
    ],
)
def test_a_data_disk_that_fails_fails_the_job_and_leaves_the_other_images(
    service: Service, demo: Client, bucket: str, make: Callable[[int, str], Made], kind: str, says: str
) -> None:
    name = f"partly-{bucket}"

    job = demo.ended(submitted(demo, bucket, spoilt(make, kind), name=name))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
    assert says in job["fail_reason"]
    subs = job["entities"]["sub_jobs_result"]
    assert [sub["status"] for sub in subs] == ["SUCCESS", "FAIL", "SUCCESS"]
    assert [demo.image(subs[at]["entities"]["image_id"])["status"] for at in (0, 2)] == ["active", "active"]
    assert demo.http.get("/v2/images", params={"name": f"{name}-data1"}).json()["images"] == []
    until(lambda: not files_of(service, job["job_id"], *job["entities"]["sub_jobs_list"]), "no stray file")


# --- interruption -----------------------------------------------------------------------------------------------------

# After a step its work is done and not yet recorded: the worst moment. The first `inspect` is that of the parent.
POINTS: Final = [
    ("inspect", "before"),
    *((step, "after") for step in ("inspect", "fetch", "convert", "verify", "publish")),
]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("killed"), arguments=["--no-worker"])
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.mark.parametrize(("step", "moment"), POINTS)
def test_an_import_of_an_ova_goes_on_after_kill_9_of_its_worker_at(
    idle: Service, make: Callable[[int, str], Made], tmp_path: Path, step: str, moment: str
) -> None:
    made = [make(1, "vmdk"), make(2, "raw")]
    disks = [made[0].disk(0), made[1].disk(1)]
    disks[1].data, disks[1].compression = gzip.compress(disks[1].data), "gzip"
    name = f"killed-{step}-{moment}"
    with idle.demo() as client:
        worker = dying_worker(idle, step, moment)
        job_id = submitted(client, "golden", ova.ova(disks), key=f"{name}.ova", name=name)
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(idle):
            job = client.succeeded(job_id)
            subs = job["entities"]["sub_jobs_list"]
            until(lambda: not files_of(idle, job_id, *subs), f"no stray file: {files_of(idle, job_id, *subs)}")

        assert_whole(client, job, [one.raw for one in made], tmp_path)
        names = [image["name"] for image in client.http.get("/v2/images").json()["images"]]
        assert [names.count(name), names.count(f"{name}-data1")] == [1, 1]


def assert_whole(client: Client, job: Mapping[str, Any], expected: Sequence[Path], folder: Path) -> None:
    for image_id, raw in zip(images_of(job), expected, strict=True):
        assert_same_disk(client, image_id, raw, folder)


def test_a_cancelled_import_of_an_ova_leaves_nothing(idle: Service, make: Callable[[int, str], Made]) -> None:
    with idle.demo() as client:
        job_id = submitted(client, "golden", ova.ova([make(1, "raw").disk(0)]), name="unwanted")
        assert [image["status"] for image in named(client, "unwanted")] == ["queued"]

        assert client.http.post(f"/calotype/v1/jobs/{job_id}:cancel").status_code == 202

        assert client.job(job_id)["status"] == "FAIL"
        assert named(client, "unwanted") == []


def test_an_ova_that_changes_before_it_is_read_fails_its_job(idle: Service, make: Callable[[int, str], Made]) -> None:
    with idle.demo() as client:
        job_id = submitted(client, "golden", ova.ova([make(1, "raw").disk(0)]), key="changing.ova", name="changing")
        client.put_object("golden", "changing.ova", ova.ova([make(2, "raw").disk(0)]))

        with healthy_worker(idle):
            job = client.ended(job_id)

        assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057")
        assert "was changed meanwhile" in job["fail_reason"]
        assert named(client, "changing") == []


def named(client: Client, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.http.get("/v2/images", params={"name": name}).json()["images"]
    return found
