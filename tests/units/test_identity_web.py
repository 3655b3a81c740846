"""The Identity API over ASGI: the real handlers, service and database, without a server."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from calotype.db.engine import Database, open_engine, sqlite_file
from calotype.db.schema import METADATA
from calotype.identity.bootstrap import bootstrap
from calotype.identity.service import Identity
from calotype.settings import Settings
from calotype.web.identity import ROUTES
from calotype.web.route import Route, bound

PASSWORDS = {"CALOTYPE_ADMIN_PASSWORD": "of-the-admin", "CALOTYPE_DEMO_PASSWORD": "of-the-demo"}
V3 = "/identity/v3"
HEX = re.compile("[0-9a-f]{32}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNAUTHORIZED = {
    "error": {
        "code": 401,
        "message": "The request you have made requires authentication.",
        "title": "Unauthorized",
    }
}


class Client:
    """What a user sees."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def call(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        headers = {"X-Auth-Token": token} if token else {}
        headers |= more.pop("headers", {})
        return await self.http.request(method, f"{V3}/{path}" if path else V3, headers=headers, **more)

    async def log_in(self, name: str, password: str, scope: Any = "default") -> httpx.Response:
        if scope == "default":
            scope = {"project": {"name": name, "domain": {"id": "default"}}}
        return await self.call("POST", "auth/tokens", json=login(name, password, scope))

    async def token(self, name: str, password: str = "", scope: Any = "default") -> str:
        answer = await self.log_in(name, password or PASSWORDS[f"CALOTYPE_{name.upper()}_PASSWORD"], scope)
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]

    async def made(self, token: str, kind: str, **values: Any) -> dict[str, Any]:
        answer = await self.call("POST", f"{kind}s", token, json={kind: values})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()[kind]
        return made

    async def role(self, token: str, name: str) -> str:
        found: str = (await self.call("GET", f"roles?name={name}", token)).json()["roles"][0]["id"]
        return found


def login(name: str, password: str, scope: Any = None) -> dict[str, Any]:
    user = {"name": name, "domain": {"name": "Default"}, "password": password}
    body: dict[str, Any] = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    if scope is not None:
        body["auth"]["scope"] = scope
    return body


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a first start, to begin each test with."""
    settings = Settings(data_dir=str(tmp_path_factory.mktemp("first")))
    db = Database(open_engine(settings))
    METADATA.create_all(db.engine)
    bootstrap(db, settings, PASSWORDS)
    db.close()
    return sqlite_file(settings)


@pytest.fixture
async def parts(tmp_path: Path, first_start: Path) -> AsyncIterator[SimpleNamespace]:
    settings = Settings(data_dir=str(tmp_path))
    shutil.copy(first_start, sqlite_file(settings))
    db = Database(open_engine(settings))
    identity = await Identity.open(db, settings)
    yield SimpleNamespace(settings=settings, db=db, identity=identity)
    identity.close()
    db.close()


@pytest.fixture
async def client(parts: SimpleNamespace) -> AsyncIterator[Client]:
    app = Starlette(routes=bound(ROUTES))
    app.state.calotype = parts
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://calotype.test") as http:
        yield Client(http)


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/identity", "/identity/"])
async def test_the_versions_are_a_choice_of_one(client: Client, path: str) -> None:
    answer = await client.http.get(path)

    assert answer.status_code == 300
    (version,) = answer.json()["versions"]["values"]
    assert version["links"] == [{"rel": "self", "href": "http://127.0.0.1:9292/identity/v3/"}]


@pytest.mark.parametrize("path", ["/identity/v3", "/identity/v3/"])
async def test_the_version_document_needs_no_token(client: Client, path: str) -> None:
    answer = await client.http.get(path)

    assert answer.status_code == 200
    version = answer.json()["version"]
    assert version["id"].startswith("v3.")
    assert version["status"] == "stable"


async def test_a_method_that_is_none_is_told_in_keystones_form(client: Client) -> None:
    answer = await client.http.put("/identity/v3/auth/tokens")

    assert answer.status_code == 405
    assert answer.json()["error"]["title"] == "Method Not Allowed"
    assert answer.headers["allow"] == "DELETE, GET, HEAD, POST"


# --- logging in -------------------------------------------------------------------------------------------------------


async def test_a_login_answers_the_whole_token(client: Client) -> None:
    answer = await client.log_in("demo", "of-the-demo")

    assert answer.status_code == 201
    assert answer.headers["X-Subject-Token"].count(".") == 2
    token = answer.json()["token"]
    assert token["methods"] == ["password"]
    assert token["user"]["name"] == "demo"
    assert token["user"]["domain"] == {"id": "default", "name": "Default"}
    assert token["user"]["password_expires_at"] is None
    assert token["project"]["name"] == "demo"
    assert token["project"]["domain"] == {"id": "default", "name": "Default"}
    assert token["is_domain"] is False
    assert [role["name"] for role in token["roles"]] == ["member", "reader"]
    assert len(token["audit_ids"]) == 1
    for key in ("issued_at", "expires_at"):
        assert MOMENT.fullmatch(token[key])
    assert [service["type"] for service in token["catalog"]] == ["identity", "image", "ims"]


async def test_nocatalog_leaves_the_catalog_out(client: Client) -> None:
    answer = await client.call("POST", "auth/tokens?nocatalog", json=login("demo", "of-the-demo"))

    assert "catalog" not in answer.json()["token"]


async def test_a_user_and_a_project_can_be_named_by_their_ids(client: Client) -> None:
    mine = (await client.log_in("demo", "of-the-demo")).json()["token"]
    user = {"id": mine["user"]["id"], "password": "of-the-demo"}
    scope = {"project": {"id": mine["project"]["id"]}}
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}

    answer = await client.call("POST", "auth/tokens", json={"auth": auth})

    assert answer.status_code == 201
    assert answer.json()["token"]["project"] == mine["project"]


@pytest.mark.parametrize("scope", ["unscoped", {"unscoped": {}}])
async def test_an_unscoped_token_has_no_roles_and_no_catalog(client: Client, scope: Any) -> None:
    token = (await client.log_in("demo", "of-the-demo", scope)).json()["token"]

    assert not {"project", "domain", "roles", "catalog"} & {*token}


async def test_without_a_scope_the_token_is_of_the_default_project(client: Client) -> None:
    token = (await client.log_in("demo", "of-the-demo", None)).json()["token"]

    assert token["project"]["name"] == "demo"


async def test_without_a_scope_and_a_role_on_the_default_project_the_token_is_unscoped(client: Client) -> None:
    admin = await client.token("admin")
    project = await client.made(admin, "project", name="films")
    await client.made(admin, "user", name="ann", password="secret", default_project_id=project["id"])

    token = (await client.log_in("ann", "secret", None)).json()["token"]

    assert "project" not in token


async def test_a_token_can_be_of_a_domain(client: Client) -> None:
    for domain in ({"id": "default"}, {"name": "Default"}):
        token = (await client.log_in("admin", "of-the-admin", {"domain": domain})).json()["token"]

        assert token["domain"] == {"id": "default", "name": "Default"}
        assert [role["name"] for role in token["roles"]] == ["admin"]
        assert "project" not in token
        assert "is_domain" not in token


@pytest.mark.parametrize(
    ("name", "password"), [("demo", "wrong"), ("nobody", "of-the-demo"), ("demo", ""), ("de\x00mo", "x"), ("Demo", "x")]
)
async def test_a_wrong_password_and_an_unknown_user_are_told_apart_by_nothing(
    client: Client, name: str, password: str
) -> None:
    answer = await client.log_in(name, password)

    assert answer.status_code == 401
    assert answer.json() == UNAUTHORIZED
    assert answer.headers["WWW-Authenticate"].startswith("Keystone")


async def test_a_scope_without_a_role_and_an_unknown_one_are_told_apart_by_nothing(client: Client) -> None:
    scopes: list[Any] = [
        {"project": {"name": "admin", "domain": {"id": "default"}}},
        {"project": {"name": "none", "domain": {"id": "default"}}},
        {"project": {"name": "demo", "domain": {"id": "none"}}},
        {"project": {"name": "de\x00mo", "domain": {"id": "default"}}},
        {"project": {"id": "0" * 32}},
        {"project": {"id": "\x00"}},
        {"domain": {"id": "default"}},
        {"domain": {"name": "None\x00"}},
    ]

    for scope in scopes:
        answer = await client.log_in("demo", "of-the-demo", scope)

        assert answer.status_code == 401, scope
        assert answer.json() == UNAUTHORIZED


async def test_a_method_that_is_not_offered_is_refused(client: Client) -> None:
    auth = {"identity": {"methods": ["totp"], "totp": {}}}

    answer = await client.call("POST", "auth/tokens", json={"auth": auth})

    assert answer.json() == UNAUTHORIZED


async def test_a_login_that_is_malformed_is_a_bad_request(client: Client) -> None:
    for content in (b"", b"{", b"[]", b"{}", b'{"auth": 7}', b"\xff", b"[" * 5000, b'{"auth":{"identity":{}}}'):
        answer = await client.call("POST", "auth/tokens", content=content)

        assert answer.status_code == 400, content
        assert answer.json()["error"]["title"] == "Bad Request"


async def test_after_ten_failures_the_right_password_is_refused_too(client: Client) -> None:
    for _ in range(10):
        await client.log_in("demo", "wrong")

    refused = await client.log_in("demo", "of-the-demo")
    of_another = await client.log_in("admin", "of-the-admin")

    assert refused.json() == UNAUTHORIZED
    assert of_another.status_code == 201


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_another_token_can_be_had_for_a_token_and_does_not_live_longer(client: Client) -> None:
    first = await client.log_in("admin", "of-the-admin", "unscoped")
    identity = {"methods": ["token"], "token": {"id": first.headers["X-Subject-Token"]}}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}

    answer = await client.call("POST", "auth/tokens", json={"auth": {"identity": identity, "scope": scope}})

    assert answer.status_code == 201
    token, parent = answer.json()["token"], first.json()["token"]
    assert token["methods"] == ["token", "password"]
    assert token["expires_at"] == parent["expires_at"]
    assert token["audit_ids"][1] == parent["audit_ids"][0]
    assert token["project"]["name"] == "admin"


async def test_showing_a_token_answers_what_the_login_did(client: Client) -> None:
    first = await client.log_in("demo", "of-the-demo")
    wire = first.headers["X-Subject-Token"]

    shown = await client.call("GET", "auth/tokens", wire, headers={"X-Subject-Token": wire})
    checked = await client.call("HEAD", "auth/tokens", wire, headers={"X-Subject-Token": wire})

    assert shown.status_code == checked.status_code == 200
    assert shown.json() == first.json()
    assert checked.content == b""


async def test_only_its_user_and_an_admin_may_see_a_token(client: Client) -> None:
    admin, demo = await client.token("admin"), await client.token("demo")

    for method in ("GET", "HEAD", "DELETE"):
        by_demo = await client.call(method, "auth/tokens", demo, headers={"X-Subject-Token": admin})
        assert by_demo.status_code == 403
    by_admin = await client.call("GET", "auth/tokens", admin, headers={"X-Subject-Token": demo})
    assert by_admin.json()["token"]["user"]["name"] == "demo"


async def test_a_subject_that_is_no_token_is_not_found(client: Client) -> None:
    admin = await client.token("admin")

    for method in ("GET", "HEAD", "DELETE"):
        answer = await client.call(method, "auth/tokens", admin, headers={"X-Subject-Token": "nonsense"})
        assert answer.status_code == 404
    without = await client.call("GET", "auth/tokens", admin)
    assert without.status_code == 400


async def test_a_revoked_token_is_refused_at_once_and_others_are_not(client: Client) -> None:
    first, second = await client.token("demo"), await client.token("demo")

    answer = await client.call("DELETE", "auth/tokens", first, headers={"X-Subject-Token": first})

    assert answer.status_code == 204
    assert (await client.call("GET", "auth/projects", first)).json() == UNAUTHORIZED
    assert (await client.call("GET", "auth/projects", second)).status_code == 200
    assert (await client.call("GET", "auth/projects", await client.token("demo"))).status_code == 200


async def test_a_revoked_token_cannot_be_turned_into_another(client: Client) -> None:
    wire = await client.token("demo")
    await client.call("DELETE", "auth/tokens", wire, headers={"X-Subject-Token": wire})

    answer = await client.call(
        "POST", "auth/tokens", json={"auth": {"identity": {"methods": ["token"], "token": {"id": wire}}}}
    )

    assert answer.json() == UNAUTHORIZED


async def test_the_catalog_is_of_a_scope(client: Client) -> None:
    scoped = await client.call("GET", "auth/catalog", await client.token("demo"))
    unscoped = await client.call("GET", "auth/catalog", await client.token("demo", scope="unscoped"))

    assert [service["type"] for service in scoped.json()["catalog"]] == ["identity", "image", "ims"]
    assert unscoped.status_code == 403


async def test_what_the_caller_can_have_a_token_for_is_listed(client: Client) -> None:
    demo, admin = await client.token("demo", scope="unscoped"), await client.token("admin")

    projects = await client.call("GET", "auth/projects", demo)
    of_demo = await client.call("GET", "auth/domains", demo)
    of_admin = await client.call("GET", "auth/domains", admin)

    assert [project["name"] for project in projects.json()["projects"]] == ["demo"]
    assert of_demo.json()["domains"] == []
    assert [domain["id"] for domain in of_admin.json()["domains"]] == ["default"]


# --- who may ----------------------------------------------------------------------------------------------------------

EXAMPLES = dict.fromkeys(("domain_id", "project_id", "user_id", "role_id", "region_id"), "0" * 32) | {
    "service_id": "0" * 32,
    "endpoint_id": "0" * 32,
    "access": "A" * 20,
}


async def test_every_route_asks_for_what_it_says(client: Client) -> None:
    demo = {"X-Auth-Token": await client.token("demo"), "X-Subject-Token": "nonsense"}

    async def asked(route: Route) -> None:
        path = route.path.format(**EXAMPLES)
        without = await client.http.request(route.method, path)
        as_demo = await client.http.request(route.method, path, headers=demo)
        if route.permission is None:
            assert without.status_code in (200, 300, 400), route
            return
        assert without.status_code == 401, route
        assert without.headers["WWW-Authenticate"].startswith("Keystone")
        if route.permission == "identity:administer":
            assert as_demo.status_code == 403, route
        else:
            assert route.permission == "", route
            assert as_demo.status_code in (200, 400, 403, 404), route

    for route in ROUTES:
        await asked(route)


async def test_an_unscoped_token_of_an_admin_administers_nothing(client: Client) -> None:
    answer = await client.call("GET", "users", await client.token("admin", scope="unscoped"))

    assert answer.status_code == 403


async def test_a_user_sees_himself_his_projects_and_no_others(client: Client) -> None:
    admin, demo = await client.log_in("admin", "of-the-admin"), await client.log_in("demo", "of-the-demo")
    theirs, mine = admin.json()["token"], demo.json()["token"]
    wire = demo.headers["X-Subject-Token"]

    async def status(path: str) -> int:
        return (await client.call("GET", path, wire)).status_code

    assert await status(f"users/{mine['user']['id']}") == 200
    assert await status(f"users/{theirs['user']['id']}") == 403
    assert await status(f"users/{'0' * 32}") == 403
    assert await status(f"users/{mine['user']['id']}/projects") == 200
    assert await status(f"users/{theirs['user']['id']}/projects") == 403
    assert await status(f"projects/{mine['project']['id']}") == 200
    assert await status(f"projects/{theirs['project']['id']}") == 403
    assert await status(f"projects/{'0' * 32}") == 403
    assert await status("domains/default") == 200
    assert await status(f"domains/{'0' * 32}") == 403
    listed = (await client.call("GET", "projects", wire)).json()["projects"]
    assert [project["id"] for project in listed] == [mine["project"]["id"]]


async def test_the_project_of_a_region_is_that_of_the_token(client: Client) -> None:
    admin, demo = await client.token("admin"), await client.token("demo")
    await client.made(admin, "project", name="films")

    for name, wire in (("admin", admin), ("demo", demo)):
        answer = await client.call("GET", "projects?name=RegionOne", wire)
        assert [project["name"] for project in answer.json()["projects"]] == [name]
    unscoped = await client.call("GET", "projects?name=RegionOne", await client.token("demo", scope="unscoped"))
    assert unscoped.status_code == 403
    another = await client.call("GET", "projects?name=RegionTwo", demo)
    assert another.status_code == 403  # on which the openstack command takes the name for an id


# --- projects ---------------------------------------------------------------------------------------------------------


async def test_a_project_is_created_found_changed_and_deleted(client: Client) -> None:
    admin = await client.token("admin")

    project = await client.made(admin, "project", name="films", description="Reels", enabled=True, domain_id="default")
    assert HEX.fullmatch(project["id"])
    assert project["links"]["self"].endswith(f"/identity/v3/projects/{project['id']}")
    assert (await client.call("GET", f"projects/{project['id']}", admin)).json() == {"project": project}
    found = await client.call("GET", "projects?name=films&domain_id=default&enabled=true", admin)
    assert found.json()["projects"] == [project]
    assert (await client.call("GET", "projects?name=films&enabled=false", admin)).json()["projects"] == []

    change = {"project": {"name": "reels", "description": None}}
    changed = await client.call("PATCH", f"projects/{project['id']}", admin, json=change)
    assert changed.json()["project"] == project | {"name": "reels", "description": ""}

    assert (await client.call("DELETE", f"projects/{project['id']}", admin)).status_code == 204
    assert (await client.call("GET", f"projects/{project['id']}", admin)).status_code == 404
    assert (await client.call("DELETE", f"projects/{project['id']}", admin)).status_code == 404


async def test_two_projects_of_a_domain_have_two_names(client: Client) -> None:
    admin = await client.token("admin")
    films = await client.made(admin, "project", name="films")

    again = await client.call("POST", "projects", admin, json={"project": {"name": "films"}})
    renamed = await client.call("PATCH", f"projects/{films['id']}", admin, json={"project": {"name": "demo"}})

    assert again.status_code == renamed.status_code == 409
    assert (await client.call("GET", f"projects/{films['id']}", admin)).json()["project"]["name"] == "films"


async def test_the_same_name_is_free_in_another_domain(client: Client) -> None:
    admin = await client.token("admin")
    studio = await client.made(admin, "domain", name="Studio")

    project = await client.made(admin, "project", name="demo", domain_id=studio["id"])

    assert project["parent_id"] == studio["id"]


async def test_a_project_that_cannot_be_is_a_bad_request(client: Client) -> None:
    admin = await client.token("admin")
    wrong: list[Any] = [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "a\x00b"},
        {"name": 7},
        {"name": "x" * 65},
        {"name": "a", "enabled": "yes"},
        {"name": "a", "id": "0" * 32},
        {"name": "a", "is_domain": True},
        {"name": "a", "domain_id": "\x00"},
        {"name": "a", "parent_id": "0" * 32},
        {"name": "a", "description": "\x00"},
        {"name": "a", "tags": ["red"]},
        {"name": "a", "roles": ["admin"]},
    ]

    for project in wrong:
        assert (await client.call("POST", "projects", admin, json={"project": project})).status_code == 400, project
    assert len((await client.call("GET", "projects", admin)).json()["projects"]) == 2


async def test_what_is_created_in_no_domain_is_not_found(client: Client) -> None:
    admin = await client.token("admin")

    for kind in ("project", "user"):
        answer = await client.call("POST", f"{kind}s", admin, json={kind: {"name": "a", "domain_id": "0" * 32}})
        assert answer.status_code == 404


async def test_a_change_may_repeat_the_id_and_not_change_it(client: Client) -> None:
    admin = await client.token("admin")

    for kind in ("project", "user", "domain"):
        made = await client.made(admin, kind, name="films")
        for given, status in ((made["id"], 200), ("0" * 32, 400)):
            change = {kind: {"id": given, "name": "reels"}}
            assert (await client.call("PATCH", f"{kind}s/{made['id']}", admin, json=change)).status_code == status


async def test_lists_come_in_pages_that_name_the_next(client: Client) -> None:
    admin = await client.token("admin")
    for name in ("a", "b", "c"):
        await client.made(admin, "project", name=name)

    seen: list[str] = []
    path: str | None = "projects?limit=2&domain_id=default"
    pages = 0
    while path is not None:
        answer = await client.call("GET", path, admin)
        seen += [project["name"] for project in answer.json()["projects"]]
        following = answer.json()["links"]["next"]
        assert answer.json().get("next") == following
        path = following and following.partition("/identity/v3/")[2]
        pages += 1

    assert (sorted(seen), pages) == (["a", "admin", "b", "c", "demo"], 3)


async def test_a_limit_that_is_no_number_is_a_bad_request(client: Client) -> None:
    admin = await client.token("admin")

    for limit in ("x", "-1", "1.5", ""):
        assert (await client.call("GET", f"users?limit={limit}", admin)).status_code == 400, limit


async def test_odd_filters_match_what_they_can(client: Client) -> None:
    admin = await client.token("admin")

    for query in ("name=%00", "domain_id=%00", "marker=%00", "limit=999999999", "name=%ff", "x=y"):
        for kind in ("users", "projects", "domains", "roles"):
            assert (await client.call("GET", f"{kind}?{query}", admin)).status_code == 200, (kind, query)


async def test_an_id_that_is_none_is_not_found(client: Client) -> None:
    admin = await client.token("admin")

    for kind in ("users", "projects", "domains", "roles", "services", "endpoints", "regions"):
        for name in ("0" * 32, "%00", "%ff", "%2e%2e", "x" * 300):
            answer = await client.call("GET", f"{kind}/{name}", admin)
            assert answer.status_code == 404, (kind, name)


# --- users ------------------------------------------------------------------------------------------------------------


async def test_a_user_is_created_logs_in_is_changed_and_deleted(client: Client) -> None:
    admin = await client.token("admin")

    user = await client.made(admin, "user", name="ann", password="secret", email="ann@example.test", description="A.")
    assert HEX.fullmatch(user["id"])
    assert user["email"] == "ann@example.test"
    assert "password" not in user
    assert (await client.call("GET", f"users/{user['id']}", admin)).json() == {"user": user}
    assert (await client.call("GET", "users?name=ann", admin)).json()["users"] == [user]
    assert (await client.log_in("ann", "secret", None)).status_code == 201

    changed = await client.call("PATCH", f"users/{user['id']}", admin, json={"user": {"name": "anna", "email": None}})
    assert changed.json()["user"]["name"] == "anna"
    assert "email" not in changed.json()["user"]
    assert (await client.log_in("anna", "secret", None)).status_code == 201

    assert (await client.call("DELETE", f"users/{user['id']}", admin)).status_code == 204
    assert (await client.call("GET", f"users/{user['id']}", admin)).status_code == 404
    assert (await client.log_in("anna", "secret", None)).status_code == 401


async def test_a_user_without_a_password_cannot_log_in(client: Client) -> None:
    await client.made(await client.token("admin"), "user", name="ann")

    assert (await client.log_in("ann", "", None)).json() == UNAUTHORIZED


async def test_what_tempest_sends_for_a_user_is_taken(client: Client) -> None:
    user = await client.made(
        await client.token("admin"), "user", name="ann", password="p", email="a@b", project_id="0" * 32, enabled=True
    )

    assert "project_id" not in user


async def test_a_user_that_cannot_be_is_a_bad_request(client: Client) -> None:
    admin = await client.token("admin")
    wrong: list[Any] = [
        {},
        {"name": ""},
        {"name": "x" * 256},
        {"name": "a", "password": ""},
        {"name": "a", "password": "x" * 5000},
        {"name": "a", "password": 7},
        {"name": "a", "is_admin": True},
        {"name": "a", "roles": ["admin"]},
        {"name": "a", "email": "\x00"},
        {"name": "a", "default_project_id": "\x00"},
    ]

    for user in wrong:
        assert (await client.call("POST", "users", admin, json={"user": user})).status_code == 400, user
    assert len((await client.call("GET", "users", admin)).json()["users"]) == 2


async def test_a_new_password_voids_the_tokens_and_the_old_password(client: Client) -> None:
    admin, demo = await client.token("admin"), await client.log_in("demo", "of-the-demo")
    path, wire = f"users/{demo.json()['token']['user']['id']}", demo.headers["X-Subject-Token"]

    await client.call("PATCH", path, admin, json={"user": {"password": "another"}})

    assert (await client.call("GET", "auth/projects", wire)).json() == UNAUTHORIZED
    assert (await client.log_in("demo", "of-the-demo")).status_code == 401
    fresh = await client.log_in("demo", "another")
    assert (await client.call("GET", "auth/projects", fresh.headers["X-Subject-Token"])).status_code == 200


async def test_a_user_changes_the_own_password_with_the_old_one(client: Client) -> None:
    demo = await client.log_in("demo", "of-the-demo")
    path, wire = f"users/{demo.json()['token']['user']['id']}/password", demo.headers["X-Subject-Token"]

    async def change(token: str, original: str) -> int:
        values = {"user": {"original_password": original, "password": "another"}}
        return (await client.call("POST", path, token, json=values)).status_code

    assert await change(wire, "wrong") == 401
    assert await change(await client.token("admin"), "of-the-demo") == 403
    assert await change(wire, "of-the-demo") == 204
    assert (await client.call("GET", "auth/projects", wire)).status_code == 401
    assert (await client.log_in("demo", "another")).status_code == 201


@pytest.mark.parametrize("kind", ["user", "project"])
@pytest.mark.parametrize("way", ["disabled", "deleted"])
async def test_a_disabled_or_deleted_user_or_project_voids_its_tokens(client: Client, kind: str, way: str) -> None:
    admin, demo = await client.token("admin"), await client.log_in("demo", "of-the-demo")
    wire = demo.headers["X-Subject-Token"]
    path = f"{kind}s/{demo.json()['token'][kind]['id']}"

    if way == "deleted":
        answer = await client.call("DELETE", path, admin)
    else:
        answer = await client.call("PATCH", path, admin, json={kind: {"enabled": False}})

    assert answer.status_code in (200, 204)
    assert (await client.call("GET", "auth/projects", wire)).json() == UNAUTHORIZED
    assert (await client.log_in("demo", "of-the-demo")).json() == UNAUTHORIZED
    assert (await client.call("GET", "auth/projects", admin)).status_code == 200


async def test_an_enabled_again_user_logs_in_and_old_tokens_stay_void(client: Client) -> None:
    admin, demo = await client.token("admin"), await client.log_in("demo", "of-the-demo")
    path, wire = f"users/{demo.json()['token']['user']['id']}", demo.headers["X-Subject-Token"]

    for enabled in (False, True):
        await client.call("PATCH", path, admin, json={"user": {"enabled": enabled}})

    assert (await client.call("GET", "auth/projects", wire)).status_code == 401
    fresh = await client.token("demo")
    assert (await client.call("GET", "auth/projects", fresh)).status_code == 200


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["project", "domain"])
async def test_a_role_is_given_seen_and_taken(client: Client, kind: str) -> None:
    admin = await client.token("admin")
    user = await client.made(admin, "user", name="ann", password="secret")
    target = await client.made(admin, kind, name="films")
    member = await client.role(admin, "member")
    path = f"{kind}s/{target['id']}/users/{user['id']}/roles"
    scope = {kind: {"id": target["id"]}}

    assert (await client.call("HEAD", f"{path}/{member}", admin)).status_code == 404
    for _ in range(2):
        assert (await client.call("PUT", f"{path}/{member}", admin)).status_code == 204
    assert (await client.call("HEAD", f"{path}/{member}", admin)).status_code == 204
    assert [role["name"] for role in (await client.call("GET", path, admin)).json()["roles"]] == ["member"]
    query = f"role_assignments?user.id={user['id']}&scope.{kind}.id={target['id']}&role.id={member}&include_names=1"
    (assignment,) = (await client.call("GET", query, admin)).json()["role_assignments"]
    assert assignment["role"] == {"id": member, "name": "member"}
    assert assignment["user"]["name"] == "ann"
    assert assignment["scope"][kind]["name"] == "films"
    wire = await client.token("ann", "secret", scope)

    assert (await client.call("DELETE", f"{path}/{member}", admin)).status_code == 204
    assert (await client.call("DELETE", f"{path}/{member}", admin)).status_code == 404
    assert (await client.call("GET", "auth/projects", wire)).json() == UNAUTHORIZED
    assert (await client.log_in("ann", "secret", scope)).status_code == 401


async def test_tokens_of_other_projects_outlive_a_role_that_is_taken(client: Client) -> None:
    admin = await client.token("admin")
    demo = (await client.log_in("demo", "of-the-demo")).json()["token"]["user"]["id"]
    project = await client.made(admin, "project", name="films")
    path = f"projects/{project['id']}/users/{demo}/roles/{await client.role(admin, 'member')}"
    await client.call("PUT", path, admin)
    taken, other = await client.token("demo", scope={"project": {"id": project["id"]}}), await client.token("demo")

    await client.call("DELETE", path, admin)

    assert (await client.call("GET", "auth/projects", taken)).status_code == 401
    assert (await client.call("GET", "auth/projects", other)).status_code == 200


@pytest.mark.parametrize("missing", ["user", "role", "target"])
async def test_a_role_of_nobody_on_nothing_is_not_found(client: Client, missing: str) -> None:
    admin = await client.token("admin")
    mine = (await client.log_in("demo", "of-the-demo")).json()["token"]
    user = "0" * 32 if missing == "user" else mine["user"]["id"]
    role = "0" * 32 if missing == "role" else await client.role(admin, "admin")
    project = "0" * 32 if missing == "target" else mine["project"]["id"]

    for method in ("PUT", "HEAD", "DELETE"):
        answer = await client.call(method, f"projects/{project}/users/{user}/roles/{role}", admin)
        assert answer.status_code == 404


async def test_a_role_of_ones_own_is_created_and_deleted_and_takes_its_tokens_along(client: Client) -> None:
    admin, mine = await client.token("admin"), (await client.log_in("demo", "of-the-demo")).json()["token"]
    role = await client.made(admin, "role", name="projectionist")
    user, project = mine["user"]["id"], mine["project"]["id"]
    await client.call("PUT", f"projects/{project}/users/{user}/roles/{role['id']}", admin)
    wire = await client.token("demo")

    again = await client.call("POST", "roles", admin, json={"role": {"name": "projectionist"}})
    deleted = await client.call("DELETE", f"roles/{role['id']}", admin)

    assert again.status_code == 409
    assert deleted.status_code == 204
    assert (await client.call("GET", "auth/projects", wire)).status_code == 401
    assert [role["name"] for role in (await client.log_in("demo", "of-the-demo")).json()["token"]["roles"]] == [
        "member",
        "reader",
    ]


@pytest.mark.parametrize("name", ["admin", "member", "reader"])
async def test_the_roles_that_permissions_are_written_for_stay(client: Client, name: str) -> None:
    admin = await client.token("admin")

    answer = await client.call("DELETE", f"roles/{await client.role(admin, name)}", admin)

    assert answer.status_code == 403


async def test_assignments_that_there_are_none_of_are_an_empty_list(client: Client) -> None:
    admin = await client.token("admin")

    for query in ("group.id=a", "scope.system=all", "user.id=%00", "user.id=none", "role.id=none"):
        answer = await client.call("GET", f"role_assignments?{query}", admin)
        assert answer.json()["role_assignments"] == [], query


async def test_assignments_on_a_project_and_a_domain_at_once_are_a_bad_request(client: Client) -> None:
    query = "role_assignments?scope.project.id=a&scope.domain.id=b"

    assert (await client.call("GET", query, await client.token("admin"))).status_code == 400


async def test_the_last_admin_cannot_be_lost(client: Client) -> None:
    login = await client.log_in("admin", "of-the-admin")
    admin, mine = login.headers["X-Subject-Token"], login.json()["token"]
    user, project = mine["user"]["id"], mine["project"]["id"]
    role = await client.role(admin, "admin")
    domain_role = f"domains/default/users/{user}/roles/{role}"

    deleted = await client.call("DELETE", f"users/{user}", admin)
    disabled = await client.call("PATCH", f"users/{user}", admin, json={"user": {"enabled": False}})
    without = await client.call("PATCH", f"users/{user}", admin, json={"user": {"password": None}})
    assert deleted.status_code == disabled.status_code == without.status_code == 409

    first = await client.call("DELETE", domain_role, admin)
    admin = await client.token("admin")
    last = await client.call("DELETE", f"projects/{project}/users/{user}/roles/{role}", admin)
    assert (first.status_code, last.status_code) == (204, 409)
    assert (await client.call("DELETE", f"projects/{project}", admin)).status_code == 409
    assert (await client.call("GET", "users", admin)).status_code == 200


# --- domains ----------------------------------------------------------------------------------------------------------


async def test_a_domain_is_deleted_with_all_in_it_once_it_is_disabled(client: Client) -> None:
    admin = await client.token("admin")
    domain = await client.made(admin, "domain", name="Studio", description="Films")
    project = await client.made(admin, "project", name="films", domain_id=domain["id"])
    user = await client.made(admin, "user", name="ann", password="secret", domain_id=domain["id"])
    demo = (await client.log_in("demo", "of-the-demo")).json()["token"]["user"]["id"]
    member = await client.role(admin, "member")
    for who in (user["id"], demo):
        await client.call("PUT", f"projects/{project['id']}/users/{who}/roles/{member}", admin)
    wire = await client.token("demo", scope={"project": {"id": project["id"]}})

    assert (await client.call("DELETE", f"domains/{domain['id']}", admin)).status_code == 403
    disabled = await client.call("PATCH", f"domains/{domain['id']}", admin, json={"domain": {"enabled": False}})
    assert disabled.json()["domain"]["enabled"] is False
    assert (await client.call("GET", "auth/projects", wire)).status_code == 401
    assert (await client.log_in("demo", "of-the-demo", {"project": {"id": project["id"]}})).status_code == 401
    assert (await client.call("DELETE", f"domains/{domain['id']}", admin)).status_code == 204

    for path in (f"domains/{domain['id']}", f"projects/{project['id']}", f"users/{user['id']}"):
        assert (await client.call("GET", path, admin)).status_code == 404
    assignments = await client.call("GET", f"role_assignments?user.id={demo}", admin)
    assert {item["scope"]["project"]["id"] for item in assignments.json()["role_assignments"]} != {project["id"]}
    assert (await client.log_in("demo", "of-the-demo")).status_code == 201


async def test_the_default_domain_stays(client: Client) -> None:
    admin = await client.token("admin")

    disabled = await client.call("PATCH", "domains/default", admin, json={"domain": {"enabled": False}})
    deleted = await client.call("DELETE", "domains/default", admin)

    assert (disabled.status_code, deleted.status_code) == (403, 403)


async def test_two_domains_have_two_names(client: Client) -> None:
    admin = await client.token("admin")

    assert (await client.call("POST", "domains", admin, json={"domain": {"name": "Default"}})).status_code == 409


# --- catalog ----------------------------------------------------------------------------------------------------------


async def test_services_endpoints_and_the_region_are_those_of_the_catalog(client: Client) -> None:
    admin = await client.token("admin")

    services = (await client.call("GET", "services?type=image", admin)).json()["services"]
    assert [service["name"] for service in services] == ["glance"]
    query = f"endpoints?service_id={services[0]['id']}&interface=public&region_id=RegionOne"
    (endpoint,) = (await client.call("GET", query, admin)).json()["endpoints"]
    assert endpoint["url"] == "http://127.0.0.1:9292"
    assert (await client.call("GET", f"endpoints/{endpoint['id']}", admin)).json() == {"endpoint": endpoint}
    assert (await client.call("GET", f"services/{services[0]['id']}", admin)).json() == {"service": services[0]}
    (region,) = (await client.call("GET", "regions", await client.token("demo"))).json()["regions"]
    assert (await client.call("GET", f"regions/{region['id']}", admin)).json()["region"]["id"] == "RegionOne"
