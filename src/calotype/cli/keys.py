"""`calotype key …`: access keys, for clients that sign their requests instead of logging in."""

from typing import Annotated, Any

import typer

from calotype.cli import show
from calotype.cli.options import AsJson, service
from calotype.cli.session import Api, quoted

key = typer.Typer(no_args_is_help=True, help="Access keys (AK/SK), for clients that sign their requests.")
Access = Annotated[str, typer.Argument(metavar="ACCESS", help="The access key, as `calotype key list` shows it.")]


@key.command("create")
def create(context: typer.Context, as_json: AsJson = False) -> None:
    """Make an access key for yourself and the project you are logged in to. Its secret is shown only now.

    Example:

        calotype key create --json
    """
    with service(context) as api:
        token = api.token()
        made = api.call("POST", _path(token), body={"tenant_id": token["project"]["id"]})["credential"]
    told = {**_told(made), "secret": made["secret"]}
    if as_json:
        show.document(told)
        return
    show.facts(told)
    show.say("keep the secret now: it cannot be shown again")


@key.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List your access keys, oldest first.

    Example:

        calotype key list
    """
    with service(context) as api:
        keys = [_told(item) for item in api.call("GET", _path(api.token()))["credentials"]]
    if as_json:
        show.document(keys)
        return
    show.table(("ACCESS", "PROJECT"), ((item["access"], item["project_id"]) for item in keys))


@key.command("delete")
def delete(context: typer.Context, access: Access) -> None:
    """Delete an access key. What is signed with it is refused within seconds.

    Example:

        calotype key delete AKEXAMPLE0123456789A
    """
    with service(context) as api:
        _delete(api, access)
    show.say(f"access key {access} deleted")


def _delete(api: Api, access: str) -> None:
    api.call("DELETE", f"{_path(api.token())}/{quoted(access).replace('/', '%2F')}")


def _path(token: dict[str, Any]) -> str:
    return f"/identity/v3/users/{token['user']['id']}/credentials/OS-EC2"


def _told(item: dict[str, Any]) -> dict[str, str]:
    return {"access": item["access"], "user_id": item["user_id"], "project_id": item["tenant_id"]}
