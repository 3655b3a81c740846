"""One frozen `Settings`: defaults, then `calotype.toml`, then `CALOTYPE_*` of the environment. Checked at start.

A setting `port` of the section `http` is `[http] port = …` in the file and `CALOTYPE_HTTP_PORT` in the environment;
those of no section are top-level keys (`data_dir`, `CALOTYPE_DATA_DIR`). An unknown or wrong one raises `WrongSetting`
with its name and what is allowed. Sizes and durations carry their unit in the name.
"""

import os
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

PREFIX: Final = "CALOTYPE_"
STORE_NAME: Final = r"[a-z0-9][a-z0-9_-]{0,62}"
LOCAL: Final = "local"  # the store that is always there
REGION_NAME: Final = r"[A-Za-z0-9._-]{1,64}"
ENDPOINT_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
INTERFACES: Final = ("public", "internal", "admin")  # of endpoints in the catalog
OWN_SERVICES: Final = ("identity", "image", "ims")  # what is offered at `url`
BUCKET_NAME: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
ONLY_S3: Final = ("access_key", "secret_key", "credentials_file", "virtual_host", "ca_file")  # of a bucket's settings
# Read by other parts than Settings: which file to read, and secrets that only the first start needs.
OTHER_VARIABLES: Final = frozenset({"CALOTYPE_CONFIG", "CALOTYPE_ADMIN_PASSWORD", "CALOTYPE_DEMO_PASSWORD"})

Count = Annotated[int, Meta(ge=1)]
CountOrNone = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=1)]
BytesOrNone = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=1, le=65535)]
S3Url = Annotated[str, Meta(pattern=r"^(https?://[^\s/?#@]+/[^\s/?#]+(/[^\s?#]*)?)?$")]


class WrongSetting(Exception):
    """A setting is unknown or its value is not allowed. The text names it and what is allowed."""


class Http(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"  # address to listen on
    port: Port = 9292  # port to listen on
    processes: CountOrNone = 0  # API processes; 0: one a core, at most 4
    url: str = ""  # how clients reach the service, e.g. https://images.example.test; empty: http://host:port
    buffer_budget_bytes: Bytes = 256 * 1024 * 1024  # memory that all uploads of one API process share


class IdentitySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token_lifetime_s: Annotated[int, Meta(ge=60, le=30 * 86400)] = 86400  # how long a token is valid
    revocation_refresh_s: Annotated[float, Meta(gt=0, le=60)] = 5.0  # how old the known revocations may be


class JobSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    creations_per_project: Count = 40  # open jobs that create images, and as many that share, at once (IMG.0060)
    copies_per_project: Count = 5  # open copy jobs, at once (IMG.0060)
    slots: CountOrNone = 0  # jobs that a worker converts at once; 0: one a core
    attempts: Count = 20  # how often a job is begun anew after its worker died
    heartbeat_s: Seconds = 5.0  # how often a worker says that it lives
    dead_after_s: Seconds = 30.0  # a worker that is silent for so long is dead
    poll_s: Seconds = 0.2  # how often a worker looks for new jobs
    retention_days: Count = 30  # how long a finished job can be read
    drain_s: Seconds = 30.0  # how long a stopping worker waits for the steps under way
    scratch_bytes: BytesOrNone = 0  # that all jobs of a disk may write before they publish; 0: as many as there are
    scratch_keep_free_bytes: BytesOrNone = 256 * 1024**2  # of the disk, that no job may plan with
    scratch_wait_s: Annotated[float, Meta(ge=0)] = 600.0  # how long a job waits for room on the disk before it fails


class ImageSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    count_per_project: Count = 50  # images of one project (IMG.0015)
    stored_bytes_per_project: Bytes = 10 * 1024**4  # bytes that the images of one project hold
    virtual_bytes_per_image: Bytes = 2 * 1024**4  # the largest virtual disk
    file_bytes: Bytes = 128 * 1024**3  # the largest file, uploaded or imported
    quick_bytes: Bytes = 1024**4  # the largest file of a quick import, and image of a quick export
    export_bytes: Bytes = 128 * 1024**3  # the largest image that is exported or copied
    data_disks: Count = 3  # that one import brings beside a system disk (IMG.0194)
    buckets_per_project: Count = 100  # that it makes itself
    tags: Count = 10  # of one image, on IMS (IMG.0116); the Image API allows 128
    properties: Count = 128  # that an owner sets on one image
    hash_algorithm: Literal["sha512", "sha256"] = "sha512"  # of os_hash_value, for images that come from now on
    upload_idle_s: Seconds = 60.0  # an upload that brings no byte for so long is ended
    recheck_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0  # how soon a download is cut whose image was withdrawn
    format_enforcement: bool = True  # disk_format must be what the bytes are; false: a difference is only logged
    staged_bytes_per_project: Bytes = 1024**4  # bytes that wait for their import, of one project
    staged_hours: Count = 24  # how long staged bytes wait for their import before they are removed
    unique_names: bool = False  # no two images of a project have the same name (IMG.0009)
    members: Count = 256  # projects that one image is shared with
    whole_image_members: Count = 10  # projects that one full-server image is shared with


class ImportSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["qcow2", "raw", "keep"] = "qcow2"  # what an import stores; a self-contained qcow2 is kept as it is
    decompress: bool = True  # an import unpacks gz, xz, zst and bz2 around the image, whatever way it comes
    decompress_ratio: Count = 200  # the most that an import unpacks to, as a multiple of what came
    detect_os: bool = True  # look on a system disk for its operating system, which wins over the one that was given


class ImageV2Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dialect: Literal["upstream", "ims"] = "upstream"  # whose rules hold where the two differ on /v2/images
    import_methods: tuple[Literal["glance-direct", "web-download", "copy-image", "glance-download"], ...] = (
        "glance-direct",
        "web-download",
        "copy-image",
        "glance-download",
    )  # what POST /v2/images/{id}/import offers
    convert_to: Literal["keep", "raw", "qcow2"] = "keep"  # the format that an import stores
    inject: dict[str, str] = {}  # properties that every import sets; in the file only
    inject_ignored_roles: tuple[str, ...] = ("admin",)  # whose imports are left as they are
    downloaded_properties: tuple[str, ...] = (
        "hw_",
        "trait:",
        "os_distro",
        "os_secure_boot",
        "os_type",
    )  # beginnings of the names of properties that glance-download brings along
    locations: Literal["hidden", "shown", "set"] = "hidden"  # set: owners see them and may point at an http store
    cache_bytes: Bytes = 10 * 1024**3  # of a node's copies of images that lie in remote stores


class Store(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place that holds the bytes of images. `local` in `data_dir` is always there and the default."""

    type: Literal["folder", "http"] = "folder"  # http: read only, images point at URLs
    folder: str = ""  # absolute path; of `local` empty: blobs in data_dir
    weight: int = 0  # of several stores that hold an image, the heaviest is read
    description: str = ""  # what /v2/info/stores says of it


class EndpointSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another service, or another way to this one, that the catalog of every token names."""

    type: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]  # of the service, as clients ask: image_remote
    url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=255)]  # without a version
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""  # where it is; empty: this region
    interface: Literal["all", "public", "internal", "admin"] = "all"  # for whom it is


class FetchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where the service fetches for its users. An entry of `allow` and `deny` is a host, `host:port`, `*.host`,
    an address or a network."""

    allow: tuple[str, ...] = ()  # what may be fetched from though it is not public; without a port, on `ports`
    deny: tuple[str, ...] = ()  # what may not be fetched from, also where `allow` has it
    public: bool = True  # public addresses may be fetched from; false: only what `allow` names
    ports: tuple[Port, ...] = (80, 443)  # that may be fetched from where `allow` names none
    most_redirects: Annotated[int, Meta(ge=0, le=20)] = 5  # one after the other
    connect_timeout_s: Seconds = 10.0  # of a look-up, and of a connection to one address
    read_timeout_s: Seconds = 30.0  # how long a source may be silent, and take for the head of its answer
    total_timeout_s: Seconds = 86400.0  # how long one fetch may take
    slowest_bytes_per_s: CountOrNone = 16 * 1024  # below it, over read_timeout_s, a source is given up; 0: no limit
    ca_file: str = ""  # certificates of your own authorities in PEM, besides those of the system


class SecuritySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sandbox: Literal["auto", "required"] = "auto"  # required: refuse to start where bubblewrap cannot work


class ImsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    revision: Literal["current", "2022-10"] = "current"  # the form of the job query
    open_zvhd: bool = False  # export ZVHD and ZVHD2 in an open layout, which the vendor's tools cannot read


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: Literal["inventory", "libvirt", "none"] = "inventory"  # where servers, volumes and backups are looked for
    inventory: str = ""  # absolute path of the folder that describes servers; empty: inventory in data_dir
    libvirt_uri: str = "qemu:///system"  # the hypervisor to ask
    libvirt_project: str = ""  # name or id of the project that has its servers; empty: none but those that name one
    libvirt_exchange: str = ""  # absolute path of a folder that the hypervisor may write to; empty: no running servers
    timeout_s: Seconds = 30.0  # how long a hypervisor may take to answer
    disk_bytes: Bytes = 1024**4  # the largest disk that an image is made from, save a full-server image
    vault_required: bool = False  # whether a full-server image wants a vault that is described (IMG.0184)


class RegionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another Calotype or IMS that images may be copied to. Whoever may copy images here may copy to its projects."""

    url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]  # of its image service, without a version
    auth_url: Annotated[str, Meta(pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$")] = ""  # v3; empty: url/identity/v3
    user: str = ""  # name of the user to log in as, there
    user_domain: str = "Default"  # name of the user's domain
    password: str = ""  # of the user
    access_key: str = ""  # instead of a user: each request is signed
    secret_key: str = ""  # of the access key
    projects: tuple[str, ...]  # names of the projects there that may be copied to
    project_domain: str = "Default"  # name of their domain
    agencies: tuple[str, ...] = ()  # names that requests may give as agency_name; empty: any
    ca_file: str = ""  # certificates of your own authorities in PEM, besides those of the system
    timeout_s: Seconds = 60.0  # how long it may be silent
    patience_s: Seconds = 300.0  # how long it is tried again when it is away

    def __repr__(self) -> str:
        return f"RegionSettings(url={self.url!r})"


class BucketMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of the host, or a place on an S3 server, that one project, or every project, sees as a bucket."""

    folder: str = ""  # absolute path of the folder
    s3: S3Url = ""  # instead: URL of a bucket on an S3 server, or of keys in it: https://s3.example.test/images/disks
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "us-east-1"  # that the S3 server wants to be told
    access_key: str = ""  # for the S3 server
    secret_key: str = ""  # of the access key
    credentials_file: str = ""  # instead of both: absolute path of a file as of the AWS tools, section [default]
    virtual_host: bool = False  # the S3 bucket is a part of the host's name, not of the path
    ca_file: str = ""  # certificates of your own authorities in PEM, besides those of the system
    timeout_s: Seconds = 30.0  # how long the S3 server may be silent
    patience_s: Seconds = 300.0  # how long a job tries again, from where it was, when the S3 server is away
    project: str = ""  # name or id of the project; empty: every project
    read_only: bool = True  # whether objects cannot be written or deleted through the service

    def __repr__(self) -> str:
        return f"BucketMapping(folder={self.folder!r}, s3={self.s3!r}, project={self.project!r})"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data_dir: str = "data"  # everything the service keeps
    database: str = ""  # URL of a PostgreSQL database, postgresql://…; empty: SQLite in data_dir
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "RegionOne"  # its name in the catalog
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # the least that is logged
    log_format: Literal["auto", "json", "text"] = "auto"  # auto: text in a terminal, else JSON
    http: Http = Http()
    identity: IdentitySettings = IdentitySettings()
    jobs: JobSettings = JobSettings()
    image: ImageSettings = ImageSettings()
    imports: ImportSettings = ImportSettings()
    imagev2: ImageV2Settings = ImageV2Settings()
    fetch: FetchSettings = FetchSettings()
    security: SecuritySettings = SecuritySettings()
    ims: ImsSettings = ImsSettings()
    servers: ServerSettings = ServerSettings()
    buckets: dict[str, BucketMapping] = {}  # name -> mapped folder or place on an S3 server; in the file only
    stores: dict[str, Store] = {}  # id -> store of image bytes, besides `local`; in the file only
    endpoints: dict[str, EndpointSettings] = {}  # name -> what else the catalog holds; in the file only
    regions: dict[str, RegionSettings] = {}  # name -> where images may be copied to; in the file only

    @property
    def folder(self) -> Path:
        return Path(self.data_dir).absolute()

    @property
    def url(self) -> str:
        """The root URL of the service, without a slash at the end."""
        if self.http.url:
            return self.http.url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.http.host, self.http.host)  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.http.port}"

    @property
    def processes(self) -> int:
        return self.http.processes or min(4, os.cpu_count() or 1)

    @property
    def slots(self) -> int:
        return self.jobs.slots or os.cpu_count() or 1


SECTIONS: Final[Mapping[str, type[Struct]]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Settings)
    if isinstance(field.type, type) and issubclass(field.type, Struct)
}
TABLES: Final[Mapping[str, type[Struct]]] = {  # in the file only: by name
    "buckets": BucketMapping,
    "stores": Store,
    "endpoints": EndpointSettings,
    "regions": RegionSettings,
}
# Old name -> the present one, which wins where both are given.
RENAMED: Final[Mapping[str, str]] = {
    "imagev2.decompress": "imports.decompress",
    "imagev2.decompress_ratio": "imports.decompress_ratio",
}
FILE_ONLY: Final = frozenset({"imagev2.inject"})
SECRETS: Final = frozenset({"database"})  # settings whose value may hold a password
REGION_SECRETS: Final = ("password", "secret_key")
BUCKET_SECRETS: Final = ("secret_key",)


def load(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Return what is in force. The file is `CALOTYPE_CONFIG`, or `calotype.toml` here if there is one.

    `overrides` win over everything: `load(data_dir="d", http={"port": 9000})`; None values are left out.
    Raises `WrongSetting`.
    """
    environment = os.environ if environment is None else environment
    values = _from_file(environment)
    for name, value in _from_environment(environment).items():
        _merge(values, name, value)
    for name, given in overrides.items():
        if isinstance(given, Mapping):
            _merge(values, name, {key: item for key, item in given.items() if item is not None})
        elif given is not None:
            values[name] = given
    _rename(values)
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise WrongSetting(_explained(str(error))) from None
    if settings.database and not settings.database.startswith(("postgresql://", "postgresql+psycopg://")):
        raise WrongSetting("database: wants a URL that begins with postgresql://, or nothing for SQLite")
    if settings.jobs.dead_after_s < 2 * settings.jobs.heartbeat_s:
        raise WrongSetting("jobs.dead_after_s: wants at least twice jobs.heartbeat_s")
    if settings.servers.inventory and not settings.servers.inventory.startswith("/"):
        raise WrongSetting("servers.inventory: wants an absolute path, or nothing for inventory in data_dir")
    if settings.servers.libvirt_exchange and not settings.servers.libvirt_exchange.startswith("/"):
        raise WrongSetting("servers.libvirt_exchange: wants an absolute path, or nothing for stopped servers alone")
    for name, mapping in settings.buckets.items():
        _check_mapping(name, mapping, settings.folder)
    for name, store in settings.stores.items():
        _check_store(name, store, settings.folder)
    _check_endpoints(settings)
    for name, region in settings.regions.items():
        _check_region(name, region, settings.region)
    return settings


def shown(settings: Settings) -> dict[str, Any]:
    """What is in force, for printing: the same nesting, secrets as stars."""
    values: dict[str, Any] = msgspec.to_builtins(settings)
    for name in SECRETS:
        if values[name]:
            values[name] = "********"
    for region in values["regions"].values():
        region.update({name: "********" for name in REGION_SECRETS if region[name]})
    for mapping in values["buckets"].values():
        mapping.update({name: "********" for name in BUCKET_SECRETS if mapping[name]})
    return values


def variables() -> dict[str, str]:
    """Every environment variable of Settings, with the dotted name of its setting."""
    names = {}
    for field in msgspec.structs.fields(Settings):
        section = SECTIONS.get(field.name)
        if section is not None:
            for inner in msgspec.structs.fields(section):
                if f"{field.name}.{inner.name}" in FILE_ONLY:
                    continue
                names[f"{PREFIX}{field.name}_{inner.name}".upper()] = f"{field.name}.{inner.name}"
        elif field.name not in TABLES:
            names[f"{PREFIX}{field.name}".upper()] = field.name
    return names


def _check_mapping(name: str, mapping: BucketMapping, data_dir: Path) -> None:
    if not re.fullmatch(BUCKET_NAME, name):
        raise WrongSetting(f"buckets.{name}: wants a name of 3 to 63 of a-z, 0-9, '-' and '.'")
    if mapping.s3:
        _check_s3(name, mapping)
        return
    if not mapping.folder.startswith("/"):
        raise WrongSetting(f"buckets.{name}.folder: wants an absolute path")
    if any(getattr(mapping, field) for field in ONLY_S3):
        raise WrongSetting(f"buckets.{name}: {', '.join(ONLY_S3)} are for a bucket with s3 instead of folder")
    folder, data = Path(mapping.folder).resolve(), data_dir.resolve()
    if folder.is_relative_to(data) or data.is_relative_to(folder):
        raise WrongSetting(f"buckets.{name}.folder: wants a folder apart from data_dir, which holds everyone's images")


def _check_s3(name: str, mapping: BucketMapping) -> None:
    if mapping.folder:
        raise WrongSetting(f"buckets.{name}: wants folder or s3, not both")
    try:
        place = urlsplit(mapping.s3)
        known = bool(place.hostname) and place.port != 0
    except ValueError:
        known = False
    if not known or "//" in place.path:
        raise WrongSetting(f"buckets.{name}.s3: wants http(s)://host[:port]/bucket[/beginning of keys]")
    given = (bool(mapping.access_key) + bool(mapping.secret_key), 2 * bool(mapping.credentials_file))
    if sorted(given) != [0, 2]:
        raise WrongSetting(f"buckets.{name}: wants access_key and secret_key, or credentials_file")
    if not all(character.isprintable() and character.isascii() for character in mapping.access_key):
        raise WrongSetting(f"buckets.{name}.access_key: wants printable ASCII characters")
    for field in ("credentials_file", "ca_file"):
        if getattr(mapping, field) and not getattr(mapping, field).startswith("/"):
            raise WrongSetting(f"buckets.{name}.{field}: wants an absolute path")


def _check_store(name: str, store: Store, data_dir: Path) -> None:
    if not re.fullmatch(STORE_NAME, name) or name.startswith("os_glance_"):
        raise WrongSetting(f"stores.{name}: wants a name of 1 to 63 of a-z, 0-9, '-' and '_'")
    if store.type == "http":
        if store.folder or name == LOCAL:
            raise WrongSetting(f"stores.{name}: an http store has no folder, and the store {LOCAL} is a folder")
        return
    if name == LOCAL and not store.folder:
        return
    if not store.folder.startswith("/"):
        raise WrongSetting(f"stores.{name}.folder: wants an absolute path")
    folder, data = Path(store.folder).resolve(), data_dir.resolve()
    if folder.is_relative_to(data) or data.is_relative_to(folder):
        raise WrongSetting(f"stores.{name}.folder: wants a folder apart from data_dir and from other stores")


def _check_endpoints(settings: Settings) -> None:
    """Of one type, region and interface there is one endpoint; ours are there already."""
    taken = {(kind, settings.region, interface): "this service" for kind in OWN_SERVICES for interface in INTERFACES}
    for name, endpoint in settings.endpoints.items():
        if not re.fullmatch(ENDPOINT_NAME, name):
            raise WrongSetting(f"endpoints.{name}: wants a name of 1 to 63 of a-z, 0-9, '.', '-' and '_'")
        for interface in INTERFACES if endpoint.interface == "all" else (endpoint.interface,):
            place = (endpoint.type, endpoint.region or settings.region, interface)
            if place in taken:
                what = f"the {interface} endpoint of type {endpoint.type} in region {place[1]}"
                raise WrongSetting(f"endpoints.{name}: {what} is {taken[place]} already; choose another type or region")
            taken[place] = f"endpoints.{name}"


def _check_region(name: str, region: RegionSettings, own: str) -> None:
    if not re.fullmatch(REGION_NAME, name):
        raise WrongSetting(f"regions.{name}: wants a name of 1 to 64 of letters, digits, '.', '-' and '_'")
    if name == own:
        raise WrongSetting(f"regions.{name}: is the region of this service; name another one")
    given = (bool(region.user) + bool(region.password), bool(region.access_key) + bool(region.secret_key))
    if sorted(given) != [0, 2]:
        raise WrongSetting(f"regions.{name}: wants user and password, or access_key and secret_key")
    if not region.projects or not all(region.projects) or len(set(region.projects)) < len(region.projects):
        raise WrongSetting(f"regions.{name}.projects: wants one name or several, each once")
    if region.ca_file and not region.ca_file.startswith("/"):
        raise WrongSetting(f"regions.{name}.ca_file: wants an absolute path")


def _rename(values: dict[str, Any]) -> None:
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        given = values.get(section)
        if isinstance(given, dict) and name in given:
            values[section] = {key: value for key, value in given.items() if key != name}
            new_section, _, new_name = new.partition(".")
            present = values.get(new_section, {})
            if isinstance(present, dict):
                values[new_section] = {new_name: given[name], **present}


def _merge(values: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, dict) and isinstance(values.get(name), dict):
        values[name] = {**values[name], **value}
    else:
        values[name] = value


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get("CALOTYPE_CONFIG")
    path = Path(named or "calotype.toml")
    if not named and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise WrongSetting(f"CALOTYPE_CONFIG: cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise WrongSetting(f"{path}: not a TOML file: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    renamed = {f"{PREFIX}{old}".replace(".", "_").upper(): new for old, new in RENAMED.items()}
    known = renamed | variables()
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable not in known:
            raise WrongSetting(f"{variable}: no such setting. `calotype settings` lists all of them")
        section, _, name = known[variable].rpartition(".")
        holder = SECTIONS[section] if section else Settings
        value = _parsed(variable, text, typing.get_type_hints(holder, include_extras=True)[name])
        if variable in renamed:
            values.setdefault(section, {}).setdefault(name, value)
        elif section:
            values.setdefault(section, {})[name] = value
        else:
            values[name] = value
    return values


def _parsed(variable: str, text: str, kind: Any) -> Any:
    """A list is written with commas: `a, b`."""
    try:
        if typing.get_origin(kind) is tuple:
            return msgspec.convert([part.strip() for part in text.split(",") if part.strip()], kind, strict=False)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise WrongSetting(f"{variable}: {_explained(str(error))}") from None


def _explained(text: str) -> str:
    """Turn msgspec's words into a setting's name and what is wrong: "http.port: expected `int` <= 65535"."""
    problem, _, place = text.partition(" - at `$.")
    unknown = "Object contains unknown field `"
    prefix = place.rstrip("`")
    if problem.startswith(unknown):
        name = problem.removeprefix(unknown).rstrip("`")
        return f"{prefix + '.' if prefix else ''}{name}: no such setting. `calotype settings` lists all of them"
    problem = problem[:1].lower() + problem[1:]
    return f"{prefix}: {problem}" if prefix else problem
