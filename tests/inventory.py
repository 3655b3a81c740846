"""Servers and disks described in the inventory of a running service, for tests that make images of them."""

import json
import uuid
from pathlib import Path
from typing import Any

from tests.service import Service

MIB = 1024 * 1024


def toml(value: Any) -> str:
    return json.dumps(value)


class Described:
    """The inventory's folder; every server, volume and backup gets an id of its own."""

    def __init__(self, service: Service) -> None:
        self.folder = service.data_dir / "inventory"

    def server(self, *disks: tuple[bytes, dict[str, Any]], **fields: Any) -> str:
        """A server; returns its id. A disk is its content, in raw form, and what else is said of it."""
        server_id = str(uuid.uuid4())
        return self._described("servers", server_id, "server.toml", {"name": "srv", **fields}, disks)

    def backup(self, *disks: tuple[bytes, dict[str, Any]], **fields: Any) -> str:
        return self._described("backups", str(uuid.uuid4()), "backup.toml", fields, disks)

    def volume(self, content: bytes, **fields: Any) -> str:
        volume_id = str(uuid.uuid4())
        folder = self.folder / "volumes" / volume_id
        folder.mkdir(parents=True)
        (folder / "disk.raw").write_bytes(content)
        lines = {"file": "disk.raw", "format": "raw", **fields}
        (folder / "volume.toml").write_text("".join(f"{key} = {toml(value)}\n" for key, value in lines.items()))
        return volume_id

    def vault(self, **fields: Any) -> str:
        vault_id = str(uuid.uuid4())
        (self.folder / "vaults").mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{key} = {toml(value)}\n" for key, value in fields.items())
        (self.folder / "vaults" / f"{vault_id}.toml").write_text(lines)
        return vault_id

    def _described(
        self, kind: str, id_: str, file: str, fields: dict[str, Any], disks: tuple[tuple[bytes, dict[str, Any]], ...]
    ) -> str:
        folder = self.folder / kind / id_
        folder.mkdir(parents=True)
        tables = {key: value for key, value in fields.items() if isinstance(value, dict)}
        lines = [f"{key} = {toml(value)}" for key, value in fields.items() if key not in tables]
        for key, table in tables.items():
            lines += [f"[{key}]", *(f"{name} = {toml(value)}" for name, value in table.items())]
        for number, (content, told) in enumerate(disks):
            (folder / f"disk{number}.raw").write_bytes(content)
            entry = {"file": f"disk{number}.raw", "format": "raw", "id": f"{id_[:8]}-vol{number}", **told}
            lines += ["[[disks]]", *(f"{key} = {toml(value)}" for key, value in entry.items())]
        (folder / file).write_text("\n".join(lines) + "\n")
        return id_

    def path(self, server_id: str, disk: int = 0) -> Path:
        return self.folder / "servers" / server_id / f"disk{disk}.raw"
