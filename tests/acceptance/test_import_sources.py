"""Where an import reads its bytes: where they lie, and never a second copy of them; and that they are those that were
meant, by the file's version in a folder that others write to, and by the digest that was told beforehand."""

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from calotype.disks.sandbox import Sandbox
from tests.chaos.test_import_kills import go_on, held
from tests.chaos.test_kills import healthy_worker
from tests.disks import ova
from tests.service import Client, Service, until

MIB: Final = 1024 * 1024
BLOCK: Final = 512  # of st_blocks
SIZE: Final = 8 * MIB


def made(raw: Path, target: Path, format_: str) -> Path:
    command = ["qemu-img", "convert", "-f", "raw", "-O", format_, str(raw), str(target)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small disk with something on it, by format. An import keeps a qcow2 and converts the others."""
    folder = tmp_path_factory.mktemp("disks")
    raw = folder / "raw"
    raw.write_bytes(b"\x33\xc0" + os.urandom(3 * MIB) + bytes(SIZE - 3 * MIB - 2))
    return {"raw": raw, "vmdk": made(raw, folder / "vmdk", "vmdk"), "qcow2": made(raw, folder / "qcow2", "qcow2")}


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker, and with a folder of the host as the bucket `shared`."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "shared").mkdir()
    config = folder / "calotype.toml"
    config.write_text(f"[buckets.shared]\nfolder = '{folder}/shared'\n")
    running = Service(folder, environment={"CALOTYPE_CONFIG": str(config)}, arguments=["--no-worker"])
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


def shared(service: Service) -> Path:
    return service.data_dir.parent / "shared"


def allocated(folder: Path) -> int:
    """Bytes of the disk that the files in a folder take; a file with several names once, one that has a name outside
    of it as well not at all."""
    found: dict[int, os.stat_result] = {}
    names: dict[int, int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".place":
            state = path.stat()
            found[state.st_ino] = state
            names[state.st_ino] = names.get(state.st_ino, 0) + 1
    return sum(state.st_blocks * BLOCK for number, state in found.items() if state.st_nlink == names[number])


def of_jobs(service: Service) -> int:
    return allocated(service.data_dir / "scratch") + allocated(service.data_dir / "blobs" / "staging")


def size_of(path: Path) -> int:
    return path.stat().st_blocks * BLOCK


def is_isolated() -> bool:
    return Sandbox.detect(required=False).isolated


# --- no second copy ---------------------------------------------------------------------------------------------------


def test_a_file_of_a_mapped_folder_that_is_converted_is_read_where_it_lies(
    idle: Service, disks: dict[str, Path]
) -> None:
    if not is_isolated():
        pytest.skip("without bubblewrap it is copied first, so that no header can change")
    (shared(idle) / "disk.vmdk").write_bytes(disks["vmdk"].read_bytes())
    with idle.demo() as client, held(idle, "verify", "after") as holds:
        job_id = client.import_image("shared:disk.vmdk", "read where it lies")
        holds()

        assert allocated(idle.data_dir / "scratch") == 0
        [result] = (idle.data_dir / "blobs" / "staging").glob(f"j{job_id}*")
        assert size_of(result) == of_jobs(idle)

        go_on(idle)
        client.succeeded(job_id)


@pytest.mark.parametrize("step", ["fetch", "convert", "verify"])
def test_a_file_of_a_mapped_folder_that_is_kept_is_copied_once(
    idle: Service, disks: dict[str, Path], step: str
) -> None:
    (shared(idle) / "disk.qcow2").write_bytes(disks["qcow2"].read_bytes())
    with idle.demo() as client, held(idle, step, "after") as holds:
        job_id = client.import_image("shared:disk.qcow2", "copied once")
        holds()

        assert of_jobs(idle) <= size_of(disks["qcow2"]) + 64 * 1024

        go_on(idle)
        image_id = client.succeeded(job_id)["entities"]["image_id"]
        assert client.http.get(f"/v2/images/{image_id}/file").content == disks["qcow2"].read_bytes()


@pytest.mark.parametrize("step", ["fetch", "convert", "verify"])
def test_an_object_that_is_kept_is_never_copied(idle: Service, disks: dict[str, Path], step: str) -> None:
    with idle.demo() as client, held(idle, step, "after") as holds:
        client.put_object("own", "disk.qcow2", disks["qcow2"])
        job_id = client.import_image("own:disk.qcow2", "never copied")
        holds()

        assert of_jobs(idle) == 0

        go_on(idle)
        client.succeeded(job_id)


def test_what_packed_bytes_are_unpacked_from_is_not_copied(idle: Service, disks: dict[str, Path]) -> None:
    (shared(idle) / "disk.gz").write_bytes(gzip.compress(disks["raw"].read_bytes()))
    with idle.demo() as client, held(idle, "fetch", "after") as holds:
        job_id = client.import_image("shared:disk.gz", "unpacked")
        holds()

        assert of_jobs(idle) < 4 * MIB  # the data of the disk; zeros take no room

        go_on(idle)
        client.succeeded(job_id)


def test_an_image_and_the_object_that_it_was_live_on_without_each_other(idle: Service, disks: dict[str, Path]) -> None:
    content = disks["qcow2"].read_bytes()
    with idle.demo() as client, healthy_worker(idle):
        client.put_object("lives", "disk", disks["qcow2"])
        before = client.http.head("/calotype/v1/buckets/lives/objects/disk").headers
        first = client.succeeded(client.import_image("lives:disk", "first"))["entities"]["image_id"]
        second = client.succeeded(client.import_image("lives:disk", "second"))["entities"]["image_id"]
        assert client.http.head("/calotype/v1/buckets/lives/objects/disk").headers["ETag"] == before["ETag"]

        assert client.http.delete(f"/v2/images/{first}").status_code == 204
        assert client.get_object("lives", "disk") == content
        client.put_object("lives", "disk", b"another version")
        assert client.get_object("lives", "disk") == b"another version"
        assert client.http.delete("/calotype/v1/buckets/lives/objects/disk").status_code == 204

        assert client.http.get(f"/v2/images/{second}/file").content == content


# --- a file that changes ----------------------------------------------------------------------------------------------


def written_in_place(path: Path) -> None:
    """With the time of the last change set back: only that of the inode tells."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(state.st_size // 2)
        file.write(b"changed")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


CHANGES: Final[dict[str, Callable[[Path], None]]] = {
    "written to": written_in_place,
    "replaced": replaced,
    "deleted": Path.unlink,
}


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ("written to", "inspect"),
        ("written to", "convert"),
        ("written to", "verify"),
        ("replaced", "convert"),
        ("deleted", "convert"),
    ],
)
def test_a_file_that_changes_under_the_job_ends_it_and_nothing_is_published(
    idle: Service, disks: dict[str, Path], change: str, step: str
) -> None:
    if not is_isolated():
        pytest.skip("without bubblewrap it is copied first")
    name = f"{step}-{change}".replace(" ", "-")
    path = shared(idle) / name
    path.write_bytes(disks["vmdk"].read_bytes())
    with idle.demo() as client, held(idle, step, "before") as holds:
        files = idle.files()
        job_id = client.import_image(f"shared:{name}", name)
        holds()
        CHANGES[change](path)

        go_on(idle)
        job = client.ended(job_id)

        assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
        assert "meanwhile" in job["fail_reason"]
        assert client.http.get("/v2/images", params={"name": name}).json()["images"] == []
        until(lambda: idle.files() <= files, f"no byte left: {idle.files() - files}")


# --- the digest that is expected --------------------------------------------------------------------------------------


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def sources(disks: dict[str, Path]) -> dict[str, bytes]:
    content = {name: path.read_bytes() for name, path in disks.items()}
    return {**content, "gz": gzip.compress(content["qcow2"]), "zst": zstd(content["vmdk"])}


def submitted(client: Client, call: str, image_url: str, **fields: Any) -> str:
    if call == "register":
        waiting = {"name": "w", "disk_format": "qcow2", "container_format": "bare"}
        image_id = client.http.post("/v2/images", json=waiting).json()["id"]
        path = f"/v1/cloudimages/{image_id}/upload"
        return client.submit("PUT", path, {"image_url": image_url, **fields})
    if call == "data":
        body: dict[str, Any] = {"name": "d", "image_url": image_url, "min_disk": 1, **fields}
        return client.submit("POST", "/v1/cloudimages/dataimages/action", body)
    return client.import_image(image_url, "digested", **fields)


CALLS: Final = ("import", "register", "data")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("source", ["raw", "vmdk", "qcow2", "gz", "zst"])
def test_a_file_with_the_digest_that_was_told_is_imported(
    demo: Client, sources: dict[str, bytes], source: str, algorithm: str
) -> None:
    demo.put_object("digests", source, sources[source])
    digest = digest_of(sources[source], algorithm)

    job_id = demo.import_image(f"digests:{source}", "digested", source_digest=digest.upper().replace("SHA", "sha"))
    demo.succeeded(job_id)

    shown = demo.http.get(f"/calotype/v1/jobs/{job_id}").json()
    assert shown["request"]["source_digest"] == digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("source", ["raw", "qcow2", "gz", "zst"])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_with_another_digest_fails_the_job_and_leaves_nothing(
    service: Service, demo: Client, sources: dict[str, bytes], call: str, source: str, algorithm: str
) -> None:
    demo.put_object("digests", source, sources[source])
    files = service.files()

    other = digest_of(sources[source] + b"\0", algorithm)
    job = demo.ended(submitted(demo, call, f"digests:{source}", source_digest=other))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
    assert other in job["fail_reason"]
    until(lambda: service.files() <= files, f"no byte left: {service.files() - files}")


def test_the_digest_of_what_is_inside_is_not_that_of_the_file(demo: Client, sources: dict[str, bytes]) -> None:
    demo.put_object("digests", "gz", sources["gz"])

    job = demo.ended(demo.import_image("digests:gz", "inside", source_digest=digest_of(sources["qcow2"])))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job


@pytest.mark.parametrize("is_right", [True, False])
def test_the_digest_of_an_ova_is_that_of_the_archive(demo: Client, sources: dict[str, bytes], is_right: bool) -> None:
    archive = ova.ova([ova.disk(sources["qcow2"], SIZE)])
    demo.put_object("digests", "machine.ova", archive)

    told = digest_of(archive if is_right else archive + b"\0")
    job = demo.ended(demo.import_image("digests:machine.ova", "machine", min_disk=40, source_digest=told))

    assert job["status"] == ("SUCCESS" if is_right else "FAIL"), job


def test_each_of_several_files_has_a_digest_of_its_own(demo: Client, sources: dict[str, bytes]) -> None:
    demo.put_object("digests", "qcow2", sources["qcow2"])
    demo.put_object("digests", "vmdk", sources["vmdk"])
    data = {"image_url": "digests:vmdk", "min_disk": 1, "source_digest": digest_of(sources["qcow2"])}

    told = digest_of(sources["qcow2"])
    job = demo.ended(demo.import_image("digests:qcow2", "several", source_digest=told, data_images=[data]))

    assert job["status"] == "FAIL"
    states = [child["status"] for child in job["entities"]["sub_jobs_result"]]
    assert states == ["SUCCESS", "FAIL"]


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:xyz", f"sha256:{'0' * 63}", f"sha512:{'0' * 64}", f"md5:{'0' * 32}", "0" * 64, 7, ["x"]],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_digest_that_is_none_is_refused(demo: Client, sources: dict[str, bytes], call: str, digest: object) -> None:
    demo.put_object("digests", "qcow2", sources["qcow2"])
    body = {"name": "n", "image_url": "digests:qcow2", "min_disk": 1, "source_digest": digest}
    path = {"import": "/v2/cloudimages/action", "data": "/v1/cloudimages/dataimages/action"}.get(call)
    method = "POST"
    if path is None:
        image = demo.http.post("/v2/images", json={"name": "w", "disk_format": "qcow2", "container_format": "bare"})
        method, path = "PUT", f"/v1/cloudimages/{image.json()['id']}/upload"

    answer = demo.http.request(method, path, json=body)

    if digest == "":  # as IMS has it, an empty field is none
        assert answer.status_code == 200
        demo.succeeded(answer.json()["job_id"])
        return
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0001"), answer.text


def test_the_command_tells_the_digest(service: Service, demo: Client, sources: dict[str, bytes]) -> None:
    demo.put_object("digests", "qcow2", sources["qcow2"])
    command = ["calotype", "image", "create", "--from", "digests:qcow2", "--name", "told", "--min-disk", "1", "--wait"]

    right = service.run(*command, "--digest", digest_of(sources["qcow2"]))
    wrong = service.run(*command, "--digest", digest_of(sources["vmdk"]), ok=False)
    malformed = service.run(*command, "--digest", "md5:00", ok=False)

    assert "active" in right.stdout
    assert (wrong.returncode, malformed.returncode) == (1, 2)
    assert "digest" in wrong.stderr
