"""Buckets that lie on an S3 server: imported from by ranges and never twice, exported to, and used like any other; a
server that cuts, goes away, or is told wrong keys loses nothing and tells no secret."""

import gzip
import hashlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.disks import build, ova
from tests.s3 import SECRET_KEY, S3Server, mapping, s3_server, written
from tests.service import CALOTYPE, Client, Service, until

MIB: Final = 1024**2
WRONG_SECRET: Final = "canary-wrong-secret-0123456789"
BEGIN_AND_END: Final = MIB  # of what the gate reads of a file, more than the half


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def cloud(s3: S3Server) -> str:
    """The name of the bucket on the server."""
    return s3.bucket()


@pytest.fixture(scope="module")
def service(s3: S3Server, cloud: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("s3")
    url = f"{s3.url}/{cloud}"
    config = written(
        folder / "calotype.toml",
        {
            "cloud": mapping(url, prefix="below"),
            "sealed": mapping(url, prefix="below", read_only=True),
            "wrong": mapping(url, secret_key=WRONG_SECRET),
            "missing": mapping(f"{s3.url}/b-that-is-not-there"),
        },
    )
    environment = {
        "CALOTYPE_CONFIG": str(config),
        "CALOTYPE_IMPORTS_FORMAT": "keep",
        "CALOTYPE_IMPORTS_DETECT_OS": "false",
        "CALOTYPE_JOBS_HEARTBEAT_S": "0.5",
        "CALOTYPE_JOBS_DEAD_AFTER_S": "3",
        "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "100",
    }
    running = Service(folder, environment=environment)
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def demo(service: Service, s3: S3Server) -> Iterator[Client]:
    with service.demo() as client:
        yield client
    s3.release()


class Bucket:
    """As other programs see it."""

    def __init__(self, s3: S3Server, name: str) -> None:
        self.s3 = s3
        self.name = name
        self.client = s3.client()

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"below/{key}", Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=f"below/{key}")["Body"].read()
        return data

    def sent(self, key: str) -> int:
        return self.s3.sent[f"/{self.name}/below/{key}"]

    def uploads(self) -> list[Any]:
        found: list[Any] = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return found


@pytest.fixture
def bucket(s3: S3Server, cloud: str) -> Bucket:
    return Bucket(s3, cloud)


def disk(seed: int, size: int = 24 * MIB) -> bytes:
    """A raw disk that begins with a boot sector, half of it zeros."""
    data = random.Random(seed).randbytes(size // 4)
    return build.with_boot_sector(data + bytes(size // 2) + data)


def converted(folder: Path, raw: bytes, *options: str) -> bytes:
    source, target = folder / "raw", folder / "converted"
    source.write_bytes(raw)
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, str(source), str(target)], check=True)
    return target.read_bytes()


def guest_bytes(folder: Path, data: bytes, format_: str) -> bytes:
    source, target = folder / "image", folder / "guest"
    source.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", format_, "-O", "raw", str(source), str(target)], check=True)
    return target.read_bytes()


def downloaded(client: Client, job: dict[str, Any]) -> bytes:
    answer = client.http.get(f"/v2/images/{job['entities']['image_id']}/file")
    assert answer.status_code == 200
    return answer.content


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def left_of(service: Service, job_id: str) -> set[str]:
    return {file for file in service.files() if job_id in file} - {f"blobs/{job_id[:2]}/{job_id}"}


# --- imports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["raw", "qcow2", "iso"])
def test_what_is_kept_as_it_is_leaves_the_server_once_and_its_zeros_take_no_room(
    service: Service, demo: Client, bucket: Bucket, tmp_path: Path, format_: str
) -> None:
    raw = disk(1)
    content = {
        "raw": lambda: raw,
        "qcow2": lambda: converted(tmp_path, raw, "-O", "qcow2"),
        "iso": lambda: build.iso() + bytes(20 * MIB) + raw[:MIB],
    }[format_]()
    bucket.put(f"kept.{format_}", content)
    fields = {"type": "IsoImage", "os_version": "Ubuntu 22.04 server 64bit"} if format_ == "iso" else {}

    job = demo.succeeded(demo.import_image(f"cloud:kept.{format_}", f"kept-{format_}", **fields))

    image = demo.image(job["entities"]["image_id"])
    assert (image["disk_format"], image["size"]) == (format_, len(content))
    assert downloaded(demo, job) == content
    assert bucket.sent(f"kept.{format_}") <= len(content) + 2 * BEGIN_AND_END
    blob = service.data_dir / "blobs" / job["job_id"][:2] / job["job_id"]
    if format_ != "qcow2":  # that has none
        assert blob.stat().st_blocks * 512 < len(content) * 3 / 4
    until(lambda: not left_of(service, job["job_id"]), "nothing left")


def test_what_is_converted_leaves_the_server_once(
    service: Service, demo: Client, bucket: Bucket, tmp_path: Path
) -> None:
    raw = disk(2)
    content = converted(tmp_path, raw, "-O", "qed")
    bucket.put("old.qed", content)

    job = demo.succeeded(demo.import_image("cloud:old.qed", "converted"))

    assert demo.image(job["entities"]["image_id"])["disk_format"] == "qcow2"
    assert guest_bytes(tmp_path, downloaded(demo, job), "qcow2") == raw
    assert bucket.sent("old.qed") <= len(content) + 2 * BEGIN_AND_END
    until(lambda: not left_of(service, job["job_id"]), "nothing left")


@pytest.mark.parametrize("key", ["digest.raw", "digest.qed", "digest.ova"])
def test_the_expected_digest_of_an_object_is_checked(demo: Client, bucket: Bucket, tmp_path: Path, key: str) -> None:
    raw = disk(16, 2 * MIB)
    content = {
        "raw": lambda: raw,
        "qed": lambda: converted(tmp_path, raw, "-O", "qed"),
        "ova": lambda: ova.ova([ova.disk(raw, len(raw), 0, name="0.raw")]),
    }[key.rpartition(".")[2]]()
    bucket.put(key, content)
    right, wrong = (f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (content, raw + b"x"))

    demo.succeeded(demo.import_image(f"cloud:{key}", "right", source_digest=right))
    job = demo.ended(demo.import_image(f"cloud:{key}", "wrong", source_digest=wrong))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057")
    assert "has the digest" in job["fail_reason"]


def test_what_is_packed_is_unpacked(demo: Client, bucket: Bucket) -> None:
    raw = disk(3, 4 * MIB)
    bucket.put("packed.raw.gz", gzip.compress(raw, 1))

    job = demo.succeeded(demo.import_image("cloud:packed.raw.gz", "packed"))

    assert downloaded(demo, job) == raw
    assert bucket.sent("packed.raw.gz") <= 2 * 4 * MIB


def test_of_an_ova_each_disk_is_read_where_it_lies(demo: Client, bucket: Bucket) -> None:
    disks = [disk(4, 12 * MIB), disk(5, 8 * MIB)]
    content = ova.ova([ova.disk(one, len(one), number, name=f"{number}.raw") for number, one in enumerate(disks)])
    bucket.put("web.ova", content)

    job = demo.succeeded(demo.import_image("cloud:web.ova", "web"))

    parts = [demo.job(one["job_id"]) for one in job["entities"]["sub_jobs_result"]]
    assert sorted(map(len, (downloaded(demo, part) for part in parts))) == sorted(map(len, disks))
    assert bucket.sent("web.ova") <= len(content) + 8 * BEGIN_AND_END


# --- exports, and objects of the API ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MIB, 24 * MIB], ids=["whole", "in-parts"])
def test_an_export_is_there_whole_and_only_once(
    service: Service, demo: Client, bucket: Bucket, tmp_path: Path, size: int
) -> None:
    raw = disk(6, size)
    bucket.put(f"{size}.raw", raw)
    image_id = demo.succeeded(demo.import_image(f"cloud:{size}.raw", "to-export"))["entities"]["image_id"]
    body = {"bucket_url": f"cloud:out/{size}.qcow2", "file_format": "qcow2"}

    demo.succeeded(demo.submit("POST", f"/v1/cloudimages/{image_id}/file", body))

    assert guest_bytes(tmp_path, bucket.get(f"out/{size}.qcow2"), "qcow2") == raw
    again = demo.http.post(f"/v1/cloudimages/{image_id}/file", json=body)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "IMG.0070")
    assert bucket.uploads() == []
    assert not list((service.data_dir / "buckets" / "uploads").glob("*"))


def test_objects_are_put_listed_read_and_deleted_like_those_of_any_bucket(demo: Client, bucket: Bucket) -> None:
    base, data = "/calotype/v1/buckets/cloud/objects", random.Random(8).randbytes(20 * MIB)

    assert demo.http.put(f"{base}/api/large", content=data).status_code == 201
    assert demo.http.put(f"{base}/api/small", content=b"small").status_code == 201

    assert bucket.get("api/large") == data
    listing = demo.http.get(base, params={"prefix": "api/"}).json()
    assert [(one["key"], one["size"]) for one in listing["objects"]] == [("api/large", len(data)), ("api/small", 5)]
    assert demo.get_object("cloud", "api/large") == data
    part = demo.http.get(f"{base}/api/large", headers={"Range": "bytes=9000000-9000009"})
    assert (part.status_code, part.content) == (206, data[9_000_000:9_000_010])
    head = demo.http.head(f"{base}/api/small")
    assert demo.http.get(f"{base}/api/small", headers={"If-None-Match": head.headers["ETag"]}).status_code == 304
    assert demo.http.put(f"{base}/api/small", content=b"x", headers={"If-None-Match": "*"}).status_code == 409
    assert demo.http.put(f"{base}/api/bad", content=b"x", headers={"Content-MD5": "0" * 32}).status_code == 400
    assert demo.http.delete(f"{base}/api/small").status_code == 204
    assert [demo.http.get(f"{base}/api/{name}").status_code for name in ("small", "bad")] == [404, 404]
    assert bucket.uploads() == []


def test_the_command_line_uses_it_like_any_bucket(service: Service, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from the command line")

    service.run("calotype", "bucket", "put", str(tmp_path / "file"), "cloud:cli/file")
    service.run("calotype", "bucket", "get", "cloud:cli/file", "--output", str(tmp_path / "back"))

    assert (tmp_path / "back").read_bytes() == bucket.get("cli/file") == b"from the command line"
    listed = service.run_json("calotype", "bucket", "list", "cloud", "--prefix", "cli/", "--json")
    assert [one["key"] for one in listed] == ["cli/file"]


def test_a_read_only_bucket_is_read_only(demo: Client, bucket: Bucket) -> None:
    bucket.put("seen", b"seen")
    base = "/calotype/v1/buckets/sealed"

    answers = [
        demo.http.put(f"{base}/objects/new", content=b"new"),
        demo.http.delete(f"{base}/objects/seen"),
        demo.http.delete(base),
    ]

    assert [(one.status_code, code(one)) for one in answers] == [
        (403, "bucket_read_only"),
        (403, "bucket_read_only"),
        (403, "bucket_mapped"),
    ]
    assert demo.get_object("sealed", "seen") == b"seen"


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_transfer_that_is_cut_goes_on_where_it_was(demo: Client, bucket: Bucket, s3: S3Server) -> None:
    raw = disk(10)
    bucket.put("cut.raw", raw)
    s3.cuts = 3

    job = demo.succeeded(demo.import_image("cloud:cut.raw", "cut"))

    assert downloaded(demo, job) == raw
    assert s3.cuts == 0
    assert bucket.sent("cut.raw") < 2 * len(raw)


def test_a_transfer_waits_for_a_server_that_has_gone_away(demo: Client, bucket: Bucket, s3: S3Server) -> None:
    raw = disk(11, 32 * MIB)
    bucket.put("away.raw", raw)
    hold(s3, after=9 * MIB)
    job_id = demo.import_image("cloud:away.raw", "away")
    assert s3.held.wait(timeout=60)

    s3.away = True
    s3.release()
    before = len(s3.requests)
    until(lambda: len(s3.requests) > before + 10, "requests in vain")
    s3.away = False

    assert downloaded(demo, demo.succeeded(job_id)) == raw
    assert bucket.sent("away.raw") < 2 * len(raw)


def test_an_object_that_is_replaced_under_a_job_fails_it(
    service: Service, demo: Client, bucket: Bucket, s3: S3Server
) -> None:
    bucket.put("changing.raw", disk(12, 32 * MIB))
    hold(s3, after=9 * MIB)
    job_id = demo.import_image("cloud:changing.raw", "changing")
    assert s3.held.wait(timeout=60)

    bucket.put("changing.raw", disk(13, 32 * MIB))
    s3.release()
    job = demo.ended(job_id)

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057")
    assert "was changed meanwhile" in job["fail_reason"]
    until(lambda: not left_of(service, job_id), "nothing left")


def test_an_import_survives_kill_9_of_its_worker_amid_the_transfer(
    service: Service, demo: Client, bucket: Bucket, s3: S3Server
) -> None:
    raw = disk(14, 32 * MIB)
    bucket.put("killed.raw", raw)
    hold(s3, after=9 * MIB)
    job_id = demo.import_image("cloud:killed.raw", "killed")
    assert s3.held.wait(timeout=60)

    service.kill_worker()
    s3.release()

    assert downloaded(demo, demo.succeeded(job_id)) == raw
    until(lambda: not left_of(service, job_id), "nothing left")


def test_a_job_that_is_cancelled_amid_the_transfer_leaves_nothing(
    service: Service, demo: Client, bucket: Bucket, s3: S3Server
) -> None:
    bucket.put("unwanted.raw", disk(15, 32 * MIB))
    hold(s3, after=9 * MIB)
    job_id = demo.import_image("cloud:unwanted.raw", "unwanted")
    assert s3.held.wait(timeout=60)

    assert demo.http.post(f"/calotype/v1/jobs/{job_id}:cancel").status_code == 202
    s3.release()

    assert demo.ended(job_id)["status"] == "FAIL"
    until(lambda: not left_of(service, job_id), "nothing left")


def test_wrong_keys_are_told_clearly_and_no_secret_is_told_anywhere(service: Service, demo: Client) -> None:
    base = "/calotype/v1/buckets/wrong/objects"

    answers = [
        demo.http.get(f"{base}/any"),
        demo.http.get(base),
        demo.http.put(f"{base}/any", content=b"any"),
        demo.http.post("/v2/cloudimages/action", json={"name": "n", "image_url": "wrong:any", "min_disk": 1}),
    ]

    assert [one.status_code for one in answers[:3]] == [403, 403, 403]
    assert code(answers[1]) == "bucket_denied"
    assert "SignatureDoesNotMatch" in answers[1].text
    assert (answers[3].status_code, code(answers[3])) == (400, "IMG.0069")
    command = [str(CALOTYPE), "settings"]
    shown = subprocess.run(command, env=service.environment, capture_output=True, text=True, check=True)
    told = "".join([*(one.text for one in answers), service.log.read_text(), shown.stdout, shown.stderr])
    assert "bucket_s3_refused" in told
    assert "wrong" in shown.stdout
    assert SECRET_KEY not in told
    assert WRONG_SECRET not in told


def test_a_bucket_that_the_server_does_not_have_is_not_found(demo: Client) -> None:
    for path in ("objects", "objects/any"):
        answer = demo.http.get(f"/calotype/v1/buckets/missing/{path}")

        assert (answer.status_code, code(answer)) == (404, "bucket_not_found")


def hold(s3: S3Server, *, after: int) -> None:
    s3.held.clear()
    s3.rearm()
    s3.hold_after = s3.sent.total() + after
