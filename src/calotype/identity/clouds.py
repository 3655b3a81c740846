"""`clouds.yaml` in the data folder: how OpenStack's clients, and ours, log in to this service."""

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from calotype.settings import Settings

PREFIX: Final = "calotype-"  # of the name of each user's cloud
_HEADER: Final = b"# OpenStack's clients read this: OS_CLIENT_CONFIG_FILE=clouds.yaml OS_CLOUD=calotype-demo\n"


def clouds_file(settings: Settings) -> Path:
    return settings.folder / "clouds.yaml"


def cloud(settings: Settings, user: str, password: str) -> dict[str, Any]:
    """The entry of a user who has a project of the same name."""
    return {
        "auth": {
            "auth_url": f"{settings.url}/identity/v3",
            "username": user,
            "password": password,
            "project_name": user,
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        "region_name": settings.region,
        "interface": "public",
        "identity_api_version": "3",
        "image_api_version": "2",
    }


def read(path: Path) -> dict[str, Any] | None:
    """The document, {} when there is no file, None when it is not one of ours to change."""
    try:
        document = msgspec.yaml.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("clouds"), dict):
        return None
    return document


def known_password(document: Mapping[str, Any], user: str) -> str | None:
    """The password that the document has for this user."""
    entry = document.get("clouds", {}).get(PREFIX + user)
    auth = entry.get("auth") if isinstance(entry, dict) else None
    password = auth.get("password") if isinstance(auth, dict) else None
    return password if isinstance(password, str) and password else None


def write(settings: Settings, document: Mapping[str, Any], passwords: Mapping[str, str]) -> bool:
    """Bring the clouds of these users up to date, all or nothing, readable by the owner only; others stay as they are.

    Returns whether anything had to be changed.
    """
    clouds = dict(document.get("clouds", {}))
    for user, password in passwords.items():
        clouds[PREFIX + user] = _merged(clouds.get(PREFIX + user), cloud(settings, user, password))
    wanted = {**document, "clouds": clouds}
    if wanted == document:
        return False
    path = clouds_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_HEADER + msgspec.yaml.encode(wanted))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return True


def _merged(now: object, wanted: dict[str, Any]) -> dict[str, Any]:
    """What an admin has added to an entry stays; what follows from the settings is as they say."""
    if not isinstance(now, dict) or not isinstance(now.get("auth"), dict):
        return wanted
    auth = {**wanted["auth"], **now["auth"]}
    for key in ("auth_url", "password"):
        auth[key] = wanted["auth"][key]
    return {**wanted, **now, "auth": auth, "region_name": wanted["region_name"]}
