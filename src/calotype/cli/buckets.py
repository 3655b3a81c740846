"""`calotype bucket …`: named stores that images come from and go to. An object is BUCKET:KEY."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from calotype.cli import show, transfer
from calotype.cli.failure import Failure
from calotype.cli.options import AsJson, Force, service
from calotype.cli.session import Api, quoted
from calotype.cli.show import Meter

PAGE: Final = 1000

bucket = typer.Typer(no_args_is_help=True, help="Buckets and the objects in them.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The bucket's name.")]


def address(text: str) -> tuple[str, str]:
    """`bucket:key` as its two parts. Wrong usage when it has another form; the service judges names and keys."""
    name, colon, key = text.partition(":")
    if not colon or not name or not key:
        raise typer.BadParameter(f"'{text}' is not of the form BUCKET:KEY")
    if "/" in name or {"", ".", ".."} & set(key.split("/")):
        raise typer.BadParameter(f"'{text}': a part of the key is empty, '.' or '..'")
    return name, key


Address = Annotated[str, typer.Argument(metavar="BUCKET:KEY", help="The object.")]


@bucket.command("create")
def create(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Create a bucket.

    Example:

        calotype bucket create disks
    """
    with service(context) as api:
        made = create_bucket(api, name)
    if as_json:
        show.document(made)
    else:
        show.say(f"bucket {name} created")


@bucket.command("list")
def list_buckets(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the objects of this bucket.")] = None,
    prefix: Annotated[str, typer.Option(help="Only objects whose key begins so.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many objects.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List the buckets of the project, or the objects of one bucket.

    Example:

        calotype bucket list disks --prefix alpine/
    """
    with service(context) as api:
        if name is None:
            buckets = api.call("GET", "/calotype/v1/buckets")["buckets"]
            if as_json:
                show.document(buckets)
            else:
                columns = tuple(dict.fromkeys(key for item in buckets for key in item)) or ("name",)
                show.table([c.upper() for c in columns], ([item.get(c) for c in columns] for item in buckets))
            return
        objects, more = list_objects(api, name, prefix, limit)
    if as_json:
        show.document(objects)
        return
    rows = ((item["key"], show.size(item["size"]), item["modified_at"]) for item in objects)
    show.table(("KEY", "SIZE", "MODIFIED"), rows)
    if more:
        show.say(f"there are more: --limit {limit * 2}")


@bucket.command("put")
def put(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The local file.")],
    target: Address,
    keep: Annotated[bool, typer.Option("--keep", help="Refuse if the object exists, instead of replacing it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a local file into a bucket.

    Example:

        calotype bucket put alpine.qcow2 disks:alpine.qcow2
    """
    name, key = address(target)
    outgoing = transfer.OutgoingFile(file)
    with service(context) as api, show.progress(f"put {file.name}") as meter:
        made = put_object(api, outgoing, name, key, meter, keep=keep)
    if as_json:
        show.document(made)
    else:
        show.say(f"{target} stored, {show.size(made['size'])}")


@bucket.command("get")
def get(
    context: typer.Context,
    source: Address,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The local file to write.")],
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Get an object of a bucket as a local file. A download that was cut goes on where it stopped.

    Example:

        calotype bucket get disks:alpine.vmdk -o alpine.vmdk
    """
    name, key = address(source)
    transfer.refuse_existing(output, force)
    with service(context) as api, show.progress(f"get {key.rpartition('/')[2]}") as meter:
        found = get_object(api, name, key, output, meter, overwrite=force)
    if as_json:
        show.document({"file": str(output), "size": found.size})
    else:
        show.say(f"{output} written, {show.size(found.size)}")


@bucket.command("delete")
def delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete an empty bucket.

    Example:

        calotype bucket delete disks
    """
    if ":" in name:
        raise typer.BadParameter(f"'{name}' names an object; calotype bucket rm {name} removes it")
    with service(context) as api:
        api.call("DELETE", f"/calotype/v1/buckets/{quoted(name)}")
    if as_json:
        show.document({"deleted": name})
    else:
        show.say(f"bucket {name} deleted")


@bucket.command("rm")
def remove(context: typer.Context, target: Address, as_json: AsJson = False) -> None:
    """Remove an object from a bucket.

    Example:

        calotype bucket rm disks:alpine.qcow2
    """
    name, key = address(target)
    with service(context) as api:
        api.call("DELETE", object_path(name, key))
    if as_json:
        show.document({"deleted": target})
    else:
        show.say(f"{target} removed")


def object_path(name: str, key: str) -> str:
    return f"/calotype/v1/buckets/{quoted(name)}/objects/{quoted(key)}"


def create_bucket(api: Api, name: str) -> Any:
    return api.call("PUT", f"/calotype/v1/buckets/{quoted(name)}")


def list_objects(api: Api, name: str, prefix: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """At most `limit` objects sorted by key, and whether there are more."""
    found: list[dict[str, Any]] = []
    marker: str | None = None
    while len(found) < limit:
        params: dict[str, Any] = {"limit": min(PAGE, limit - len(found))} | ({"prefix": prefix} if prefix else {})
        params |= {"marker": marker} if marker else {}
        page = api.call("GET", f"/calotype/v1/buckets/{quoted(name)}/objects", params=params)
        found += page["objects"]
        marker = page.get("next_marker")
        if not marker:
            return found, False
    return found, True


def put_object(
    api: Api, file: transfer.OutgoingFile, name: str, key: str, meter: Meter, *, keep: bool = False
) -> dict[str, Any]:
    headers = {"if-none-match": "*"} if keep else {}
    made: dict[str, Any] = msgspec.json.decode(transfer.send(api, "PUT", object_path(name, key), file, meter, headers))
    return made


def get_object(api: Api, name: str, key: str, target: Path, meter: Meter, *, overwrite: bool) -> transfer.Source:
    path = object_path(name, key)
    source = _found(api, path)
    transfer.fetch(api, source, target, meter, overwrite=overwrite)
    return source


def _found(api: Api, path: str) -> transfer.Source:
    try:
        with api.answer("HEAD", path) as response:
            size = int(response.headers["content-length"])
            return transfer.Source(path=path, size=size, version=response.headers.get("etag", ""))
    except Failure:  # the answer to a HEAD does not say why it was refused
        with api.answer("GET", path, headers={"range": "bytes=0-0"}):
            raise
