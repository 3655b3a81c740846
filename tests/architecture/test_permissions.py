"""Which actions each call of IMS and of the Image API wants, and which roles grant them, as IMS documents it."""

import re
from collections.abc import Mapping
from typing import Final

import pytest

from calotype.identity.permissions import ADMINISTER, BESIDE, GRANTS, IMS, OneOf, granted
from calotype.web.app import ROUTES
from calotype.web.openapi import document
from calotype.web.route import Permission, Route

SYSTEM, DATA, WHOLE = "ims:serverImages:create", "ims:dataImages:create", "ims:wholeImages:create"
LIST, GET, CREATE = "ims:images:list", "ims:images:get", "ims:images:create"
UPDATE, DELETE, UPLOAD = "ims:images:update", "ims:images:delete", "ims:images:upload"
EXPORT, COPY, SHARE = "ims:images:export", "ims:images:copy", "ims:images:share"
QUOTA, PERCENTAGE = "ims:quotas:get", "ims:imageJobs:getPercentage"
NONE: Final[frozenset[str]] = frozenset()


def all_of(*actions: str) -> frozenset[str]:
    return frozenset(actions)


# The documented table, with the paths of v2.1 and the older ones that stand beside it.
DOCUMENTED: Final[Mapping[str, frozenset[str] | OneOf]] = {
    "POST /v2/cloudimages/action": all_of(SYSTEM),
    "POST /v2.1/cloudimages/action": all_of(SYSTEM),
    "POST /v1/cloudimages/action": OneOf((SYSTEM, DATA)),
    "POST /v1/cloudimages/dataimages/action": all_of(DATA),
    "POST /v2.1/cloudimages/dataimages/action": all_of(DATA),
    "POST /v1/cloudimages/wholeimages/action": all_of(WHOLE),
    "POST /v1/cloudimages/{image_id}/file": all_of(EXPORT),
    "POST /v2.1/cloudimages/{image_id}/file": all_of(EXPORT),
    "POST /v2/cloudimages/quickimport/action": OneOf((SYSTEM, DATA)),
    "POST /v2.1/cloudimages/quickimport/action": OneOf((SYSTEM, DATA)),
    "GET /v2/cloudimages": all_of(LIST),
    "PUT /v1/cloudimages/{image_id}/upload": all_of(UPLOAD, GET, UPDATE),
    "PATCH /v2/cloudimages/{image_id}": all_of(UPDATE),  # and SYSTEM to move it to another enterprise project
    "GET /v1/{project_id}/jobs/{job_id}": OneOf((PERCENTAGE, LIST, GET)),
    "GET /v1/cloudimages/quota": all_of(QUOTA),
    "POST /v1/cloudimages/{image_id}/copy": all_of(COPY),
    "POST /v2.1/cloudimages/{image_id}/copy": all_of(COPY),
    "POST /v1/cloudimages/members": all_of(SHARE),
    "DELETE /v1/cloudimages/members": all_of(SHARE),
    "PUT /v1/cloudimages/members": all_of(SHARE),
    "POST /v2/{project_id}/images/resource_instances/action": all_of(LIST),
    "POST /v2/{project_id}/images/{image_id}/tags/action": all_of(UPDATE),
    "POST /v2/{project_id}/images/{image_id}/tags": all_of(UPDATE),
    "DELETE /v2/{project_id}/images/{image_id}/tags/{key}": all_of(UPDATE),
    "GET /v2/{project_id}/images/{image_id}/tags": all_of(LIST),
    "GET /v2/{project_id}/images/tags": all_of(LIST),
    "PUT /v1/cloudimages/tags": all_of(GET, UPDATE),
    "GET /v1/cloudimages/tags": all_of(LIST),
    "GET /": NONE,
    "POST /v2/images": all_of(CREATE),
    "PUT /v2/images/{image_id}/file": all_of(GET, UPDATE, UPLOAD),
    "GET /v2/images": all_of(LIST),
    "GET /v2/images/{image_id}": all_of(GET),
    "PATCH /v2/images/{image_id}": all_of(UPDATE),
    "DELETE /v2/images/{image_id}": all_of(DELETE),
    "PUT /v2/images/{image_id}/tags/{tag}": all_of(GET, UPDATE),
    "DELETE /v2/images/{image_id}/tags/{tag}": all_of(GET, UPDATE),
    "GET /v2/schemas/image": NONE,
    "GET /v2/schemas/images": NONE,
    "GET /v2/schemas/member": NONE,
    "GET /v2/schemas/members": NONE,
    "POST /v2/images/{image_id}/members": all_of(GET, SHARE),
    "GET /v2/images/{image_id}/members": all_of(GET, SHARE),
    "GET /v2/images/{image_id}/members/{member_id}": all_of(GET, SHARE),
    "PUT /v2/images/{image_id}/members/{member_id}": all_of(GET, SHARE),
    "DELETE /v2/images/{image_id}/members/{member_id}": all_of(GET, SHARE),
    "GET /v1.1/images/detail": all_of(LIST),
    "HEAD /v1/images/{image_id}": all_of(GET),
    "DELETE /v1.1/images/{image_id}": all_of(DELETE),
    "GET /v1/cloudimages/job/{job_id}": all_of(PERCENTAGE),
    "GET /v1/cloudimages/os_version": all_of(LIST),
    "POST /v1/cloudimages/{image_id}/cross_region_copy": all_of(COPY),
    "GET /v1/{project_id}/cloudimages/{image_id}/members": all_of(GET, SHARE),
    "GET /v1/{project_id}/cloudimages/{image_id}/members/{member_id}": all_of(GET, SHARE),
    "DELETE /v1/{project_id}/cloudimages/{image_id}/tags/delete": all_of(UPDATE),
}
# Upstream lets who may read an image read its members: `reader` is a role of upstream, and its tests ask for that.
OTHERWISE: Final[Mapping[str, frozenset[str]]] = {
    "GET /v2/images/{image_id}/members": all_of(GET),
    "GET /v2/images/{image_id}/members/{member_id}": all_of(GET),
}
# A key that is called like the call beside it.
SAME_AS: Final = {
    "DELETE /v2/{project_id}/images/{image_id}/tags/action": "DELETE /v2/{project_id}/images/{image_id}/tags/{key}"
}


def told(route: Route) -> str:
    return f"{route.method} {route.path.replace(':path', '')}"


def wanted(permission: Permission) -> frozenset[str] | OneOf:
    if isinstance(permission, OneOf):
        return permission
    given = (permission or "",) if isinstance(permission, str | None) else permission
    return frozenset(action for action in given if action)


ROUTE_OF: Final = {told(route): route for route in ROUTES}


@pytest.mark.parametrize("call", DOCUMENTED)
def test_a_call_wants_the_actions_that_are_documented(call: str) -> None:
    assert wanted(ROUTE_OF[call].permission) == OTHERWISE.get(call, DOCUMENTED[call])


def test_every_call_of_ims_is_in_the_documented_table() -> None:
    calls = {SAME_AS.get(told(route), told(route)) for route in ROUTES if route.family == "ims"}

    assert calls - set(DOCUMENTED) == set()


def test_the_published_description_tells_them() -> None:
    told_of = document(ROUTES)["paths"]
    either, all_ = told_of["/v2/cloudimages/quickimport/action"]["post"], told_of["/v1/cloudimages/tags"]["put"]

    assert (either["x-permission"], either["x-permission-one-of"]) == ([], [SYSTEM, DATA])
    assert (set(all_["x-permission"]), "x-permission-one-of" in all_) == ({GET, UPDATE}, False)


def test_every_action_that_is_asked_for_is_granted_to_someone() -> None:
    asked: set[str] = set()
    for route in ROUTES:
        permission = wanted(route.permission)
        asked |= set(permission.actions if isinstance(permission, OneOf) else permission)

    assert asked - set().union(*GRANTS.values()) == set()


def test_the_actions_of_ims_are_the_documented_fourteen() -> None:
    documented: set[str] = set()
    for permission in DOCUMENTED.values():
        documented |= set(permission.actions if isinstance(permission, OneOf) else permission)

    assert documented == IMS
    assert len(IMS) == 14


@pytest.mark.parametrize(
    ("roles", "actions"),
    [
        (("IMS FullAccess",), IMS),
        (("IMS ReadOnlyAccess",), {LIST, GET, QUOTA, PERCENTAGE}),
        (("IMS Administrator",), NONE),
        (
            ("IMS Administrator", "Tenant Administrator"),
            IMS | {"calotype:buckets:get", "calotype:buckets:write"},
        ),
        (("Tenant Administrator",), {"calotype:buckets:get", "calotype:buckets:write"}),
        (("Server Administrator",), NONE),
        (("Server Administrator", "IMS Administrator"), {LIST, GET, CREATE, UPDATE, DELETE, UPLOAD}),
        (("op_gated_lld",), NONE),
        (("ims fullaccess", "anything"), NONE),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_documented_roles_grant_what_is_documented(roles: tuple[str, ...], actions: set[str]) -> None:
    assert granted(frozenset(roles)) == actions


def test_no_documented_role_of_ims_administers_anything() -> None:
    assert granted(frozenset(GRANTS) - {"admin", "service"}).isdisjoint(ADMINISTER)
    assert set(BESIDE) | set(BESIDE.values()) <= set(GRANTS)


def test_names_of_actions_have_one_form() -> None:
    form = re.compile(r"[a-z0-9]+:[a-zA-Z]+(:[a-zA-Z]+)?")

    assert [action for action in set().union(*GRANTS.values()) if not form.fullmatch(action)] == []
