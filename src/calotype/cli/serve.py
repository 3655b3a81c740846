"""The commands of the service itself: serve, worker, migrate, settings."""

import json
import os
import sys
import tomllib
from typing import Annotated, Any, NoReturn

import typer

from calotype.settings import TABLES, Settings, WrongSetting, load, shown, variables

DataDir = Annotated[
    str | None, typer.Option("--data-dir", help="Folder of everything the service keeps.", metavar="DIR")
]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on (127.0.0.1).")]
PortOption = Annotated[int | None, typer.Option("--port", help="Port to listen on (9292).", min=1, max=65535)]
NoWorker = Annotated[bool, typer.Option("--no-worker", help="Only the API: jobs wait for a `calotype worker`.")]
Parent = Annotated[int | None, typer.Option("--parent", hidden=True)]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def serve(data_dir: DataDir = None, host: Host = None, port: PortOption = None, no_worker: NoWorker = False) -> None:
    """Run the service: the API and a worker, until Ctrl-C or SIGTERM.

    Example: calotype serve --data-dir ./data --port 9292
    """
    settings = _settings(data_dir=data_dir, http={"host": host, "port": port})
    from calotype import logs, supervisor

    logs.configure(settings)
    # The children read the same file and environment; what the command line said goes to them by the environment.
    environment = {**os.environ, **_as_environment(data_dir=settings.data_dir, host=host, port=port)}
    try:
        status = supervisor.serve(
            settings, with_worker=not no_worker, environment=environment, ready_message=_ready_message(settings)
        )
    except supervisor.CannotStart as error:
        _refuse(str(error), status=1)
    raise typer.Exit(status)


def worker(data_dir: DataDir = None, parent: Parent = None) -> None:
    """Run a worker: it takes jobs from the queue until Ctrl-C or SIGTERM.

    Example: calotype worker --data-dir ./data
    """
    from calotype import compose, logs
    from calotype.disks.sandbox import SandboxUnavailable
    from calotype.lifeline import die_with_parent
    from calotype.supervisor import EX_CONFIG

    if parent is not None:
        die_with_parent(parent=parent)
    settings = _settings(data_dir=data_dir)
    logs.configure(settings)
    try:
        with compose.worker(settings) as work:
            work()
    except SandboxUnavailable as error:
        sys.stderr.write(f"calotype: {error}\n")
        raise typer.Exit(EX_CONFIG) from None


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the present schema. Safe to run again, and on several nodes at once.

    Example: calotype migrate --data-dir ./data
    """
    settings = _settings(data_dir=data_dir)
    from calotype.db.migrate import migrate as bring_up

    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sys.stdout.write(f"schema {bring_up(settings)}\n")


def settings_command(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Print every setting that is in force, with its environment variable. Secrets are shown as stars.

    Example: calotype settings --json
    """
    values = shown(_settings(data_dir=data_dir))
    if as_json:
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
        return
    names = {dotted: variable for variable, dotted in variables().items()}
    for dotted, value in _flat(values):
        variable = names.get(dotted, "")
        sys.stdout.write(f"{dotted} = {json.dumps(value)}" + (f"   # {variable}" if variable else "") + "\n")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict) and not (prefix == "" and name in TABLES):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _settings(**overrides: object) -> Settings:
    try:
        return load(None, **overrides)
    except (WrongSetting, tomllib.TOMLDecodeError) as error:
        _refuse(str(error))


def _refuse(message: str, status: int = 2) -> NoReturn:
    sys.stderr.write(f"calotype: {message}\n")
    raise typer.Exit(status)


def _as_environment(*, data_dir: str, host: str | None, port: int | None) -> dict[str, str]:
    given = {"CALOTYPE_DATA_DIR": os.path.abspath(data_dir)}  # noqa: PTH100 - the children start in the same folder
    if host is not None:
        given["CALOTYPE_HTTP_HOST"] = host
    if port is not None:
        given["CALOTYPE_HTTP_PORT"] = str(port)
    return given


def _ready_message(settings: Settings) -> str:
    return (
        f"Calotype is ready at {settings.url}\n"
        f"  use it:  export OS_CLIENT_CONFIG_FILE={settings.folder / 'clouds.yaml'} OS_CLOUD=calotype-demo\n"
        "           openstack image list      (or: calotype image list)\n"
        "  stop it: Ctrl-C\n"
    )
