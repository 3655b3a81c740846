"""`calotype image …`: make, look at, fetch, export, copy and delete images."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from calotype.cli import jobs, show, sizing, transfer
from calotype.cli.buckets import address, object_path
from calotype.cli.failure import Failure
from calotype.cli.options import DEFAULT_TIMEOUT_S, AsJson, Force, Timeout, Wait, service
from calotype.cli.session import Api, quoted
from calotype.cli.show import Meter
from calotype.disks.model import OpaqueKind
from calotype.disks.targets import FILE_FORMATS

IMAGE_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DIGEST: Final = re.compile(r"sha256:[0-9a-fA-F]{64}|sha512:[0-9a-fA-F]{128}")
PAGE: Final = 100
OTHER: Final = "Other Linux(64 bit)"  # an OS version
FIRST: Final = ("id", "name", "status", "disk_format", "size", "virtual_size", "min_disk", "visibility")  # shown first
LINKS: Final = frozenset({"self", "file", "schema"})  # not shown
EXPORTS: Final = (*FILE_FORMATS, OpaqueKind.ZVHD.value)  # the service says whether it writes the last one
Kept = Literal["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso"]  # formats that are stored as they are

image = typer.Typer(no_args_is_help=True, help="Images: create, list, show, download, export, copy and delete them.")
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="The image's id, or its exact name.")]
ImageName = Annotated[str, typer.Option("--name", help="The name of the new image.")]


@image.command("create")
def create(
    context: typer.Context,
    name: ImageName,
    source: Annotated[
        str | None, typer.Option("--from", metavar="BUCKET:KEY", help="Import this object, as a job of the service.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="PATH", help="Upload this local file.")] = None,
    disk_format: Annotated[Kept | None, typer.Option("--disk-format", help="What the uploaded file is.")] = None,
    min_disk: Annotated[
        int | None,
        typer.Option(
            "--min-disk",
            min=1,
            metavar="GB",
            help="The smallest disk of a server for it; without it, what the disk needs.",
        ),
    ] = None,
    os_version: Annotated[
        str | None,
        typer.Option("--os-version", help="E.g. 'Debian GNU/Linux 12.0.0 64bit'; without it, Other Linux(64 bit)."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(
            metavar="ALGORITHM:HEX",
            help="With --from: sha256:… or sha512:… of the object; else it is not imported.",
        ),
    ] = None,
    wait: Wait = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Create an image from an object of a bucket, or from a local file.

    Examples:

        calotype image create --from disks:alpine.qcow2 --name alpine --wait

        calotype image create --from disks:debian.raw.xz --name debian --min-disk 4 --digest sha256:…

        calotype image create --file alpine.qcow2 --disk-format qcow2 --name alpine
    """
    if (source is None) == (file is None):
        raise typer.BadParameter("give one of --from BUCKET:KEY and --file PATH")
    if digest is not None and (source is None or not DIGEST.fullmatch(digest)):
        raise typer.BadParameter("--digest goes with --from, as sha256:<64 hex digits> or sha512:<128 hex digits>")
    if file is not None:
        if disk_format is None:
            raise typer.BadParameter("--file wants --disk-format: what the file is")
        with service(context) as api:
            made = upload(api, file, name, disk_format, min_disk, os_version)
        print_image(made, as_json=as_json)
        return
    if disk_format is not None:
        raise typer.BadParameter("--disk-format goes with --file; an import finds the format out")
    bucket, key = address(str(source))
    with service(context) as api:
        if min_disk is None:
            min_disk = sizing.least_disk(api, object_path(bucket, key))
            show.say(f"min_disk is {min_disk} GB, from the size of the disk; --min-disk chooses another")
        job_id = import_object(api, bucket, key, name, min_disk, os_version, digest)
        _follow(api, job_id, wait, timeout_s, as_json)


@image.command("capture")
def capture(
    context: typer.Context,
    name: ImageName,
    server: Annotated[str | None, typer.Option(metavar="ID", help="Of this server: its system disk.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="With --server: all its disks, and a backup of them.")] = False,
    volume: Annotated[str | None, typer.Option(metavar="ID", help="Of this disk.")] = None,
    data: Annotated[bool, typer.Option("--data", help="With --volume: a data disk image.")] = False,
    os_version: Annotated[
        str | None, typer.Option("--os-version", help="With --volume: without it, Other Linux(64 bit).")
    ] = None,
    backup: Annotated[str | None, typer.Option(metavar="ID", help="Of this backup: a full-server image.")] = None,
    wait: Wait = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Make an image of a server, of a disk, or of a backup.

    `calotype server list`, `volume list` and `backup list` show what there is.

    Examples:

        calotype image capture --server web --name web-golden --wait

        calotype image capture --volume web-data --data --name web-data
    """
    if [server, volume, backup].count(None) != 2:
        raise typer.BadParameter("give one of --server, --volume and --backup")
    if (whole and server is None) or ((data or os_version) and volume is None) or (data and os_version):
        raise typer.BadParameter("--whole goes with --server, --data or --os-version with --volume")
    path: str = "/v2/cloudimages/action"
    body: dict[str, Any] = {"name": name}
    with service(context) as api:
        if server is not None:
            path = "/v1/cloudimages/wholeimages/action" if whole else path
            body["instance_id"] = server
        elif backup is not None:
            path = "/v1/cloudimages/wholeimages/action"
            kind = api.call("GET", f"/calotype/v1/backups/{quoted(backup)}")["kind"]
            body |= {"backup_id": backup, "whole_image_type": kind}
        elif data:
            body = {"data_images": [{"name": name, "volume_id": volume}]}
        else:
            body |= {"volume_id": str(volume), "os_version": os_version or OTHER}
        _follow(api, api.call("POST", path, body=body)["job_id"], wait, timeout_s, as_json)


@image.command("list")
def list_images(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="Only images of exactly this name.")] = None,
    status: Annotated[str | None, typer.Option(help="Only these, e.g. active.")] = None,
    visibility: Annotated[str | None, typer.Option(help="public, private, shared or community.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the images that the project can use.

    Example:

        calotype image list --status active
    """
    wanted = {k: v for k, v in (("name", name), ("status", status), ("visibility", visibility)) if v is not None}
    with service(context) as api:
        found, more = find(api, wanted, limit)
    if as_json:
        show.document(found)
        return
    columns = ("ID", "NAME", "STATUS", "FORMAT", "SIZE", "VISIBILITY", "CREATED")
    shown = ("id", "name", "status", "disk_format", "size", "visibility", "created_at")
    show.table(columns, ([show.size(i["size"]) if n == "size" else i.get(n) for n in shown] for i in found))
    if more:
        show.say(f"there are more: --limit {limit * 2}")


@image.command("show")
def show_image(context: typer.Context, image_name: Image, as_json: AsJson = False) -> None:
    """Show an image with all its attributes.

    Example:

        calotype image show alpine
    """
    with service(context) as api:
        print_image(named(api, image_name), as_json=as_json)


@image.command("download")
def download(
    context: typer.Context,
    image_name: Image,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The local file to write.")],
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Download an image and check its digest. A download that was cut goes on where it stopped.

    Example:

        calotype image download alpine -o alpine.qcow2
    """
    transfer.refuse_existing(output, force)
    with service(context) as api:
        found = named(api, image_name)
        with show.progress(f"get {found.get('name') or found['id']}") as meter:
            source = download_to(api, found, output, meter, overwrite=force)
    if as_json:
        checked = {source.hash_algorithm: source.digest} if source.digest else {}
        show.document({"file": str(output), "image_id": found["id"], "size": source.size, **checked})
    else:
        checked_by = f", {source.hash_algorithm} checked" if source.digest else ", no digest to check"
        show.say(f"{output} written, {show.size(source.size)}{checked_by}")


@image.command("export")
def export(
    context: typer.Context,
    image_name: Image,
    target: Annotated[str, typer.Argument(metavar="BUCKET:KEY", help="The object to write; it must not exist.")],
    file_format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(EXPORTS)}.")],
    wait: Wait = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Export an image to a bucket.

    Example:

        calotype image export alpine disks:alpine.vmdk --format vmdk --wait
    """
    if file_format not in EXPORTS:
        raise typer.BadParameter(f"--format: '{file_format}' is none of {', '.join(EXPORTS)}")
    bucket, key = address(target)
    with service(context) as api:
        job_id = export_image(api, named(api, image_name)["id"], bucket, key, file_format)
        if not wait:
            _started(job_id, as_json)
            return
        ended = jobs.wait(api, job_id, timeout_s)
    if as_json:
        show.document(ended)
    jobs.succeeded(ended)
    if not as_json:
        show.say(f"{target} written")


@image.command("copy")
def copy(
    context: typer.Context,
    image_name: Image,
    name: ImageName,
    wait: Wait = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Copy an image under a new name.

    Example:

        calotype image copy alpine --name alpine-copy --wait
    """
    with service(context) as api:
        started = api.call("POST", f"/v1/cloudimages/{quoted(named(api, image_name)['id'])}/copy", body={"name": name})
        _follow(api, started["job_id"], wait, timeout_s, as_json)


@image.command("delete")
def delete(
    context: typer.Context,
    image_names: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Ids or exact names.")],
    with_backup: Annotated[bool, typer.Option("--with-backup", help="Of a full-server image: its backup too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete images. Those that cannot be deleted are told; the others go.

    Example:

        calotype image delete alpine-copy
    """
    deleted: list[str] = []
    refused: list[Failure] = []
    with service(context) as api:
        for text in image_names:
            try:
                image_id = named(api, text)["id"]
                body = {"delete_backup": True} if with_backup else None
                api.call("DELETE", f"/v2/images/{quoted(image_id)}", body=body)
                deleted.append(image_id)
                if not as_json:
                    show.say(f"image {show.printable(text)} deleted")
            except Failure as failure:
                refused.append(failure)
    if as_json:
        show.document({"deleted": deleted})
    for told in refused[:-1]:
        show.failure(told)
    if refused:
        raise refused[-1]


def find(api: Api, wanted: dict[str, str], limit: int) -> tuple[list[dict[str, Any]], bool]:
    """At most `limit` images, and whether there are more."""
    found: list[dict[str, Any]] = []
    marker: str | None = None
    while len(found) < limit:
        params = {**wanted, "limit": min(PAGE, limit - len(found)), **({"marker": marker} if marker else {})}
        page = api.call("GET", "/v2/images", params=params)
        found += page["images"]
        if not page.get("next") or not page["images"]:
            return found, False
        marker = page["images"][-1]["id"]
    return found, True


def named(api: Api, text: str) -> dict[str, Any]:
    """The image with this id or exactly this name. Raises `Failure` when there is none, or more than one."""
    if IMAGE_ID.fullmatch(text):
        with suppress(_NotFound):
            return _by_id(api, text)
    found = [item for item in find(api, {"name": text}, PAGE)[0] if item.get("name") == text]
    if not found:
        raise Failure("image_not_found", f"no image {text}")
    if len(found) > 1:
        ids = ", ".join(item["id"] for item in found)
        raise Failure("ambiguous_name", f"{len(found)} images are named {text}: {ids}", "name one of them by its id")
    return found[0]


class _NotFound(Failure):
    pass


def _by_id(api: Api, image_id: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = api.call("GET", f"/v2/images/{image_id}")
    except Failure as failure:
        if failure.status == 404:
            raise _NotFound(failure.code, failure.message) from failure
        raise
    return found


def upload(
    api: Api,
    file: Path,
    name: str,
    disk_format: Kept,
    min_disk: int | None = None,
    os_version: str | None = None,
) -> dict[str, Any]:
    """Create an image and send its bytes; the record is removed again when that fails."""
    outgoing = transfer.OutgoingFile(file, "md5")
    record: dict[str, Any] = {"name": name, "disk_format": disk_format, "container_format": "bare"}
    if min_disk is not None:
        record["min_disk"] = min_disk
    if os_version is not None:
        record["__os_version"] = os_version
    path = f"/v2/images/{quoted(api.call('POST', '/v2/images', body=record)['id'])}"
    try:
        with show.progress(f"send {file.name}") as meter:
            transfer.send(api, "PUT", f"{path}/file", outgoing, meter, {"x-openstack-image-size": str(outgoing.size)})
        made: dict[str, Any] = api.call("GET", path)
        _same(made, outgoing)
    except BaseException:
        with suppress(Failure):  # what went wrong first is what is told
            api.call("DELETE", path)
        raise
    return made


def _same(made: dict[str, Any], sent: transfer.OutgoingFile) -> None:
    if made["status"] != "active" or made["size"] != sent.size:
        raise Failure("upload_failed", f"the image is {made['status']} with {made['size']} of {sent.size} bytes")
    if made["checksum"] != sent.digest:
        raise Failure("digest_mismatch", "the service has other bytes than were sent", "send the file again")


def import_object(
    api: Api,
    bucket: str,
    key: str,
    name: str,
    min_disk: int,
    os_version: str | None = None,
    digest: str | None = None,
) -> str:
    """Start the import of an object; the job's id."""
    body: dict[str, Any] = {"name": name, "image_url": f"{bucket}:{key}", "min_disk": min_disk}
    if os_version is not None:
        body["os_version"] = os_version
    if digest is not None:
        body["source_digest"] = digest
    return str(api.call("POST", "/v2/cloudimages/action", body=body)["job_id"])


def export_image(api: Api, image_id: str, bucket: str, key: str, file_format: str) -> str:
    """Start an export; the job's id."""
    body = {"bucket_url": f"{bucket}:{key}", "file_format": file_format}
    return str(api.call("POST", f"/v1/cloudimages/{quoted(image_id)}/file", body=body)["job_id"])


def download_to(
    api: Api, found: dict[str, Any], target: Path, meter: Meter, *, overwrite: bool = False
) -> transfer.Source:
    """Download an image's bytes, checked against the digest of its record."""
    if found.get("size") is None or found["status"] != "active":
        raise Failure("no_data", f"image {found['id']} is {found['status']}", "only an active image has bytes")
    algorithm, digest = found.get("os_hash_algo") or "", found.get("os_hash_value") or ""
    if not digest and found.get("checksum"):
        algorithm, digest = "md5", found["checksum"]
    source = transfer.Source(
        path=f"/v2/images/{quoted(found['id'])}/file",
        size=found["size"],
        version="",  # an image's bytes never change
        hash_algorithm=algorithm,
        digest=digest,
    )
    transfer.fetch(api, source, target, meter, overwrite=overwrite)
    return source


def print_image(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.document(found)
        return
    names = [*FIRST, *sorted(set(found) - set(FIRST) - LINKS)]
    show.facts({name: _told(found[name]) for name in names if name in found})


def _told(value: Any) -> object:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return str(value).lower() if isinstance(value, bool) else value


def _follow(api: Api, job_id: str, wait: bool, timeout_s: float, as_json: bool) -> None:
    """What is printed of a job that makes an image: the job's id at once, or the image once it is made."""
    if not wait:
        _started(job_id, as_json)
        return
    ended = jobs.wait(api, job_id, timeout_s)
    jobs.succeeded(ended)
    image_id = (ended.get("entities") or {}).get("image_id") or ended["subject"]["image_id"]
    print_image(_by_id(api, image_id), as_json=as_json)


def _started(job_id: str, as_json: bool) -> None:
    if as_json:
        show.document({"job_id": job_id})
    else:
        print_id(job_id)


def print_id(job_id: str) -> None:
    """The id alone on stdout, so that a script can take it; how to go on, on stderr."""
    show.line(job_id)
    show.say(f"the job has begun: calotype job wait {job_id}")
