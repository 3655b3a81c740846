"""Which cloud, whose token, and the calls that the commands make with it.

The cloud is found as OpenStack's clients find it: `--os-cloud` or `OS_CLOUD` with a `clouds.yaml`, else `OS_*`.
"""

import logging
import os
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

import msgspec

from calotype.cli.failure import Failure

if TYPE_CHECKING:
    import httpx

CONNECT_S: Final = 10.0
READ_S: Final = 120.0  # between two bytes of an answer; above the longest wait that is asked of the service
WRITE_S: Final = 120.0
TRIES: Final = 5  # of a read that found no service, or one that said "later"
LATER: Final = frozenset({429, 502, 503, 504})
MOST_ERROR_BYTES: Final = 64 * 1024


class Credential(Protocol):
    """A token and where to use it. The real one comes from keystoneauth; a session of its keeps the token."""

    def get_token(self) -> str | None: ...
    def invalidate(self) -> bool: ...


class Api:
    """Calls to one service with one credential; a 401 is answered once with a new token.

    Everything that is refused or cannot be reached is raised as `Failure`. Paths begin with a slash and are encoded
    already (`calotype.cli.session.quoted`).
    """

    def __init__(self, endpoint: str, credential: Credential, verify: ssl.SSLContext | bool = True) -> None:
        import httpx

        self.endpoint = endpoint
        self._credential = credential
        self._http = httpx.Client(
            verify=verify,
            timeout=httpx.Timeout(connect=CONNECT_S, read=READ_S, write=WRITE_S, pool=CONNECT_S),
            headers={"accept-encoding": "identity", "user-agent": "calotype"},
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded JSON answer; None where there is no body. A GET is tried again when the service is away."""
        wanted = {"accept": "application/json", **(headers or {})}
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            wanted.setdefault("content-type", "application/json")
        tries = TRIES if method == "GET" else 1
        for attempt in range(1, tries + 1):
            try:
                with self.answer(method, path, params=params, headers=wanted, content=content) as response:
                    raw = response.read()
                break
            except Failure as failure:
                if attempt == tries or not may_pass(failure):
                    raise
                time.sleep(min(4.0, 0.25 * 2**attempt))
        if not raw:
            return None
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise Failure(
                "not_calotype",
                f"what answers at {self.endpoint} is not this service",
                "check the endpoint of type image in the catalog: openstack catalog show image",
            ) from error

    @contextmanager
    def answer(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        stream: Callable[[], Iterator[bytes]] | None = None,
    ) -> Iterator["httpx.Response"]:
        """The answer with its body unread; statuses from 400 on are raised.

        `stream` makes the request's body, and is called again when the first try met an expired token.
        """
        import httpx

        try:
            for last in (False, True):
                request = self._http.build_request(
                    method,
                    self.endpoint + path,
                    params=dict(params) if params else None,
                    headers={**(headers or {}), "x-auth-token": self._token()},
                    content=stream() if stream is not None else content,
                )
                response = self._http.send(request, stream=True)
                try:
                    if response.status_code == 401 and not last:
                        self._credential.invalidate()
                        continue
                    if response.status_code >= 400:
                        raise refusal(response)
                    yield response
                    return
                finally:
                    response.close()
        except httpx.ConnectError as error:
            raise _unreachable(self.endpoint, error) from error
        except httpx.TimeoutException as error:
            raise Failure("no_answer", f"{self.endpoint} does not answer in time", "try again shortly") from error
        except httpx.TransportError as error:
            raise Failure("connection_cut", f"the connection to {self.endpoint} was cut: {error}") from error

    def token(self) -> Any:
        """What the identity service says of the token in use: `user`, `project`, `roles` and the rest."""
        subject = {"x-subject-token": self._token()}
        return self.call("GET", "/identity/v3/auth/tokens?nocatalog", headers=subject)["token"]

    def _token(self) -> str:
        with _told(self.endpoint):
            token = self._credential.get_token()
        if not token:
            raise Failure("unauthenticated", "the identity service gave no token")
        return token


def refusal(response: "httpx.Response") -> Failure:
    """The service's own words, from whichever form of error the answer has."""
    raw = b""
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > MOST_ERROR_BYTES:
            break
    status = response.status_code
    try:
        document = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict):
        error = document.get("error")
        if isinstance(error, dict):
            code, message = error.get("code"), error.get("message")
            if error.get("detail") and error["detail"] != message:
                message = f"{message} ({error['detail']})"
            name = code if isinstance(code, str) else f"http_{status}"  # the Image API has the status for a code
            return Failure(name, str(message or response.reason_phrase), status=status)
        if "error_code" in document:
            return Failure(str(document["error_code"]), str(document.get("error_msg", "")), status=status)
    return Failure(f"http_{status}", f"HTTP {status} {response.reason_phrase}", status=status)


def quoted(text: str) -> str:
    """Text as a part of a path; slashes stay."""
    return quote(text, safe="/")


def connected(cloud: str | None = None, region: str | None = None, *, config: Path | None = None) -> Api:
    """The service of the named cloud, or of the environment. `config`: only this clouds.yaml, no environment."""
    for noisy in ("keystoneauth", "openstack"):
        logging.getLogger(noisy).addHandler(logging.NullHandler())
        logging.getLogger(noisy).propagate = False
    found = _cloud(cloud, region, config)
    auth = found.config.get("auth") or {}
    with _told(str(auth.get("auth_url", "the identity service"))), _without_warnings():
        session = found.get_session()
        endpoint = found.get_endpoint("image") or session.get_endpoint(
            service_type="image",
            interface=found.get_interface("image") or "public",
            region_name=found.region_name,
        )
    if not endpoint:
        raise Failure(
            "no_endpoint",
            f"the catalog has no image endpoint in region {found.region_name or '(none)'}",
            "check the region: openstack catalog show image",
        )
    return Api(_root(str(endpoint)), session, _verified(found))


def _cloud(cloud: str | None, region: str | None, config: Path | None) -> Any:
    with _without_warnings():
        from openstack.config import OpenStackConfig
    chosen: dict[str, Any] = {"region_name": region} if region else {}
    try:
        with _without_warnings():
            if config is not None:
                return OpenStackConfig(config_files=[str(config)], load_envvars=False).get_one(cloud=cloud, **chosen)
            return OpenStackConfig().get_one(cloud=cloud or os.environ.get("OS_CLOUD"), **chosen)
    except Exception as error:  # the library raises bare Exception too, and AttributeError for a wrong clouds.yaml
        raise _no_cloud(error) from error


def _no_cloud(error: Exception) -> Failure:
    text = str(error).removeprefix("Auth plugin requires parameters which were not given: ")
    if text == "auth_url":
        text = "no cloud is configured"
    here = Path("data/clouds.yaml")
    if here.exists():
        step = f"set OS_CLIENT_CONFIG_FILE={here} OS_CLOUD=calotype-demo"
    else:
        step = "set OS_CLIENT_CONFIG_FILE=DATA_DIR/clouds.yaml OS_CLOUD=calotype-demo, or the OS_* variables"
    return Failure("no_cloud", text, step)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """openstacksdk warns whoever programs with it; that is not for the person at the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn what keystoneauth raises into a `Failure`."""
    from keystoneauth1 import exceptions as keystone
    from openstack.exceptions import SDKException

    try:
        yield
    except (keystone.Unauthorized, keystone.Forbidden) as error:
        raise Failure("unauthenticated", f"{where} refuses the user, the password or the project") from error
    except keystone.SSLError as error:
        raise Failure("bad_certificate", f"the certificate of {where} is not trusted: {_short(error)}") from error
    except keystone.ConnectionError as error:
        raise _unreachable(where, error) from error
    except (keystone.MissingRequiredOptions, keystone.NoMatchingPlugin, keystone.OptionError, SDKException) as error:
        raise _no_cloud(error) from error
    except keystone.ClientException as error:
        if "Unable to establish connection" in str(error):  # within the words of a DiscoveryFailure
            raise _unreachable(where, error) from error
        raise Failure("identity_failed", f"{where}: {_short(error)}") from error


def _unreachable(where: str, error: Exception) -> Failure:
    if "CERTIFICATE" in str(error).upper():
        return Failure("bad_certificate", f"the certificate of {where} is not trusted: {_short(error)}")
    return Failure("no_connection", f"nothing answers at {where}", "start the service: calotype serve --data-dir DIR")


def may_pass(failure: Failure) -> bool:
    """Whether the same read may succeed in a moment."""
    return failure.status in LATER or failure.code in ("no_connection", "connection_cut", "no_answer")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _root(endpoint: str) -> str:
    """The unversioned root URL, without a slash at the end."""
    root = endpoint.rstrip("/")
    for version in ("/v1", "/v2"):
        root = root.removesuffix(version)
    return root


def _verified(found: Any) -> ssl.SSLContext | bool:
    """What httpx checks certificates with, from the cloud's `verify`, `cacert`, `cert` and `key`."""
    verify, certificate = found.get_requests_verify_args()
    if verify is True and certificate is None:
        return True
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if isinstance(certificate, tuple):
        context.load_cert_chain(*certificate)
    elif certificate:
        context.load_cert_chain(certificate)
    return context
