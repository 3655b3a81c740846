"""Options that commands share, and the connection that they choose."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Final

import typer
from msgspec import Struct

from calotype.cli.session import Api, connected

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended; exit 1 unless it succeeded.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to wait; the job goes on after that."),
]
DEFAULT_TIMEOUT_S: Final = 6 * 3600.0
EVERYWHERE: Final = ("--os-cloud", "--os-region-name")  # allowed behind the command too, as OpenStack's clients do


class Chosen(Struct, frozen=True, kw_only=True):
    """What the options before the command chose."""

    cloud: str | None = None
    region: str | None = None


@contextmanager
def service(context: typer.Context) -> Iterator[Api]:
    """The service that the options, the environment and clouds.yaml name. Raises `Failure`."""
    chosen = context.find_object(Chosen) or Chosen()
    with closing(connected(chosen.cloud, chosen.region)) as api:
        yield api


def cloud_first(arguments: Sequence[str]) -> list[str]:
    """Put the options that choose a cloud in front of the command, wherever they were given."""
    front: list[str] = []
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument == "--":
            rest += [argument, *given]
        elif argument in EVERYWHERE:
            front += [argument, *([value] if (value := next(given, None)) is not None else [])]
        elif argument.startswith(tuple(f"{name}=" for name in EVERYWHERE)):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest
