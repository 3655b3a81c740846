"""What Schemathesis makes up from the description, right and wrong, sent to a running service as a member and as an
admin: no 5xx, and each answer has a status, a type of content and a form that the description has for it.

`CALOTYPE_EXAMPLES`: how many of each kind an operation gets. Where it is not set there are few, the same each time.

Excluded is no operation. The check that what breaks a schema is refused is not made: bodies are open on purpose, and
the service takes a number for a text where clients send one. `test_bad_input.py` has what must be refused.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from calotype.images import patch
from calotype.jobs.model import JobId
from calotype.jobs.tasks import task_id
from tests.acceptance.test_imagev2 import active
from tests.contract.catalogue import DATABASES
from tests.description import DOCUMENT
from tests.postgresql import own_database
from tests.service import Client, Service

EXAMPLES: Final = int(os.environ.get("CALOTYPE_EXAMPLES", "2"))
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schemathesis.serializer.alias([patch.V2_1, patch.V2_0], "application/json")
SCHEMA: Final = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMA.config.generation.with_security_parameters = False  # the tokens are ours
OPERATIONS: Final = {
    f"{method.upper()} {path}": SCHEMA[path][method.upper()]
    for path, told in DOCUMENT["paths"].items()
    for method in told
}


class Things:
    """What there is to ask for: made when an operation's path names it, so that one test does not miss what another
    has deleted. By the name of the parameter, as the operations of the API use it."""

    def __init__(self, member: Client, admin: Client) -> None:
        self.member, self.admin = member, admin
        self.bucket = f"things-{uuid.uuid4().hex[:8]}"
        member.put_object(self.bucket, "disk.raw", b"\x00" * 1024)
        self.job = member.import_image(f"{self.bucket}:disk.raw", "things")
        member.ended(self.job)

    def named_in(self, path: str, names: Iterable[str]) -> dict[str, str]:
        """Of the parameters in a path, those that name something that there is."""
        made: Mapping[str, Callable[[], str]] = {
            "image_id": lambda: str(active(self.member, tags=["x"])["id"]),
            "tag": lambda: "x",
            "member_id": lambda: self.admin.project_id,
            "bucket": lambda: self.bucket,
            "key": lambda: "disk.raw",
            "job_id": lambda: self.job,
            "task_id": lambda: task_id(JobId(self.job)),
            "store_id": lambda: "local",
            "region_id": lambda: "RegionOne",
            "namespace": self.namespace,
            **dict.fromkeys(("object_name", "property_name", "tag_name"), lambda: "thing"),
            "resource_type": lambda: "OS::Glance::Image",
            "project_id": lambda: self.identity("project") if path.startswith("/identity") else self.member.project_id,
            **{f"{kind}_id": partial(self.identity, kind) for kind in ("user", "domain", "role")},
        }
        return {name: made[name]() for name in names if name in made}

    def namespace(self) -> str:
        """One of metadata definitions, which is the member's project's and has one of each."""
        name = f"things-{uuid.uuid4().hex[:8]}"
        one = {"type": "string", "title": "thing"}
        for below, body in {
            "": {"namespace": name, "visibility": "private", "owner": self.member.project_id},
            f"/{name}/objects": {"name": "thing", "properties": {"thing": one}},
            f"/{name}/properties": {"name": "thing", **one},
            f"/{name}/tags/thing": {},
            f"/{name}/resource_types": {"name": "OS::Glance::Image"},
        }.items():
            answer = self.admin.http.post(f"/v2/metadefs/namespaces{below}", json=body)
            assert answer.status_code == 201, answer.text
        return name

    def identity(self, kind: str) -> str:
        body = {kind: {"name": f"things-{uuid.uuid4().hex[:8]}"}}
        answer = self.admin.http.post(f"/identity/v3/{kind}s", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()[kind]["id"])


@pytest.fixture(scope="module", params=DATABASES)
def things(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Things]:
    folder = tmp_path_factory.mktemp("schemathesis")
    with ExitStack() as opened:
        database = opened.enter_context(own_database() if request.param == "postgresql" else nullcontext(""))
        environment = {"CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000000", "CALOTYPE_DATABASE": database}
        service = Service(folder, environment=environment)
        opened.callback(lambda: service.process is not None and service.process.poll() is None and service.stop())
        service.start()
        yield Things(opened.enter_context(service.demo()), opened.enter_context(service.admin()))


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_an_operation_keeps_to_its_description_whatever_is_sent(things: Things, label: str) -> None:
    operation = OPERATIONS[label]
    names = [parameter["name"] for parameter in _parameters(operation) if parameter["in"] == "path"]
    kinds = [GenerationMode.POSITIVE]
    if _parameters(operation) or "requestBody" in operation.definition.raw:
        kinds.append(GenerationMode.NEGATIVE)  # there is something to do wrong
    there = things.named_in(operation.path, names)
    cases = [operation.as_strategy(kind) for kind in kinds]
    if there:
        cases += [operation.as_strategy(kind, path_parameters=there) for kind in kinds]
    session = requests.Session()

    @settings(
        max_examples=EXAMPLES * len(cases),
        deadline=None,
        database=None,
        derandomize="CALOTYPE_EXAMPLES" not in os.environ,
        suppress_health_check=[*HealthCheck],
    )
    @given(case=st.one_of(cases))
    def send(case: schemathesis.Case[Any]) -> None:
        for client in (things.member, things.admin):
            case.call_and_validate(
                base_url=client.service.url, session=session, headers={"X-Auth-Token": client.token}, checks=CHECKS
            )

    with session:
        send()


def _parameters(operation: Any) -> list[dict[str, Any]]:
    return list(operation.definition.raw.get("parameters", ()))
