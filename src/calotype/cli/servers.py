"""`calotype server …`, `volume …`: what images can be made from."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import typer

from calotype.cli import show
from calotype.cli.failure import Failure
from calotype.cli.options import AsJson, service
from calotype.cli.session import Api, quoted

PAGE: Final = 1000

server = typer.Typer(no_args_is_help=True, help="Servers that images can be made from.")
volume = typer.Typer(no_args_is_help=True, help="Disks that images can be made from: of servers, and of none.")

Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
Found = dict[str, Any]
GIB: Final = " GiB"


@server.command("list")
def list_servers(context: typer.Context, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List the servers that the project has.

    Example:

        calotype server list
    """
    columns: dict[str, Callable[[Found], object]] = {
        "ID": lambda item: item["id"],
        "NAME": lambda item: item["name"],
        "STATUS": lambda item: item["task"] or item["status"],
        "OS": lambda item: item["os_version"],
        "DISKS": lambda item: ", ".join(f"{disk['size_gb']}{GIB}" for disk in item["volumes"]),
    }
    print_list(context, "servers", columns, limit, as_json=as_json)


@server.command("show")
def show_server(
    context: typer.Context,
    server_id: Annotated[str, typer.Argument(metavar="ID", help="The server's id.")],
    as_json: AsJson = False,
) -> None:
    """Show a server and its disks.

    Example:

        calotype server show web-1
    """
    if not server_id or "/" in server_id:
        raise Failure("server_not_found", f"no server {server_id}")
    with service(context) as api:
        found: Found = api.call("GET", f"/calotype/v1/servers/{quoted(server_id)}")
    if as_json:
        show.document(found)
        return
    told = {name.replace("_", " "): value for name, value in found.items() if name != "volumes"}
    show.facts({name: value for name, value in told.items() if value not in (None, False)})
    if found["volumes"]:
        show.line("")
        columns = {name: column for name, column in VOLUME_COLUMNS.items() if name != "SERVER"}
        show.table(tuple(columns), ([column(item) for column in columns.values()] for item in found["volumes"]))


@volume.command("list")
def list_volumes(context: typer.Context, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List the disks that the project has. Slot 0 is a server's system disk.

    Example:

        calotype volume list
    """
    print_list(context, "volumes", VOLUME_COLUMNS, limit, as_json=as_json)


VOLUME_COLUMNS: Final[Mapping[str, Callable[[Found], object]]] = {
    "ID": lambda item: item["id"],
    "NAME": lambda item: item["name"],
    "SIZE": lambda item: show.size(item["size"]),
    "STATUS": lambda item: "missing" if item["missing"] else item["status"],
    "SERVER": lambda item: item["server_id"],
    "SLOT": lambda item: item["slot"],
}


def print_list(
    context: typer.Context,
    what: str,
    columns: Mapping[str, Callable[[Found], object]],
    limit: int,
    *,
    as_json: bool,
    wanted: Mapping[str, str] = {},
) -> None:
    """`wanted`: filters of the list."""
    with service(context) as api:
        found, more = _listed(api, what, limit, wanted)
    if as_json:
        show.document(found)
        return
    show.table(tuple(columns), ([column(item) for column in columns.values()] for item in found))
    if more:
        show.say(f"there are more: --limit {limit * 2}")


def _listed(api: Api, what: str, limit: int, wanted: Mapping[str, str]) -> tuple[list[Found], bool]:
    """At most `limit` of them by id, and whether there are more."""
    found: list[Found] = []
    marker: str | None = None
    while len(found) < limit:
        params: Found = {**wanted, "limit": min(PAGE, limit - len(found)), **({"marker": marker} if marker else {})}
        page = api.call("GET", f"/calotype/v1/{what}", params=params)
        found += page[what]
        marker = page.get("next_marker")
        if not marker:
            return found, False
    return found, True
