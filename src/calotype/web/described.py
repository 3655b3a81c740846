"""Bodies of requests and answers as types, where the code has none of its own. The published description is made of
them (`openapi.py`), and the tests hold the running service to it."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from calotype.disks.model import OpaqueKind
from calotype.disks.targets import FILE_FORMATS

Number = Annotated[int, Meta(ge=0)]
ExportFormat = Annotated[
    str,
    Meta(
        description="; ".join(
            [
                *(f"`{name}`: {wanted.summary}" for name, wanted in FILE_FORMATS.items()),
                f"`{OpaqueKind.ZVHD}`: VHD in an open layout, if the setting `ims.open_zvhd` is on",
            ]
        ),
        extra_json_schema={"enum": [*FILE_FORMATS, OpaqueKind.ZVHD.value]},
    ),
]

# --- errors: one form an API ------------------------------------------------------------------------------------------


class TitledFault(TypedDict):
    code: int  # the HTTP status
    message: str
    title: str


class TitledError(TypedDict):
    error: TitledFault


class NativeFault(TypedDict):
    code: str
    message: str


class NativeError(TypedDict):
    error: NativeFault


class ImsFault(TypedDict):
    code: Annotated[str, Meta(pattern=r"^IMG\.[0-9]{4}$")]
    message: str
    detail: NotRequired[str]


class ImsError(TypedDict):
    error: ImsFault


class ImsRefusal(TypedDict):
    """Of the credential: the form of IMS's gateway."""

    error_code: str
    error_msg: str
    request_id: str


# --- health -----------------------------------------------------------------------------------------------------------


class Alive(TypedDict):
    status: Literal["ok"]
    version: str


class Ready(Alive):
    schema: str
    workers: Number


# --- Image v2 ---------------------------------------------------------------------------------------------------------


class VersionLink(TypedDict):
    rel: Literal["self"]
    href: str


class ImageVersion(TypedDict):
    id: str
    status: Literal["CURRENT", "SUPPORTED", "DEPRECATED"]
    links: list[VersionLink]


class ImageVersions(TypedDict):
    versions: list[ImageVersion]


class NewMember(TypedDict):
    member: Annotated[str, Meta(min_length=1, max_length=255)]


class MemberAnswer(TypedDict):
    status: Literal["pending", "accepted", "rejected"]


# --- IMS --------------------------------------------------------------------------------------------------------------


class KeyAndValue(TypedDict):
    key: str
    value: NotRequired[str]


SourceDigest = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-fA-F]{64}|sha512:[0-9a-fA-F]{128})$")]  # of the file


class DataDisk(TypedDict, total=False):
    name: str
    description: str
    volume_id: str  # of a disk, or
    image_url: str  # bucket:key, with min_disk
    min_disk: Annotated[int, Meta(ge=1, le=2048)]
    is_quick_import: bool
    source_digest: SourceDigest
    tags: list[str]
    image_tags: list[KeyAndValue]


class NewDataImage(TypedDict):
    name: str
    image_url: str  # bucket:key
    min_disk: Annotated[int, Meta(ge=1, le=2048)]
    os_type: NotRequired[Literal["Linux", "Windows", "Other"]]
    source_digest: NotRequired[SourceDigest]
    description: NotRequired[str]
    tags: NotRequired[list[str]]
    image_tags: NotRequired[list[KeyAndValue]]
    enterprise_project_id: NotRequired[str]


class QuickImport(NewDataImage):
    type: NotRequired[Literal["ECS", "BMS", "DataImage"]]
    os_version: NotRequired[str]
    architecture: NotRequired[Literal["x86", "arm"]]
    hw_firmware_type: NotRequired[Literal["bios", "uefi"]]
    license_type: NotRequired[Literal["platform", "byol"]]


class NewWholeImage(TypedDict):
    """Wants one of `instance_id` and `backup_id`."""

    name: str
    instance_id: NotRequired[str]
    vault_id: NotRequired[str]
    backup_id: NotRequired[str]
    whole_image_type: NotRequired[Literal["CBR", "CSBS"]]
    description: NotRequired[str]
    tags: NotRequired[list[str]]
    image_tags: NotRequired[list[KeyAndValue]]
    enterprise_project_id: NotRequired[str]
    max_ram: NotRequired[int]
    min_ram: NotRequired[int]


class DeleteImage(TypedDict, total=False):
    delete_backup: bool  # of a full-server image, together with it


class NewImsImage(TypedDict, total=False):
    """Fields that are not known are ignored."""

    name: str
    description: str
    image_url: str  # bucket:key
    instance_id: str
    volume_id: str
    data_images: list[DataDisk]
    is_config: bool
    is_quick_import: bool
    source_digest: SourceDigest
    os_type: Literal["Linux", "Windows", "Other"]
    os_version: str
    type: Literal["ECS", "FusionCompute", "BMS", "Ironic", "IsoImage"]
    min_disk: Annotated[int, Meta(ge=1, le=1024)]
    min_ram: Number
    max_ram: Number
    tags: list[str]
    image_tags: list[KeyAndValue]
    hw_firmware_type: Literal["bios", "uefi"]
    architecture: Literal["x86", "arm"]
    enterprise_project_id: str


class ImsFile(TypedDict):
    image_url: str  # bucket:key
    source_digest: NotRequired[SourceDigest]


class ImsExport(TypedDict):
    bucket_url: str  # bucket:key
    file_format: NotRequired[ExportFormat]  # must, unless is_quick_export
    is_quick_export: NotRequired[bool]


class ImsCopy(TypedDict):
    name: str
    description: NotRequired[str]
    enterprise_project_id: NotRequired[str]


class ImsCrossRegionCopy(TypedDict):
    name: str
    region: str
    project_name: NotRequired[str]  # needed where the region has several
    agency_name: str
    description: NotRequired[str]


class Accepted(TypedDict):
    job_id: str


class ImsJob(TypedDict):
    """Times of the older form, which a client may ask for, are texts of another form."""

    job_id: str
    job_type: str
    begin_time: str | None
    end_time: str
    status: Literal["INIT", "RUNNING", "SUCCESS", "FAIL"]
    error_code: str | None
    fail_reason: str | None
    entities: dict[str, Any]


# --- Calotype's own jobs ----------------------------------------------------------------------------------------------


class JobSubject(TypedDict):
    image_id: str | None
    image_name: str | None
    project_id: str


class StepProgress(TypedDict):
    done_bytes: Number | None
    total_bytes: Number | None
    rate_bps: Number | None


class JobProgress(StepProgress):
    percent: Annotated[float, Meta(ge=0, le=100)]
    eta_seconds: float | None


class JobStep(TypedDict):
    name: str
    state: Literal["pending", "running", "done", "failed", "skipped"]
    started: str | None
    ended: str | None
    attempts: Number
    progress: StepProgress


class JobError(TypedDict):
    code: str
    message: str | None


class NativeJob(TypedDict):
    id: str
    type: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelling", "cancelled"]
    subject: JobSubject
    created: str | None
    started: str | None
    ended: str | None
    attempt: Number
    progress: JobProgress
    step: str | None
    waits_for: str | None
    steps: list[JobStep]
    error: JobError | None
    entities: dict[str, Any]
    request: dict[str, Any]


class NativeJobs(TypedDict):
    jobs: list[NativeJob]
    next_marker: str | None


class CancelJob(TypedDict, total=False):
    reason: str


# --- identity ---------------------------------------------------------------------------------------------------------


class NamedRef(TypedDict):
    id: str
    name: str


class SelfLink(TypedDict):
    self: str


class PageLinks(TypedDict):
    self: str
    previous: str | None
    next: str | None


class _Paged(TypedDict):
    links: PageLinks
    truncated: NotRequired[bool]
    next: NotRequired[str]


class DomainForm(TypedDict):
    id: str
    name: str
    description: str
    enabled: bool
    options: dict[str, Any]
    tags: list[str]
    links: SelfLink


class ProjectForm(DomainForm):
    domain_id: str
    parent_id: str
    is_domain: bool


class UserForm(TypedDict):
    id: str
    name: str
    domain_id: str
    enabled: bool
    password_expires_at: str | None
    options: dict[str, Any]
    links: SelfLink
    email: NotRequired[str]
    description: NotRequired[str]
    default_project_id: NotRequired[str]


class RoleForm(TypedDict):
    id: str
    name: str
    domain_id: str | None
    description: str
    options: dict[str, Any]
    links: SelfLink


class OneDomain(TypedDict):
    domain: DomainForm


class Domains(_Paged):
    domains: list[DomainForm]


class OneProject(TypedDict):
    project: ProjectForm


class Projects(_Paged):
    projects: list[ProjectForm]


class OneUser(TypedDict):
    user: UserForm


class Users(_Paged):
    users: list[UserForm]


class OneRole(TypedDict):
    role: RoleForm


class Roles(_Paged):
    roles: list[RoleForm]


class RoleAssignment(TypedDict):
    role: dict[str, Any]
    user: dict[str, Any]
    scope: dict[str, Any]
    links: dict[str, str]


class RoleAssignments(_Paged):
    role_assignments: list[RoleAssignment]


class RegionForm(TypedDict):
    id: str
    description: str
    parent_region_id: str | None
    links: SelfLink


class OneRegion(TypedDict):
    region: RegionForm


class Regions(_Paged):
    regions: list[RegionForm]


class ServiceForm(TypedDict):
    id: str
    name: str
    type: str
    description: str
    enabled: bool
    links: SelfLink


class OneService(TypedDict):
    service: ServiceForm


class Services(_Paged):
    services: list[ServiceForm]


class EndpointForm(TypedDict):
    id: str
    service_id: str
    interface: str
    region: str
    region_id: str
    url: str
    enabled: bool
    links: SelfLink


class OneEndpoint(TypedDict):
    endpoint: EndpointForm


class Endpoints(_Paged):
    endpoints: list[EndpointForm]


class CatalogEndpoint(TypedDict):
    id: str
    interface: str
    region: str
    region_id: str
    url: str


class CatalogService(TypedDict):
    id: str
    name: str
    type: str
    endpoints: list[CatalogEndpoint]


class Ec2Form(TypedDict):
    access: str
    user_id: str
    tenant_id: str
    trust_id: None
    links: SelfLink


class Ec2CredentialForm(Ec2Form):
    secret: None


class NewEc2CredentialForm(Ec2Form):
    secret: str


class OneEc2Credential(TypedDict):
    credential: Ec2CredentialForm


class NewEc2Credential(TypedDict):
    credential: NewEc2CredentialForm


class Ec2Credentials(TypedDict):
    credentials: list[Ec2CredentialForm]
    links: PageLinks


class Catalog(TypedDict):
    catalog: list[CatalogService]
    links: PageLinks


class InDomain(NamedRef):
    domain: NamedRef


class TokenUser(InDomain):
    password_expires_at: str | None


class TokenForm(TypedDict):
    methods: list[str]
    user: TokenUser
    audit_ids: list[str]
    expires_at: str
    issued_at: str
    project: NotRequired[InDomain]
    is_domain: NotRequired[bool]
    domain: NotRequired[NamedRef]
    roles: NotRequired[list[NamedRef]]
    catalog: NotRequired[list[CatalogService]]


class OneToken(TypedDict):
    token: TokenForm


IdentityVersion = TypedDict(
    "IdentityVersion",
    {"id": str, "status": str, "updated": str, "links": list[VersionLink], "media-types": list[dict[str, str]]},
)


class OneIdentityVersion(TypedDict):
    version: IdentityVersion


class IdentityVersionList(TypedDict):
    values: list[IdentityVersion]


class IdentityVersions(TypedDict):
    versions: IdentityVersionList
