"""`calotype`: the service's commands, and the commands of those who use it. Noun, verb.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 stopped by Ctrl-C.
"""

import sys
from typing import Annotated

import typer

from calotype.cli import show
from calotype.cli.backups import backup
from calotype.cli.buckets import bucket
from calotype.cli.demo import demo
from calotype.cli.failure import Failure
from calotype.cli.images import image
from calotype.cli.jobs import job
from calotype.cli.keys import key
from calotype.cli.metadefs import metadefs
from calotype.cli.options import Chosen, cloud_first
from calotype.cli.serve import migrate, serve, settings_command, worker
from calotype.cli.servers import server, volume

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Calotype manages images of virtual machines: the service, and the commands to use one.",
)
app.command("serve")(serve)
app.command("worker")(worker)
app.command("migrate")(migrate)
app.command("settings")(settings_command)
app.command("demo")(demo)
app.add_typer(backup, name="backup")
app.add_typer(bucket, name="bucket")
app.add_typer(image, name="image")
app.add_typer(job, name="job")
app.add_typer(key, name="key")
app.add_typer(metadefs, name="metadefs")
app.add_typer(server, name="server")
app.add_typer(volume, name="volume")


def main() -> None:
    """The entry point of the command `calotype`."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # text streams, unless someone replaced them
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit status."""
    try:
        app(cloud_first(arguments), prog_name="calotype")
    except SystemExit as done:  # how Typer ends, also for wrong usage
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except Failure as failure:
        show.failure(failure)
        return 1
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        show.line(f"calotype {version('calotype')}")
        raise typer.Exit


@app.callback()
def _chosen(
    context: typer.Context,
    cloud: Annotated[
        str | None,
        typer.Option("--os-cloud", help="The cloud in clouds.yaml; else OS_CLOUD, else OS_*."),
    ] = None,
    region: Annotated[str | None, typer.Option("--os-region-name", help="Its region; else OS_REGION_NAME.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = Chosen(cloud=cloud, region=region)
