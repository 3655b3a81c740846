"""What images can be made from, over HTTP and by the commands, on the running service with its inventory."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disks import build
from tests.service import Client, Service


@pytest.fixture
def inventory(service: Service) -> Path:
    folder = service.data_dir / "inventory"
    folder.mkdir(exist_ok=True)
    return folder


def lay(inventory: Path, shelf: str, name: str, toml: str, **files: bytes) -> None:
    """A folder of the inventory, its description last, as a program should write it."""
    folder = inventory / shelf / name
    folder.mkdir(parents=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    description = folder / f"{shelf.removesuffix('s')}.toml"
    description.write_text(toml)


def a_name() -> str:
    return f"srv-{uuid.uuid4().hex[:12]}"


def test_a_server_is_shown_with_its_disks(demo: Client, inventory: Path) -> None:
    name = a_name()
    lay(
        inventory,
        "servers",
        name,
        'name = "web"\nstatus = "running"\nos_version = "Debian GNU/Linux 12.0.0 64bit"\n'
        '[[disks]]\nfile = "system"\n[[disks]]\nfile = "data"\nname = "logs"\n',
        system=build.qcow2(),
        data=build.raw(),
    )

    answer = demo.http.get(f"/calotype/v1/servers/{name}")

    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["id"], told["name"], told["status"], told["kind"]) == (name, "web", "running", "ecs")
    assert [(v["id"], v["slot"], v["size"], v["size_gb"], v["server_id"]) for v in told["volumes"]] == [
        (f"{name}-disk0", 0, build.SIZE, 1, name),
        (f"{name}-disk1", 1, build.SIZE, 1, name),
    ]
    assert told["volumes"][1]["name"] == "logs"


def test_a_server_of_another_project_does_not_exist(demo: Client, admin: Client, inventory: Path) -> None:
    name = a_name()
    lay(inventory, "servers", name, 'name = "hidden"\nproject = "admin"\n')

    answer = demo.http.get(f"/calotype/v1/servers/{name}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "server_not_found")
    listed = demo.http.get("/calotype/v1/servers?limit=1000")
    assert name not in {server["id"] for server in listed.json()["servers"]}
    assert admin.http.get(f"/calotype/v1/servers/{name}").status_code == 200


def test_a_project_of_the_same_name_in_another_domain_sees_nothing(
    service: Service, admin: Client, inventory: Path
) -> None:
    domain = admin.http.post("/identity/v3/domains", json={"domain": {"name": a_name()}}).json()["domain"]
    twin = admin.http.post(
        "/identity/v3/projects", json={"project": {"name": "demo", "domain_id": domain["id"]}}
    ).json()["project"]
    own = admin.http.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": admin.token}).json()["token"]["user"]
    roles = admin.http.get("/identity/v3/roles").json()["roles"]
    member = next(role["id"] for role in roles if role["name"] == "member")
    path = f"/identity/v3/projects/{twin['id']}/users/{own['id']}/roles/{member}"
    assert admin.http.put(path).status_code == 204
    auth = {
        "auth": {
            "identity": {"methods": ["token"], "token": {"id": admin.token}},
            "scope": {"project": {"id": twin["id"]}},
        }
    }
    token = admin.http.post("/identity/v3/auth/tokens", json=auth).headers["X-Subject-Token"]
    by_name, by_id = a_name(), a_name()
    lay(inventory, "servers", by_name, 'project = "demo"\n')
    lay(inventory, "servers", by_id, f'project = "{twin["id"]}"\n')

    answer = admin.http.get("/calotype/v1/servers?limit=1000", headers={"X-Auth-Token": token})

    assert answer.status_code == 200, answer.text
    seen = {server["id"] for server in answer.json()["servers"]}
    assert by_id in seen
    assert by_name not in seen


def test_a_description_that_cannot_be_used_says_why_without_a_path(demo: Client, inventory: Path) -> None:
    broken, sound = a_name(), a_name()
    lay(inventory, "servers", broken, 'nmae = "typo"\n')
    lay(inventory, "servers", sound, 'name = "sound"\n')

    answer = demo.http.get(f"/calotype/v1/servers/{broken}")
    listed = demo.http.get("/calotype/v1/servers?limit=1000")

    assert answer.status_code == 503
    assert answer.json()["error"] == {"code": "source_unreadable", "message": "server.toml: nmae: no such key"}
    ids = {server["id"] for server in listed.json()["servers"]}
    assert sound in ids
    assert broken not in ids


@pytest.mark.parametrize(
    ("path", "shelf", "toml"),
    [
        ("servers", "servers", 'name = "x"\n'),
        ("volumes", "volumes", 'file = "disk"\n'),
        ("backups", "backups", '[[disks]]\nfile = "disk"\n'),
    ],
)
def test_lists_have_pages_in_the_order_of_ids(
    make_service: Callable[..., Service], path: str, shelf: str, toml: str
) -> None:
    """On a service of its own, so that nothing else is on the pages."""
    service = make_service()
    names = [f"n-{letter}" for letter in "cab"]
    for name in names:
        lay(service.data_dir / "inventory", shelf, name, toml, disk=build.raw())
    service.start("--no-worker")
    with service.demo() as demo:
        first = demo.http.get(f"/calotype/v1/{path}?limit=2").json()
        second = demo.http.get(f"/calotype/v1/{path}?limit=2&marker={first['next_marker']}").json()
        wrong = demo.http.get(f"/calotype/v1/{path}?limit=none")

    assert [one["id"] for one in first[path]] == ["n-a", "n-b"]
    assert first["next_marker"] == "n-b"
    assert ([one["id"] for one in second[path]], second["next_marker"]) == (["n-c"], None)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "bad_filter")


def test_the_commands_tell_the_same(service: Service, inventory: Path) -> None:
    name, disk, saved = a_name(), a_name(), a_name()
    lay(inventory, "servers", name, 'name = "web"\n[[disks]]\nfile = "system"\n', system=build.qcow2())
    lay(inventory, "volumes", disk, 'file = "data"\nname = "archive"\n', data=build.raw())
    lay(
        inventory,
        "backups",
        saved,
        'created_at = 2026-01-02T03:04:05Z\n[server]\nname = "web"\n[[disks]]\nfile = "system"\n',
        system=build.qcow2(),
    )

    servers = service.run_json("calotype", "server", "list", "--json")
    shown = service.run("calotype", "server", "show", name).stdout
    volumes = service.run("calotype", "volume", "list").stdout
    backups = service.run_json("calotype", "backup", "list", "--json")

    assert name in {server["id"] for server in servers}
    assert f"{name}-disk0" in shown
    assert any(disk in line and "archive" in line and "4.0 MiB" in line for line in volumes.splitlines())
    told = next(backup for backup in backups if backup["id"] == saved)
    assert (told["created_at"], told["has_os"], told["server"]["name"]) == ("2026-01-02T03:04:05.000Z", True, "web")


def test_an_unknown_server_ends_the_command_with_its_code(service: Service) -> None:
    done = service.run("calotype", "server", "show", "no-such-server", ok=False)

    assert done.returncode == 1
    assert "[server_not_found]" in done.stderr


@pytest.mark.parametrize("source", ["none", "elsewhere"])
def test_a_source_that_has_nothing_or_is_away_is_told_apart(make_service: Callable[..., Service], source: str) -> None:
    missing = f"/no-such-folder-{os.getpid()}"
    settings = {"CALOTYPE_SERVERS_SOURCE": "none"} if source == "none" else {"CALOTYPE_SERVERS_INVENTORY": missing}
    service = make_service(environment=settings).start("--no-worker")
    with service.demo() as demo:
        answers = [demo.http.get(f"/calotype/v1/{path}") for path in ("servers", "volumes", "backups", "servers/x")]

    wanted = [200, 200, 200, 404] if source == "none" else [503] * 4
    assert [answer.status_code for answer in answers] == wanted
    assert all(missing not in answer.text for answer in answers)
