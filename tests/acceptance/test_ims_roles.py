"""Who may make which call of IMS: what the route table says is what happens, for each role and for nobody."""

import contextlib
import re
import uuid
from collections.abc import Iterator
from typing import Final

import pytest

from calotype.identity.permissions import READ, OneOf
from calotype.web.ims import BY_PROJECT, ROUTES
from calotype.web.route import Route
from tests.acceptance.test_imagev2 import create
from tests.actors import Actors
from tests.description import held_to_its_description
from tests.service import Service

EVERY: Final = [*ROUTES, *BY_PROJECT]


@pytest.fixture(scope="module")
def actors(service: Service) -> Iterator[Actors]:
    with contextlib.ExitStack() as opened:
        made = Actors(service, opened.enter_context(service.admin()))
        for client in made.clients.values():
            opened.enter_context(client)
        yield made


@pytest.fixture(scope="module")
def image_id(actors: Actors) -> str:
    return str(create(actors.clients["owner"])["id"])


def path_of(route: Route, project_id: str, image_id: str) -> str:
    known = {"project_id": project_id, "image_id": image_id, "job_id": uuid.uuid4().hex}
    return re.sub(r"\{(\w+)(?::path)?\}", lambda name: known.get(name[1], "x"), route.path)


@pytest.mark.parametrize("route", EVERY, ids=lambda route: f"{route.method} {route.path}")
def test_a_reader_makes_the_calls_that_read_and_no_others(actors: Actors, image_id: str, route: Route) -> None:
    reader = actors.clients["reader"]
    if isinstance(route.permission, OneOf):
        allowed = not READ.isdisjoint(route.permission.actions)
    else:
        wanted = (route.permission,) if isinstance(route.permission, str) else route.permission or ()
        allowed = READ.issuperset(wanted)

    answer = reader.http.request(route.method, path_of(route, reader.project_id, image_id))

    held_to_its_description(answer)
    assert (answer.status_code == 403) == (not allowed), answer.text


@pytest.mark.parametrize("route", EVERY, ids=lambda route: f"{route.method} {route.path}")
def test_a_token_for_no_project_makes_none(actors: Actors, image_id: str, route: Route) -> None:
    path = path_of(route, actors.clients["owner"].project_id, image_id)

    for actor in ("unscoped", "nobody"):
        assert actors.call(actor, route.method, path).status_code == 401


@pytest.mark.parametrize(
    "route",
    [route for route in EVERY if "{project_id}" in route.path],
    ids=lambda route: f"{route.method} {route.path}",
)
def test_the_project_of_the_path_is_that_of_the_token(actors: Actors, image_id: str, route: Route) -> None:
    foreign = actors.clients["stranger"].project_id

    answer = actors.call("owner", route.method, path_of(route, foreign, image_id))

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0030")
