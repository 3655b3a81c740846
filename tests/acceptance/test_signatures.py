"""Requests signed with access keys: the vendor's SDK as it comes from PyPI, the form of the Go clients, uploads of any
size, and what is refused."""

import contextlib
import hashlib
import hmac
import json
import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkims import v2 as ims

from tests.service import Client, Service, until

# The SDK warns of its own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")
DISK: Final = b"\0" * 510 + b"\x55\xaa" + b"a disk" + b"\0" * 506
MiB: Final = 1024 * 1024
OCTETS: Final = {"Content-Type": "application/octet-stream"}


class Key:
    """An access key, and requests that it signs in the form of the Go clients."""

    def __init__(self, service: Service, credential: dict[str, Any]) -> None:
        self.service = service
        self.access: str = credential["access"]
        self.secret: str = credential["secret"]
        self.project_id: str = credential["tenant_id"]

    def headers(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        at: datetime | None = None,
        hashed: str | None = None,
        secret: str | None = None,
    ) -> dict[str, str]:
        """`path` without a query; `hashed` stands for the body instead of its hash."""
        date = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        signed = {
            **{name.lower(): value for name, value in (headers or {}).items()},
            "host": urlsplit(self.service.url).netloc,
            "x-sdk-date": date,
        }
        names = sorted(signed)
        text = "".join(f"{name}:{signed[name]}\n" for name in names)
        told = hashed or hashlib.sha256(body).hexdigest()
        canonical = f"{method}\n{path.rstrip('/')}/\n\n{text}\n{';'.join(names)}\n{told}"
        scope = f"{date[:8]}///sdk_request"
        key = f"SDK{secret or self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        to_sign = f"SDK-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        told = f"SDK-HMAC-SHA256 Credential={self.access}/{scope}, SignedHeaders={';'.join(names)}"
        return {**signed, "Authorization": f"{told}, Signature={signature}"}

    def call(self, method: str, path: str, body: bytes = b"", **more: Any) -> httpx.Response:
        sent = more.pop("sent", body)
        added = more.pop("added", {})
        signed = self.headers(method, path, body, **more)
        return httpx.request(method, self.service.url + path, headers={**signed, **added}, content=sent, timeout=60)

    def sdk(self, project_id: str | None = None) -> Any:
        credentials = BasicCredentials(self.access, self.secret, project_id or self.project_id)
        return ims.ImsClient.new_builder().with_credentials(credentials).with_endpoint(self.service.url).build()


def made(client: Client, user_id: str | None = None, project_id: str | None = None) -> Key:
    answer = client.http.post(f"{credentials_of(client, user_id)}", json={"tenant_id": project_id or client.project_id})
    assert answer.status_code == 201, answer.text
    return Key(client.service, answer.json()["credential"])


def user_of(client: Client) -> str:
    answer = client.http.get("/identity/v3/auth/tokens", headers={"X-Subject-Token": client.token})
    found: str = answer.json()["token"]["user"]["id"]
    return found


def credentials_of(client: Client, user_id: str | None = None) -> str:
    return f"/identity/v3/users/{user_id or user_of(client)}/credentials/OS-EC2"


@pytest.fixture
def key(demo: Client) -> Iterator[Key]:
    one = made(demo)
    yield one
    demo.http.delete(f"{credentials_of(demo)}/{one.access}")


@pytest.fixture
def ada(admin: Client) -> Iterator[dict[str, str]]:
    """A user with a project, both new; their ids, and that of the role `member`."""
    name = f"ada-{uuid.uuid4().hex[:12]}"
    post, v3 = admin.http.post, "/identity/v3"
    project = post(f"{v3}/projects", json={"project": {"name": name}}).json()["project"]["id"]
    user = post(f"{v3}/users", json={"user": {"name": name}}).json()["user"]["id"]
    role = admin.http.get(f"{v3}/roles?name=member").json()["roles"][0]["id"]
    assert admin.http.put(f"{v3}/projects/{project}/users/{user}/roles/{role}").status_code == 204
    yield {"user": user, "project": project, "role": role}
    admin.http.delete(f"{v3}/users/{user}")
    admin.http.delete(f"{v3}/projects/{project}")


def new_image(key: Key, **fields: Any) -> str:
    body = {"name": "signed", "disk_format": "raw", "container_format": "bare", **fields}
    answer = key.call("POST", "/v2/images", json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def refused(answer: httpx.Response, tail: str) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.json() == {
        "error_msg": f"Incorrect IAM authentication information: {tail}",
        "error_code": "APIGW.0301",
        "request_id": answer.headers["X-Request-Id"],
    }


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_openstack_command_makes_lists_shows_and_deletes_keys(service: Service, demo: Client) -> None:
    made_ = service.run_json("openstack", "ec2", "credentials", "create", "-f", "json")
    listed = service.run_json("openstack", "ec2", "credentials", "list", "-f", "json")
    shown = service.run_json("openstack", "ec2", "credentials", "show", made_["access"], "-f", "json")
    service.run("openstack", "ec2", "credentials", "delete", made_["access"])

    assert (made_["project_id"], made_["user_id"]) == (demo.project_id, user_of(demo))
    assert len(made_["secret"]) == 40
    row = {"Access": made_["access"], "Secret": None, "Project ID": demo.project_id, "User ID": user_of(demo)}
    assert row in listed
    assert shown == {**made_, "secret": None}
    assert demo.http.get(f"{credentials_of(demo)}/{made_['access']}").status_code == 404


def test_the_calotype_command_makes_lists_and_deletes_keys(service: Service) -> None:
    made_ = service.run_json("calotype", "key", "create", "--json")
    listed = service.run_json("calotype", "key", "list", "--json")
    service.run("calotype", "key", "delete", made_["access"])
    again = service.run("calotype", "key", "delete", made_["access"], ok=False)

    assert {*made_} == {"access", "user_id", "project_id", "secret"}
    assert {name: made_[name] for name in ("access", "user_id", "project_id")} in listed
    assert made_["secret"] not in json.dumps(listed)
    assert (again.returncode, again.stdout) == (1, "")


def test_a_user_keeps_own_keys_only_and_an_admin_those_of_all(demo: Client, admin: Client, ada: dict[str, str]) -> None:
    path = credentials_of(demo, ada["user"])

    key = made(admin, ada["user"], ada["project"])

    assert key.call("GET", "/v2/images").status_code == 200
    for answer in (
        demo.http.post(path, json={"tenant_id": demo.project_id}),
        demo.http.get(path),
        demo.http.get(f"{path}/{key.access}"),
        demo.http.delete(f"{path}/{key.access}"),
    ):
        assert answer.status_code == 403
    assert demo.http.get(f"{credentials_of(demo)}/{key.access}").status_code == 404
    assert [one["access"] for one in admin.http.get(path).json()["credentials"]] == [key.access]
    assert admin.http.delete(f"{path}/{key.access}").status_code == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"tenant_id": 7}, 400), ({"tenant_id": "0" * 32}, 404), ({"tenant_id": "theirs"}, 403)],
)
def test_a_key_is_of_a_project_where_its_owner_has_a_role(
    demo: Client, admin: Client, body: dict[str, Any], status: int
) -> None:
    if body.get("tenant_id") == "theirs":
        body = {"tenant_id": admin.project_id}

    assert demo.http.post(credentials_of(demo), json=body).status_code == status


def test_a_user_has_a_bounded_number_of_keys(admin: Client, ada: dict[str, str]) -> None:
    for _ in range(20):
        made(admin, ada["user"], ada["project"])

    answer = admin.http.post(credentials_of(admin, ada["user"]), json={"tenant_id": ada["project"]})

    assert answer.status_code == 413
    assert len(admin.http.get(credentials_of(admin, ada["user"])).json()["credentials"]) == 20


# --- the vendor's SDK -------------------------------------------------------------------------------------------------


def test_the_sdk_lists_patches_exports_and_asks_how_the_job_stands(key: Key, demo: Client) -> None:
    client, bucket = key.sdk(), f"signed-{uuid.uuid4().hex[:12]}"
    demo.http.put(f"/calotype/v1/buckets/{bucket}")
    image_id = new_image(key)
    uploaded = key.call("PUT", f"/v2/images/{image_id}/file", DISK, headers=OCTETS)

    patch = ims.UpdateImageRequestBody(op="replace", path="/name", value="blå & grön")
    patched = client.glance_update_image(ims.GlanceUpdateImageRequest(image_id=image_id, body=[patch]))
    listed = client.glance_list_images(ims.GlanceListImagesRequest(name="blå & grön", limit=5))
    export = ims.ExportImageRequestBody(bucket_url=f"{bucket}:out.qcow2", file_format="qcow2")
    job = client.export_image(ims.ExportImageRequest(image_id=image_id, body=export))
    asked = ims.ShowJobRequest(job_id=job.job_id)
    ended = until(lambda: (told := client.show_job(asked)).status in ("SUCCESS", "FAIL") and told, "the export")

    assert uploaded.status_code == 204
    assert patched.name == "blå & grön"
    assert [image.id for image in listed.images] == [image_id]
    assert (ended.status, ended.entities.image_id) == ("SUCCESS", image_id)
    assert demo.get_object(bucket, "out.qcow2")[:4] == b"QFI\xfb"


def test_the_sdk_finds_the_project_of_the_region_with_the_key(key: Key, service: Service) -> None:
    credentials = BasicCredentials(key.access, key.secret).with_iam_endpoint(service.url)

    ims.ImsClient.new_builder().with_credentials(credentials).with_region(Region("RegionOne", service.url)).build()

    assert credentials.project_id == key.project_id


def test_the_sdk_is_told_why_a_signature_is_refused(key: Key) -> None:
    wrong = Key(key.service, {"access": key.access, "secret": "x" * 40, "tenant_id": key.project_id})

    with pytest.raises(ClientRequestException) as told:
        wrong.sdk().glance_list_images(ims.GlanceListImagesRequest())

    assert (told.value.status_code, told.value.error_code) == (401, "APIGW.0301")
    assert told.value.error_msg.endswith("verify aksk signature fail")
    assert told.value.request_id


# --- whose request it is ----------------------------------------------------------------------------------------------


def test_a_request_is_about_the_project_that_it_names_or_that_of_the_key(key: Key, admin: Client) -> None:
    job = f"/v1/{key.project_id}/jobs/{'0' * 32}"

    assert key.call("GET", "/v2/images", added={"X-Project-Id": key.project_id}).status_code == 200
    for added in ({}, {"X-Project-Id": key.project_id}):
        assert key.call("GET", job, added=added).json()["error"]["code"] == "IMG.0023"
    tail = "X-Project-Id is none where the owner of the key has a role now"
    refused(key.call("GET", "/v2/images", added={"X-Project-Id": admin.project_id}), tail)
    refused(key.call("GET", job, added={"X-Project-Id": "x"}), tail)
    in_path = key.call("GET", f"/v1/{admin.project_id}/jobs/{'0' * 32}")
    assert (in_path.status_code, in_path.json()["error"]["code"]) == (400, "IMG.0030")


def test_a_key_is_good_for_every_project_of_its_owner(admin: Client, ada: dict[str, str]) -> None:
    other = admin.http.post("/identity/v3/projects", json={"project": {"name": uuid.uuid4().hex}}).json()["project"]
    admin.http.put(f"/identity/v3/projects/{other['id']}/users/{ada['user']}/roles/{ada['role']}")
    key = made(admin, ada["user"], ada["project"])

    there = json.dumps({"name": "there"}).encode()
    answers = [
        key.call("POST", "/v2/images", there, added={"X-Project-Id": project})
        for project in (ada["project"], other["id"])
    ]
    in_path = key.call("GET", f"/v1/{other['id']}/jobs/{'0' * 32}")

    assert [answer.json()["owner"] for answer in answers] == [ada["project"], other["id"]]
    assert in_path.json()["error"]["code"] == "IMG.0023"


def test_a_domain_may_be_named_and_gives_the_roles_there(key: Key, admin: Client) -> None:
    default, members = {"X-Domain-Id": "default"}, "/identity/v3/domains"
    of_admin = made(admin)

    assert of_admin.call("GET", members, added=default).status_code == 200
    assert key.call("GET", members, added=default).status_code == 403
    assert key.call("GET", "/identity/v3/auth/projects", added=default).status_code == 200
    wants_project = key.call("GET", "/v2/images", added=default)
    assert wants_project.status_code == 401
    refused(
        key.call("GET", "/identity/v3/auth/projects", added={"X-Domain-Id": "other"}),
        "X-Domain-Id is none where the owner of the key has a role now",
    )


def test_a_role_and_no_more_is_what_a_key_gives(admin: Client, ada: dict[str, str]) -> None:
    reader = admin.http.get("/identity/v3/roles?name=reader").json()["roles"][0]["id"]
    roles = f"/identity/v3/projects/{ada['project']}/users/{ada['user']}/roles"
    admin.http.put(f"{roles}/{reader}")
    admin.http.delete(f"{roles}/{ada['role']}")
    key = made(admin, ada["user"], ada["project"])

    assert key.call("GET", "/v2/images").status_code == 200
    assert key.call("POST", "/v2/images", b"{}").status_code == 403
    assert key.call("GET", "/identity/v3/users").status_code == 403


@pytest.mark.parametrize("what", ["the key", "the role", "the user", "the project", "the user's name"])
def test_what_an_admin_takes_away_counts_at_once_in_the_same_process(
    admin: Client, ada: dict[str, str], what: str
) -> None:
    key = made(admin, ada["user"], ada["project"])
    before = key.call("GET", "/v2/images")
    v3, user, project = "/identity/v3", ada["user"], ada["project"]
    {
        "the key": lambda: admin.http.delete(f"{credentials_of(admin, user)}/{key.access}"),
        "the role": lambda: admin.http.delete(f"{v3}/projects/{project}/users/{user}/roles/{ada['role']}"),
        "the user": lambda: admin.http.patch(f"{v3}/users/{user}", json={"user": {"enabled": False}}),
        "the project": lambda: admin.http.patch(f"{v3}/projects/{project}", json={"project": {"enabled": False}}),
        "the user's name": lambda: admin.http.delete(f"{v3}/users/{user}"),
    }[what]()

    after = key.call("GET", "/v2/images")

    assert before.status_code == 200
    gone = what in ("the key", "the user's name")
    ak, role = f"Get secretKey failed,ak:{key.access},err:ak not exist", "the project of the key is none where "
    refused(after, ak if gone else f"{role}the owner of the key has a role now")


def test_what_an_admin_takes_away_counts_in_every_process_within_seconds(make_service: Callable[..., Service]) -> None:
    service = make_service(
        environment={"CALOTYPE_HTTP_PROCESSES": "3", "CALOTYPE_IDENTITY_REVOCATION_REFRESH_S": "0.2"}
    ).start()
    with service.demo() as demo:
        key = made(demo)
        before = [key.call("GET", "/v2/images").status_code for _ in range(12)]  # each process has seen the key
        demo.http.delete(f"{credentials_of(demo)}/{key.access}")

        def refused_everywhere() -> bool:
            return {key.call("GET", "/v2/images").status_code for _ in range(12)} == {401}

        assert set(before) == {200}
        assert until(refused_everywhere, "the key to be refused by all processes", 20)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_signature_is_good_for_its_request_only(key: Key) -> None:
    image_id = new_image(key)
    signed = key.headers("GET", f"/v2/images/{image_id}")
    url = f"{key.service.url}/v2/images/{image_id}"

    assert httpx.get(url, headers=signed).status_code == 200
    refused(httpx.delete(url, headers=signed), "verify aksk signature fail")
    refused(httpx.get(f"{url}?x=1", headers=signed), "verify aksk signature fail")
    refused(httpx.get(f"{url}/file", headers=signed), "verify aksk signature fail")
    refused(httpx.get(url, headers={**signed, "host": "other.test"}), "verify aksk signature fail")
    assert key.call("DELETE", f"/v2/images/{image_id}").status_code == 204


def test_a_json_body_that_is_not_the_signed_one_does_nothing(key: Key) -> None:
    name = uuid.uuid4().hex

    answer = key.call("POST", "/v2/images", b'{"name": "x"}', sent=json.dumps({"name": name}).encode())

    refused(answer, "verify aksk signature fail")
    assert key.sdk().glance_list_images(ims.GlanceListImagesRequest(name=name)).images == []


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_date_that_is_off_is_refused_and_does_not_lock_the_key(key: Key, minutes: int) -> None:
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    answers = [key.call("GET", "/v2/images", at=at) for _ in range(6)]

    for answer in answers:
        refused(answer, "X-Sdk-Date is more than 15 minutes away from the time of the service")
    assert key.call("GET", "/v2/images").status_code == 200


def test_what_is_no_key_here_is_refused_with_the_reason(key: Key, service: Service) -> None:
    unknown = Key(service, {"access": "AKUNKNOWN", "secret": "x", "tenant_id": "x"})

    refused(unknown.call("GET", "/v2/images"), "Get secretKey failed,ak:AKUNKNOWN,err:ak not exist")
    temporary = key.call("GET", "/v2/images", headers={"X-Security-Token": "t"})
    refused(temporary, "temporary access keys (X-Security-Token) are not offered; sign with a lasting one")
    other = {"Authorization": "V11-HMAC-SHA256 Credential=AK/20260102/eu/ims, SignedHeaders=host, Signature=00"}
    unknown_algorithm = httpx.get(f"{service.url}/v2/images", headers=other)
    refused(unknown_algorithm, "the algorithm of the signature is not SDK-HMAC-SHA256")
    bearer = httpx.get(f"{service.url}/v2/images", headers={"Authorization": "Bearer x"})
    assert (bearer.status_code, "X-Auth-Token" in bearer.text) == (401, True)


def test_a_token_counts_before_a_signature(key: Key, demo: Client) -> None:
    assert key.call("GET", "/v2/images", added={"X-Auth-Token": demo.token}, secret="x").status_code == 200
    assert key.call("GET", "/v2/images", added={"X-Auth-Token": "x"}).status_code == 401


def test_five_wrong_signatures_lock_the_key_in_every_process(make_service: Callable[..., Service]) -> None:
    service = make_service(environment={"CALOTYPE_HTTP_PROCESSES": "2"}).start()
    with service.demo() as demo:
        key, other = made(demo), made(demo)
        tails = [key.call("GET", "/v2/images", secret="x").json()["error_msg"] for _ in range(6)]

        wrong = "Incorrect IAM authentication information: verify aksk signature fail"
        locked = "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden"
        assert tails.count(wrong) >= 5
        # So many that each process has answered some of them.
        until(lambda: {key.call("GET", "/v2/images").status_code for _ in range(40)} == {401}, "the lock", 20)
        assert key.call("GET", "/v2/images").json()["error_msg"] == locked
        assert other.call("GET", "/v2/images").status_code == 200


# --- bodies of any size -----------------------------------------------------------------------------------------------


def large(n: int) -> bytes:
    """So many MiB that no disk format claims, other ones at each call."""
    return (b"\0" * 510 + b"\x55\xaa" + uuid.uuid4().bytes).ljust(n * MiB, b"x")


def test_an_upload_above_the_vendors_limit_is_hashed_while_it_comes(key: Key, demo: Client) -> None:
    image_id, data = new_image(key), large(20)

    answer = key.call("PUT", f"/v2/images/{image_id}/file", data, headers=OCTETS)

    assert answer.status_code == 204, answer.text
    image = demo.image(image_id)
    assert (image["status"], image["os_hash_value"]) == ("active", hashlib.sha512(data).hexdigest())


def test_an_upload_in_chunks_is_hashed_while_it_comes(key: Key, demo: Client) -> None:
    image_id, data = new_image(key), large(3)
    path = f"/v2/images/{image_id}/file"
    signed = key.headers("PUT", path, data, headers=OCTETS)

    pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
    answer = httpx.put(key.service.url + path, headers=signed, content=pieces)

    assert answer.status_code == 204, answer.text
    assert demo.image(image_id)["size"] == len(data)


@pytest.mark.parametrize("how", ["by its hash", "by a told hash"])
@pytest.mark.parametrize("where", ["file", "stage"])
def test_nothing_is_kept_of_an_upload_that_is_not_the_signed_one(key: Key, demo: Client, how: str, where: str) -> None:
    image_id, data = new_image(key), large(20)
    changed = data[:-1] + b"y"
    headers = dict(OCTETS)
    if how == "by a told hash":
        headers["X-Sdk-Content-Sha256"] = hashlib.sha256(data).hexdigest()

    before = demo.service.files()

    answer = key.call("PUT", f"/v2/images/{image_id}/{where}", data, headers=headers, sent=changed)

    told = {"by its hash": "verify aksk signature fail", "by a told hash": "the body is not the one that was signed"}
    refused(answer, told[how])
    assert (demo.image(image_id)["status"], demo.image(image_id)["size"]) == ("queued", None)
    assert demo.service.files() == before
    assert key.call("PUT", f"/v2/images/{image_id}/file", data, headers=OCTETS).status_code == 204


def test_an_upload_may_go_unsigned_and_its_headers_not(key: Key, demo: Client) -> None:
    image_id, headers = new_image(key), {**OCTETS, "X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"}
    path = f"/v2/images/{image_id}/file"

    wrong = key.call("PUT", path, DISK, headers=headers, hashed="UNSIGNED-PAYLOAD", secret="x")
    right = key.call("PUT", path, DISK, headers=headers, hashed="UNSIGNED-PAYLOAD")

    refused(wrong, "verify aksk signature fail")
    assert right.status_code == 204
    assert demo.image(image_id)["status"] == "active"


def test_a_told_hash_is_compared_with_a_json_body(key: Key) -> None:
    body, name = b'{"name": "x"}', uuid.uuid4().hex
    told = {"X-Sdk-Content-Sha256": hashlib.sha256(body).hexdigest()}
    other = json.dumps({"name": name}).encode()

    assert key.call("POST", "/v2/images", body, headers=told).status_code == 201
    refused(key.call("POST", "/v2/images", body, headers=told, sent=other), "the body is not the one that was signed")


def test_who_has_not_proved_to_hold_the_key_is_told_nothing_of_an_image(key: Key) -> None:
    """An upload is worked on before its signature can be checked. What there is to say waits for it."""
    active = new_image(key)
    assert key.call("PUT", f"/v2/images/{active}/file", DISK, headers=OCTETS).status_code == 204
    paths = [f"/v2/images/{image_id}/file" for image_id in (active, str(uuid.uuid4()))]

    right = [key.call("PUT", path, DISK, headers=OCTETS).status_code for path in paths]
    wrong = [key.call("PUT", path, DISK, headers=OCTETS, secret="x") for path in paths]

    assert right == [409, 404]
    for answer in wrong:
        refused(answer, "verify aksk signature fail")


def test_of_a_large_upload_that_is_refused_the_reason_is_told_only_to_who_signed_without_it(key: Key) -> None:
    path, data = f"/v2/images/{uuid.uuid4()}/file", large(20)
    told = {**OCTETS, "X-Sdk-Content-Sha256": hashlib.sha256(data).hexdigest()}

    unproved = answer_before_the_end(key, path, key.headers("PUT", path, data, headers=OCTETS), data)
    proved = answer_before_the_end(key, path, key.headers("PUT", path, data, headers=told), data)

    assert unproved.startswith(b"HTTP/1.1 401 ")
    assert b"sign it with X-Sdk-Content-Sha256 to be told why" in unproved
    assert proved.startswith(b"HTTP/1.1 404 ")


def answer_before_the_end(key: Key, path: str, headers: dict[str, str], data: bytes) -> bytes:
    """What the service answers when 13 MiB of a body have come, of 20 that are announced."""
    head = f"PUT {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", key.service.port), timeout=30) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered already
            sock.sendall(head.encode() + b"\r\n" + data[: 13 * MiB])
        return sock.recv(65536)


def test_an_object_of_a_bucket_is_put_with_a_key_too(key: Key, demo: Client) -> None:
    bucket = f"signed-{uuid.uuid4().hex[:12]}"
    assert key.call("PUT", f"/calotype/v1/buckets/{bucket}").status_code == 201
    path = f"/calotype/v1/buckets/{bucket}/objects/a/b"

    right = key.call("PUT", path, DISK)
    wrong = key.call("PUT", f"{path}2", DISK, sent=DISK[::-1])

    assert right.status_code == 201
    refused(wrong, "verify aksk signature fail")
    assert demo.get_object(bucket, "a/b") == DISK
    assert demo.http.get(f"{path}2").status_code == 404


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_the_database_in_the_log_or_in_an_answer(make_service: Callable[..., Service]) -> None:
    service = make_service().start()
    with service.demo() as demo:
        key = made(demo)
        answers = [key.call("GET", "/v2/images"), key.call("GET", "/v2/images", secret="y")]
        listed = demo.http.get(credentials_of(demo)).text
        service.stop()

        kept = b"".join(path.read_bytes() for path in service.data_dir.glob("calotype.db*"))
        told = service.log.read_text() + listed + "".join(answer.text for answer in answers)
        assert [answer.status_code for answer in answers] == [200, 401]
        assert key.access.encode() in kept
        assert key.secret.encode() not in kept
        assert key.secret not in told
