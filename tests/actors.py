"""Everyone who may stand before an image, each with a client of the running service."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx

from tests.service import Client, Service, password_auth


class Actors:
    """An owner, a reader of the same project, three that an image is shared with, a stranger, an admin; one whose token
    is for no project, and nobody, who has none."""

    def __init__(self, service: Service, admin: Client) -> None:
        self.clients: dict[str, Client] = {"admin": admin, "owner": service.demo()}
        roles = {role["name"]: role["id"] for role in admin.http.get("/identity/v3/roles").json()["roles"]}
        for actor in ("stranger", "pending", "accepted", "rejected"):
            project = self._made(admin, "project", name=f"{actor}-{uuid.uuid4().hex[:8]}")
            self.clients[actor] = self._user(service, admin, project, roles["member"])
        own = {"id": self.clients["owner"].project_id, "name": self.clients["owner"].project}
        self.clients["reader"] = self._user(service, admin, own, roles["reader"])
        user = self.clients["owner"]
        auth = password_auth(user.user, user.password, None)
        auth["auth"]["scope"] = "unscoped"
        answer = user.http.post("/identity/v3/auth/tokens", json=auth)
        assert answer.status_code == 201, answer.text
        self.unscoped: str = answer.headers["X-Subject-Token"]

    def _made(self, admin: Client, kind: str, **fields: Any) -> dict[str, Any]:
        answer = admin.http.post(f"/identity/v3/{kind}s", json={kind: fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()[kind]
        return made

    def _user(self, service: Service, admin: Client, project: dict[str, Any], role_id: str) -> Client:
        fields = {"name": f"user-{uuid.uuid4().hex[:8]}", "password": "a long password", "domain_id": "default"}
        user = self._made(admin, "user", **fields)
        path = f"/identity/v3/projects/{project['id']}/users/{user['id']}/roles/{role_id}"
        assert admin.http.put(path).status_code == 204
        return Client(service, user["name"], "a long password", project["name"])

    def shared_image(self, make: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        owner = self.clients["owner"]
        image = make(owner)
        for actor in ("pending", "accepted", "rejected"):
            member = self.clients[actor]
            added = owner.http.post(f"{image['self']}/members", json={"member": member.project_id})
            assert added.status_code == 200, added.text
            if actor != "pending":
                path = f"{image['self']}/members/{member.project_id}"
                assert member.http.put(path, json={"status": actor}).status_code == 200
        return image

    def call(self, actor: str, method: str, path: str, **given: Any) -> httpx.Response:
        if actor in ("nobody", "unscoped"):
            headers = {**given.pop("headers", {}), **({"X-Auth-Token": self.unscoped} if actor == "unscoped" else {})}
            return httpx.request(method, self.clients["admin"].service.url + path, headers=headers, **given)
        return self.clients[actor].http.request(method, path, **given)
