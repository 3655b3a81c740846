"""Identity as its clients see it: the `openstack` command, openstacksdk, and several API processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openstack
import pytest

from tests.service import ADMIN_PASSWORD, DEMO_PASSWORD, Client, Service, password_auth, until

OPENSTACK = str(Path(sys.executable).with_name("openstack"))


# openstacksdk warns of its own calls, at every start and every request.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def cloud(service: Service) -> Iterator[Any]:
    """openstacksdk as the admin."""
    found = service.cloud("calotype-admin")
    connection = openstack.connect(
        auth=found["auth"],
        region_name=found["region_name"],
        identity_api_version="3",
        load_envvars=False,
        load_yaml_config=False,
    )
    with closing(connection):
        yield connection


def as_user(service: Service, name: str, password: str, project: str) -> dict[str, str]:
    """The environment of a user who has no clouds.yaml."""
    auth = {
        "OS_AUTH_URL": f"{service.url}/identity/v3",
        "OS_USERNAME": name,
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": project,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_IDENTITY_API_VERSION": "3",
    }
    return {**{name: value for name, value in os.environ.items() if not name.startswith("OS_")}, **auth}


def test_clouds_yaml_works_at_once_and_without_a_warning(service: Service) -> None:
    done = service.run("openstack", "--os-cloud", "calotype-demo", "image", "list")

    assert done.stderr == ""


def run_openstack(environment: dict[str, str], *commands: str) -> list[Any]:
    """Several commands by one process, as it takes them from a terminal; what each printed as JSON."""
    done = subprocess.run(
        [OPENSTACK],
        env=environment,
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""  # its exit status is 1 whenever commands come from a pipe
    found, rest = [], done.stdout
    while rest := rest.lstrip():
        value, end = json.JSONDecoder().raw_decode(rest)
        found.append(value)
        rest = rest[end:]
    return found


def test_the_openstack_command_of_an_admin_gives_a_new_user_a_project(service: Service) -> None:
    admin = service.env("calotype-admin")

    project, user, assignments, catalog = run_openstack(
        admin,
        "project create reels --description Reels -f json",
        "user create ann --password of-ann --project reels -f json",
        "role add --user ann --project reels member",
        "role assignment list --user ann --names -f json",
        "catalog list -f json",
    )
    (issued,) = run_openstack(as_user(service, "ann", "of-ann", "reels"), "token issue -f json")
    (projects,) = run_openstack(admin, "user delete ann", "project delete reels", "project list -f json")

    assert [(item["Role"], item["Project"]) for item in assignments] == [("member", "reels@Default")]
    assert {item["Type"] for item in catalog} == {"identity", "image", "ims"}
    assert (issued["project_id"], issued["user_id"]) == (project["id"], user["id"])
    assert "reels" not in {item["Name"] for item in projects}


def test_openstacksdk_administers_everything(cloud: Any) -> None:
    identity = cloud.identity
    domain = identity.create_domain(name="Sdk studio")
    project = identity.create_project(name="sdk-films", domain_id=domain.id, description="Films", is_enabled=True)
    user = identity.create_user(name="sdk-ann", domain_id=domain.id, password="of-ann", email="ann@example.test")
    role = identity.create_role(name="sdk-projectionist")

    identity.assign_project_role_to_user(project, user, role)
    identity.assign_domain_role_to_user(domain, user, role)
    assert identity.validate_user_has_project_role(project, user, role)
    assert [found.id for found in identity.role_assignments_filter(user=user, project=project)] == [role.id]
    assert identity.find_project("sdk-films", domain_id=domain.id).id == project.id
    assert identity.find_user("sdk-ann", domain_id=domain.id).id == user.id
    assert identity.find_role("sdk-projectionist").id == role.id
    assert identity.find_domain("Sdk studio").id == domain.id
    assert identity.find_project("sdk-nothing") is None
    assert [item.id for item in identity.user_projects(user)] == [project.id]
    assert identity.update_user(user, description="Projectionist").description == "Projectionist"
    assert identity.update_project(project, is_enabled=False).is_enabled is False
    identity.unassign_project_role_from_user(project, user, role)
    assert not identity.validate_user_has_project_role(project, user, role)
    identity.delete_role(role)
    identity.update_domain(domain, is_enabled=False)
    identity.delete_domain(domain)
    assert identity.find_user("sdk-ann") is None


def test_openstacksdk_follows_the_pages_of_a_list(cloud: Any) -> None:
    made = [cloud.identity.create_project(name=f"page-{number}") for number in range(5)]

    listed = [project.id for project in cloud.identity.projects(limit=2)]

    assert {project.id for project in made} <= {*listed}
    assert len(listed) == len({*listed})
    for project in made:
        cloud.identity.delete_project(project)


def test_openstacksdk_finds_the_image_endpoint_and_the_region(cloud: Any, service: Service) -> None:
    assert cloud.session.get_endpoint(service_type="image", interface="public").rstrip("/") == service.url
    assert cloud.identity.get_endpoint_data().url.rstrip("/") == f"{service.url}/identity/v3"
    assert [region.id for region in cloud.identity.regions()] == ["RegionOne"]
    assert cloud.current_project.name == "admin"


def test_a_revoked_token_is_refused_by_every_process(make_service: Callable[..., Service]) -> None:
    environment = {"CALOTYPE_HTTP_PROCESSES": "2", "CALOTYPE_IDENTITY_REVOCATION_REFRESH_S": "0.2"}
    service = make_service(environment=environment, arguments=("--no-worker",)).start()
    with service.demo() as revoked, service.demo() as kept:
        answer = revoked.http.delete("/identity/v3/auth/tokens", headers={"X-Subject-Token": revoked.token})
        assert answer.status_code == 204

        # A connection stays with its process: several new ones reach all of them.
        until(lambda: {status(revoked) for _ in range(12)} == {401}, "every process to refuse the token")

        assert {status(kept) for _ in range(12)} == {200}


def status(client: Client) -> int:
    headers = {"X-Auth-Token": client.token}
    return httpx.get(f"{client.service.url}/identity/v3/auth/projects", headers=headers, timeout=60).status_code


def test_a_new_password_ends_what_the_old_one_began(service: Service, admin: Client) -> None:
    made = admin.http.post("/identity/v3/users", json={"user": {"name": "eve", "password": "first"}}).json()["user"]
    login = password_auth("eve", "first", None)
    token = httpx.post(f"{service.url}/identity/v3/auth/tokens", json=login).headers["X-Subject-Token"]

    admin.http.patch(f"/identity/v3/users/{made['id']}", json={"user": {"password": "second"}})

    mine = httpx.get(f"{service.url}/identity/v3/users/{made['id']}", headers={"X-Auth-Token": token})
    again = httpx.post(f"{service.url}/identity/v3/auth/tokens", json=login)
    assert mine.status_code == again.status_code == 401
    assert mine.json() == again.json()
    admin.http.delete(f"/identity/v3/users/{made['id']}")


def test_no_password_and_no_token_is_in_the_log_or_in_an_error(service: Service, admin: Client) -> None:
    canary = "canary-7f3a"
    answers = [
        httpx.post(f"{service.url}/identity/v3/auth/tokens", json=password_auth("demo", canary, "demo")),
        httpx.post(f"{service.url}/identity/v3/auth/tokens", json={"auth": {"identity": {"password": canary}}}),
        httpx.post(f"{service.url}/identity/v3/auth/tokens", content=canary),
        httpx.get(f"{service.url}/identity/v3/users", headers={"X-Auth-Token": canary}),
        admin.http.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": canary}),
        admin.http.post("/identity/v3/users", json={"user": {"name": "a", "password": canary, "wrong": canary}}),
    ]

    assert [answer.status_code for answer in answers] == [401, 400, 400, 401, 404, 400]
    assert not [answer.text for answer in answers if canary in answer.text]
    log = service.log.read_text()
    assert not [secret for secret in (canary, admin.token, ADMIN_PASSWORD, DEMO_PASSWORD) if secret in log]
