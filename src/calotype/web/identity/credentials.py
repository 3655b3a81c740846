"""/users/{user_id}/credentials/OS-EC2: access keys, which sign requests. Keystone's form for EC2 credentials."""

from typing import Any, Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from calotype.identity.model import AccessKey, Id
from calotype.settings import Settings
from calotype.web.described import Ec2Credentials, NewEc2Credential, OneEc2Credential
from calotype.web.identity.entry import ANY_TOKEN, route
from calotype.web.identity.forms import all_of, url_of
from calotype.web.request import app_of, body, caller, json


class CredentialCreateBody(Struct, frozen=True, kw_only=True):
    tenant_id: Id


async def create_credential(request: Request) -> Response:
    wanted = await body(request, CredentialCreateBody)
    app, user_id = app_of(request), request.path_params["user_id"]
    made = await app.identity.access_keys.create(caller(request), user_id, wanted.tenant_id)
    return json({"credential": {**_form(app.settings, made.key), "secret": made.secret}}, status=201)


async def list_credentials(request: Request) -> Response:
    app = app_of(request)
    found = await app.identity.access_keys.all(caller(request), request.path_params["user_id"])
    return all_of(request, "credentials", [_form(app.settings, key) for key in found])


async def show_credential(request: Request) -> Response:
    app, path = app_of(request), request.path_params
    key = await app.identity.access_keys.one(caller(request), path["user_id"], path["access"])
    return json({"credential": _form(app.settings, key)})


async def delete_credential(request: Request) -> Response:
    path = request.path_params
    await app_of(request).identity.access_keys.delete(caller(request), path["user_id"], path["access"])
    return Response(status_code=204)


def _form(settings: Settings, key: AccessKey) -> dict[str, Any]:
    """`secret` is there and null: clients that show it ask the service for it when it is missing."""
    return {
        "access": key.access,
        "secret": None,
        "user_id": key.user_id,
        "tenant_id": key.project_id,
        "trust_id": None,
        "links": {"self": url_of(settings, "users", key.user_id, "credentials", "OS-EC2", key.access)},
    }


_ALL: Final = "/identity/v3/users/{user_id}/credentials/OS-EC2"
_ONE: Final = f"{_ALL}/{{access}}"
ROUTES: Final = [
    route(
        method="POST",
        path=_ALL,
        handler=create_credential,
        permission=ANY_TOKEN,
        takes=CredentialCreateBody,
        also=(413,),
        status=201,
        gives=NewEc2Credential,
        summary="Make an access key; the secret is shown only now",
    ),
    route(
        method="GET",
        path=_ALL,
        handler=list_credentials,
        permission=ANY_TOKEN,
        gives=Ec2Credentials,
        summary="Access keys of a user",
    ),
    route(
        method="GET",
        path=_ONE,
        handler=show_credential,
        permission=ANY_TOKEN,
        gives=OneEc2Credential,
        summary="An access key",
    ),
    route(
        method="DELETE",
        path=_ONE,
        handler=delete_credential,
        permission=ANY_TOKEN,
        status=204,
        summary="Delete an access key",
    ),
]
