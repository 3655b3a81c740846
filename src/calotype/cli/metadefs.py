"""`calotype metadefs …`: definitions of metadata between files and the service, one namespace a file, in upstream's
form."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from calotype.cli import show
from calotype.cli.failure import Failure
from calotype.cli.options import AsJson, Force, service
from calotype.cli.session import Api

NAMESPACES: Final = "/v2/metadefs/namespaces"
PAGE: Final = 100
OF_THE_SERVICE: Final = frozenset({"self", "schema", "created_at", "updated_at", "owner"})  # what no file says

metadefs = typer.Typer(no_args_is_help=True, help="Definitions of metadata: which properties images may carry.")


@metadefs.command("load")
def load(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSON files, each of one namespace.")],
    as_json: AsJson = False,
) -> None:
    """Create the namespaces that the files hold. One that is there already is kept as it is.

    The form is that of upstream's files. A file that does not say a visibility is taken to mean public.

    Example:

        calotype metadefs load compute-watchdog.json
    """
    documents = [(file, _document(file)) for file in files]
    results = []
    with service(context) as api:
        for _file, document in documents:
            result = "kept" if _is_there(api, document["namespace"]) else "created"
            if result == "created":
                api.call("POST", NAMESPACES, body=document)
            results.append({"namespace": document["namespace"], "result": result})
    if as_json:
        show.document(results)
    else:
        show.table(("NAMESPACE", "RESULT"), ((each["namespace"], each["result"]) for each in results))


@metadefs.command("export")
def export(
    context: typer.Context,
    namespace: Annotated[str | None, typer.Argument(metavar="[NAMESPACE]", help="Print this one on stdout.")] = None,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Write every namespace as a file into this folder.")
    ] = None,
    force: Force = False,
) -> None:
    """Print a namespace as JSON, or write all that you may see into a folder; `load` takes the files again.

    Example:

        calotype metadefs export OS::Compute::Watchdog

        calotype metadefs export --into metadefs
    """
    if (namespace is None) == (into is None):
        raise typer.BadParameter("give either a NAMESPACE or --into DIR")
    with service(context) as api:
        if namespace is not None:
            show.document(_exported(api.call("GET", _path(namespace))))
        elif into is not None:
            for name in _names(api):
                file = into / f"{_file_name(name)}.json"
                _write(file, _exported(api.call("GET", _path(name))), force=force)
                show.line(str(file))


def _names(api: Api) -> Iterator[str]:
    asked: dict[str, Any] = {"limit": PAGE, "sort_key": "namespace", "sort_dir": "asc"}
    while True:
        page = api.call("GET", NAMESPACES, params=asked)
        names = [each["namespace"] for each in page["namespaces"]]
        yield from names
        if "next" not in page:
            return
        asked["marker"] = names[-1]


def _is_there(api: Api, namespace: str) -> bool:
    try:
        api.call("GET", _path(namespace))
    except Failure as failure:
        if failure.status == 404:
            return False
        raise
    return True


def _path(namespace: str) -> str:
    return f"{NAMESPACES}/{quote(namespace, safe=':')}"


def _document(file: Path) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Failure("cannot_read", f"cannot read {file}: {error.strerror}") from error
    try:
        document = msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Failure("not_metadefs", f"{file} does not hold a namespace of metadata definitions: {error}") from error
    if not isinstance(document.get("namespace"), str) or not document["namespace"]:
        raise Failure("not_metadefs", f"{file} does not hold a namespace of metadata definitions")
    if document.get("visibility") is None:
        document["visibility"] = "public"
    return document


def _exported(shown: Mapping[str, Any]) -> dict[str, Any]:
    """A namespace without what only this service can say of it."""
    document = _without(shown)
    for part in ("resource_type_associations", "objects"):
        if part in document:
            document[part] = [_without(each) for each in document[part]]
    return document


def _without(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in shown.items() if field not in OF_THE_SERVICE}


def _file_name(namespace: str) -> str:
    """No two alike; nothing that a file system or a shell reads as something else."""
    return "".join(c if c.isalnum() or c in "_.:-" else f"%{ord(c):x};" for c in namespace)


def _write(file: Path, document: Mapping[str, Any], *, force: bool) -> None:
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb" if force else "xb") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise Failure("file_exists", f"{file} exists", "give --force to replace files") from error
    except OSError as error:
        raise Failure("cannot_write", f"cannot write {file}: {error.strerror}") from error
