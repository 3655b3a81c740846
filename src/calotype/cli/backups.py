"""`calotype backup …`: backups of servers, those that the service keeps and those that the source of servers has."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli import show, transfer
from calotype.cli.failure import Failure
from calotype.cli.options import AsJson, Force, service
from calotype.cli.servers import GIB, Found, Limit, print_list
from calotype.cli.session import Api, quoted

backup = typer.Typer(no_args_is_help=True, help="Backups of servers: those kept here, and those of their source.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The backup's id.")]


class Origin(StrEnum):
    SERVICE = "service"
    SOURCE = "source"


@backup.command("list")
def list_backups(
    context: typer.Context,
    origin: Annotated[
        Origin | None, typer.Option(help="Only those that the service keeps, or that the source has.")
    ] = None,
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """List the backups that the project has, or that are shared with it.

    Example:

        calotype backup list --origin service
    """
    columns: dict[str, Callable[[Found], object]] = {
        "ID": lambda item: item["id"],
        "NAME": lambda item: item["name"],
        "KIND": lambda item: item["kind"],
        "STATUS": lambda item: item["status"],
        "ORIGIN": lambda item: item["origin"],
        "SERVER": lambda item: item["server"]["name"],
        "DISKS": lambda item: ", ".join(f"{disk['size_gb']}{GIB}" for disk in item["server"]["volumes"]),
        "IMAGE": lambda item: item["image_id"],
        "CREATED": lambda item: item["created_at"],
    }
    wanted = {} if origin is None else {"origin": origin.value}
    print_list(context, "backups", columns, limit, as_json=as_json, wanted=wanted)


@backup.command("show")
def show_backup(context: typer.Context, backup_id: Id, as_json: AsJson = False) -> None:
    """Show a backup and the disks that are stored of it.

    Example:

        calotype backup show 7d0c1c1e-7a1f-4f0e-9d8e-1f1d3b0c5a55
    """
    with service(context) as api:
        found = _named(api, backup_id)
    if as_json:
        show.document(found)
        return
    told = {name.replace("_", " "): value for name, value in found.items() if name not in ("disks", "server", "size")}
    stored = {} if found["size"] is None else {"stored": show.size(found["size"])}
    facts = {**told, "server": found["server"]["name"], **stored}
    show.facts({name: value for name, value in facts.items() if value not in (None, False)})
    if found["disks"]:
        show.line("")
        show.table(("SLOT", "NAME", "FORMAT", "SIZE", "STORED", "VOLUME"), map(_row, found["disks"]))


def _row(disk: Found) -> list[object]:
    sizes = [show.size(disk["virtual_size"]), show.size(disk["size"])]
    return [disk["slot"], disk["name"], disk["disk_format"], *sizes, disk["volume_id"]]


@backup.command("download")
def download(
    context: typer.Context,
    backup_id: Id,
    slot: Annotated[int, typer.Argument(min=0, help="The disk's slot; 0 is the system disk.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The local file to write.")],
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Download a disk of a backup and check its digest. A download that was cut goes on where it stopped.

    Example:

        calotype backup download 7d0c1c1e-7a1f-4f0e-9d8e-1f1d3b0c5a55 1 -o data.qcow2
    """
    transfer.refuse_existing(output, force)
    with service(context) as api:
        found = _named(api, backup_id)
        disk = next((disk for disk in found["disks"] if disk["slot"] == slot), None)
        if disk is None:
            raise Failure("backup_not_found", f"no disk {slot} is kept of backup {found['id']}", "calotype backup list")
        source = transfer.Source(
            path=f"/calotype/v1/backups/{quoted(found['id'])}/disks/{slot}/file",
            size=disk["size"],
            version="",  # its bytes never change
            hash_algorithm=disk["os_hash_algo"],
            digest=disk["os_hash_value"],
        )
        with show.progress(f"get disk {slot}") as meter:
            transfer.fetch(api, source, output, meter, overwrite=force)
    if as_json:
        told = {"file": str(output), "backup_id": found["id"], "slot": slot, "size": source.size}
        show.document({**told, source.hash_algorithm: source.digest})
    else:
        show.say(f"{output} written, {show.size(source.size)}, {source.hash_algorithm} checked")


@backup.command("delete")
def delete(context: typer.Context, backup_id: Id, as_json: AsJson = False) -> None:
    """Delete a backup that the service keeps. One that an image is made from stays until that is deleted.

    Example:

        calotype backup delete 7d0c1c1e-7a1f-4f0e-9d8e-1f1d3b0c5a55
    """
    _check(backup_id)
    with service(context) as api:
        api.call("DELETE", f"/calotype/v1/backups/{quoted(backup_id)}")
    if as_json:
        show.document({"deleted": [backup_id]})
    else:
        show.say(f"backup {show.printable(backup_id)} deleted")


def _named(api: Api, backup_id: str) -> Found:
    _check(backup_id)
    found: Found = api.call("GET", f"/calotype/v1/backups/{quoted(backup_id)}")
    return found


def _check(backup_id: str) -> None:
    if not backup_id or "/" in backup_id:
        raise Failure("backup_not_found", f"no backup {backup_id}", "calotype backup list")
