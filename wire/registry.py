"""Bodies of the registry's routes: `/v1/devices`, `/v1/device-types`, `/v1/tokens`, ... and its internal ones."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from wire.clock import MAX_NS
from wire.descriptions import FieldDescription
from wire.devices import (
    TENANT,
    Attributes,
    AttributeValue,
    DeviceId,
    DeviceState,
    DeviceType,
    DeviceTypeSpec,
    Model,
    Name,
    Role,
    TagKey,
    Tags,
    TagValue,
    Text,
    When,
    check_attributes,
)
from wire.passwords import is_guessable
from wire.points import TimeNs
from wire.presence import PresenceState


def _not_usual(password: str) -> str:
    if is_guessable(password):
        raise ValueError("is one of the first that would be tried; take some words that do not belong together")
    return password


Arrival = Annotated[int, Field(ge=0, le=MAX_NS)]
MAX_OVERLAP_S = 30 * 86_400.0
QueryText = Annotated[str, Field(max_length=2_000)]  # of the query language, docs/query.md
Password = Annotated[str, Field(min_length=10, max_length=256), AfterValidator(_not_usual)]
# What a token may do at most: an area, the first part of a path below /v1/, and reading or writing there.
Scope = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z-]{0,31}):(read|write|\*)$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DeviceCreate(Model):
    """A device to register; its type is a name, whose rules apply as soon as a device type of that name exists."""

    id: DeviceId
    type: Name | None = None
    tags: Tags = {}
    attributes: Attributes = {}
    gateway: bool = False


class DeviceImport(DeviceCreate):
    """A device of a file; with `parent` it is registered as a child of that gateway, which has no credential."""

    parent: DeviceId | None = None


AttributesPatch = Annotated[
    dict[TagKey, AttributeValue | None], Field(max_length=128), AfterValidator(check_attributes)
]


class DevicePatch(Model):
    """Members to change (RFC 7396): a tag or attribute of null goes away, a type of null leaves none."""

    type: Name | None = None
    tags: Annotated[dict[TagKey, TagValue | None], Field(max_length=64)] = {}
    attributes: AttributesPatch = {}
    gateway: bool = False


class CredentialCreate(Model):
    """Validity of a further credential; absent = from now, without end. Its label is for people."""

    not_before: When | None = None
    not_after: When | None = None
    label: Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None


class CredentialRotate(Model):
    """How long the credentials that are valid now still work beside the new one."""

    overlap_s: float = Field(default=3600.0, ge=0, le=MAX_OVERLAP_S)


class CredentialView(BaseModel):
    """A credential without its secret."""

    id: str
    label: str | None
    created: TimeNs
    not_before: TimeNs | None
    not_after: TimeNs | None
    last_used: TimeNs | None


class IssuedCredential(BaseModel):
    """A credential with its secret: answered once, stored nowhere."""

    id: str
    label: str | None = None
    username: str
    secret: str
    bearer: str
    not_before: TimeNs | None = None
    not_after: TimeNs | None = None


class CredentialIssued(BaseModel):
    """A further credential, its secret answered once."""

    credential: IssuedCredential


class CredentialList(BaseModel):
    """The credentials of one device."""

    items: list[CredentialView]


class DeviceView(BaseModel):
    """A device as listed."""

    id: str
    tenant: str
    type: str | None
    tags: dict[str, str]
    attributes: dict[str, AttributeValue]
    gateway: bool
    state: DeviceState
    online: bool
    presence: PresenceState
    fw: str | None = None  # firmware version, as it reports it or as its attribute says
    last_seen: TimeNs | None
    created: TimeNs
    updated: TimeNs


class DeviceCreated(DeviceView):
    """A device just registered, with its first credential."""

    credential: IssuedCredential


class DeviceDetail(DeviceView):
    """A device with its credentials, without secrets, its external names, its gateway, and what was told of it."""

    parent: str | None
    credentials: list[CredentialView]
    names: list[str] = []
    described: list[FieldDescription] = []  # what was told of its fields, by itself or by its gateway


class DevicePage(BaseModel):
    """Devices in order of their ids; `next` is the cursor of the following page."""

    items: list[DeviceView]
    next: str | None


class ImportFailure(BaseModel):
    """A line that registered nothing, and why."""

    line: int
    id: str
    code: str
    detail: str


class ImportedCredential(BaseModel):
    """The credential of a device that an import registered."""

    device: str
    username: str
    secret: str
    bearer: str


class ImportReport(BaseModel):
    """What became of each line of an import; `created` counts what would be created when `dry_run`."""

    dry_run: bool
    total: int
    created: int
    failed: list[ImportFailure]
    credentials: list[ImportedCredential]


class DeviceTypeCreate(DeviceTypeSpec):
    """A device type to create."""

    name: Name


class DeviceTypeList(BaseModel):
    """All device types."""

    items: list[DeviceType]


class TokenCreate(Model):
    """An API token to make."""

    name: Name
    role: Role
    expires: When | None = None
    scope: Annotated[list[Scope], Field(max_length=32)] = []
    devices: QueryText = ""  # only the devices that this finds, at each time; empty: all


class TokenView(BaseModel):
    """An API token without its secret."""

    id: str
    name: str
    role: Role
    created: TimeNs
    expires: TimeNs | None
    scope: list[str] = []
    devices: str = ""
    last_used: TimeNs | None = None


class TokenCreated(TokenView):
    """An API token, its secret answered once."""

    token: str


class TokenList(BaseModel):
    """All API tokens."""

    items: list[TokenView]


class OperatorCreate(Model):
    """A person who may log in; with `must_change` only to choose another password first."""

    name: Name
    password: Password
    role: Role
    must_change: bool = False


class OperatorPatch(Model):
    """A new password, a new role, or both."""

    password: Password | None = None
    role: Role | None = None
    must_change: bool | None = None


class OperatorView(BaseModel):
    """A person who may log in."""

    name: str
    role: Role
    created: TimeNs
    must_change: bool
    last_login: TimeNs | None
    by_provider: bool = False  # logs in by the OpenID Connect provider


class OperatorList(BaseModel):
    """All persons who may log in."""

    items: list[OperatorView]


class AuditView(BaseModel):
    """Who changed what, when, from where; `hash` covers the entry and the hash before it."""

    seq: int
    time: TimeNs
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    remote_ip: str
    hash: str


class AuditPage(BaseModel):
    """Audit entries, newest first."""

    items: list[AuditView]
    next: str | None


class AuditVerdict(BaseModel):
    """Whether the chain of audit entries is whole; `broken_seq` is the first entry that does not fit.

    `newest_hash` is that of the last entry: kept elsewhere and handed in at a later check, it finds out an end that
    was cut off or written anew, also by somebody who can write the whole database.
    """

    ok: bool
    entries: int
    broken_seq: int | None
    newest_hash: str


class Lookup(Model):
    """Ids to look up."""

    ids: Annotated[list[str], Field(max_length=5_000)]


class Seen(Model):
    """Signs of life: device id -> newest time of arrival, credential id -> newest use.

    `mqtt` holds arrivals by MQTT: a device that has just disconnected is not brought back by its last messages.
    `presence` holds what a gateway says of its children: whether each is online, and when that was.
    """

    devices: Annotated[dict[str, Arrival], Field(max_length=100_000)] = {}
    mqtt: Annotated[dict[str, Arrival], Field(max_length=100_000)] = {}
    credentials: Annotated[dict[str, Arrival], Field(max_length=100_000)] = {}
    presence: Annotated[dict[str, tuple[bool, Arrival]], Field(max_length=100_000)] = {}


class TokenHash(Model):
    """A presented token, hashed, and the tenant in which its bearer wants to act; None: their own."""

    sha256: Sha256
    tenant: Text | None = None


class Login(Model):
    """Name and password of a person, and where they are."""

    name: Annotated[str, Field(max_length=256)]
    password: Annotated[str, Field(max_length=1024)]
    remote_ip: Text = ""


class LoginAnswer(BaseModel):
    """The token of a new session."""

    token: str
    role: Role
    name: str
    expires: TimeNs
    must_change: bool = False


class AuditEntryIn(Model):
    """An entry from another service."""

    actor: Text
    action: Text
    object: Text = ""
    detail: dict[str, Any] = {}
    remote_ip: Text = ""
    tenant: Text = TENANT


class AuditEntries(Model):
    """Entries from another service."""

    entries: Annotated[list[AuditEntryIn], Field(max_length=1_000)]
