"""Wiring of the registry's process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flask import Flask

from chassis import logs, parking, settings
from chassis.services import Services
from chassis.web import Api, Edge
from chassis.web import create_app as create_web_app
from chassis.workers import Workers
from devices import api
from devices.audit import api as audit_api
from devices.audit.store import AuditStore
from devices.broker import hooks_api, management
from devices.broker.access import BrokerAccess, BrokerAuth, NoBroker, Pick, choose, every
from devices.broker.access_list import AccessList
from devices.broker.connections import Connections
from devices.broker.dynsec import DynamicSecurity
from devices.broker.hooks import BrokerHooks
from devices.broker.management import Management
from devices.broker.mosquitto_file import MosquittoFile
from devices.broker.rollcall import RollCall
from devices.bulk import api as bulk_api
from devices.bulk.service import JOB_KIND as BULK_KIND
from devices.bulk.service import Bulk, More
from devices.claims import api as claims_api
from devices.claims.store import ClaimStore
from devices.config import DevicesConfig
from devices.control.door import DeviceDoor
from devices.control.wiring import Control
from devices.database.engine import BrokerForm, Database
from devices.database.schema import migrate
from devices.descriptions import api as descriptions_api
from devices.descriptions.store import DescriptionStore
from devices.enrolment import api as enrolment_api
from devices.enrolment import holds
from devices.enrolment.holds import HoldStore
from devices.enrolment.seal import Seal
from devices.enrolment.service import Door, Enrolments
from devices.enrolment.store import EnrolmentStore
from devices.erasure import api as erasure_api
from devices.erasure.service import JOB_KIND as ERASE_KIND
from devices.erasure.service import Erasures
from devices.gateways import api as gateways_api
from devices.gateways.names import NameStore
from devices.gateways.store import GatewayStore
from devices.groups import api as groups_api
from devices.groups.store import GroupStore
from devices.hosting import Chore, Hosted
from devices.internal import api as internal_api
from devices.internal.lookups import LookupStore
from devices.jobs import api as jobs_api
from devices.jobs.service import Jobs, Runner
from devices.jobs.store import JobStore
from devices.oidc import wiring as oidc
from devices.onboarding import api as onboarding_api
from devices.onboarding.importing import JOB_KIND, Importer
from devices.onboarding.lines import MAX_BYTES
from devices.people import api as people_api
from devices.people.invitations import Invitations
from devices.people.service import Operators, Tokens
from devices.people.store import OperatorStore, TokenStore
from devices.people.visits import InvitationStore, SessionStore
from devices.presence.keeper import Keeper
from devices.presence.store import PresenceStore
from devices.query.reach import QueryReaches
from devices.query.store import Finder
from devices.rotations import api as rotations_api
from devices.rotations.service import JOB_KIND as ROTATION_KIND
from devices.rotations.service import Rotation
from devices.rotations.store import RotationStore
from devices.service import Registry
from devices.store import CredentialStore, DeviceStore
from devices.tenants import api as tenants_api
from devices.tenants import usage_api
from devices.tenants.service import Tenants
from devices.tenants.store import TenantStore
from devices.tenants.usage import UsageStore
from devices.thingsboard import provision
from devices.types import schedule
from devices.types.dry_run import JOB_KIND as DRY_RUN_KIND
from devices.types.store import TypeStore
from devices.types.wiring import Types
from devices.x509 import api as x509_api
from devices.x509.revocations import Revocations, SocketCutter
from devices.x509.service import Authorities
from devices.x509.store import AuthorityStore

# Where requests are short and many, or wait for long. No answer there is a stream.
_METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")
_PATHS = ("/v1/device", "/v1/commands", "/internal/")
QUICK_PATHS = ("GET /api/v1/", *(f"{method} {path}" for method in _METHODS for path in _PATHS))


def create_app(config: DevicesConfig | None = None) -> Flask:
    """Build the registry's web app and start its threads; `app.extensions["headwater.workers"].stop()` ends them."""
    config = config or settings.load(DevicesConfig)
    logs.configure("devices", style=config.log_style, level=config.log_level)
    config.data.mkdir(parents=True, exist_ok=True)
    seal = Seal(config.registry_key)
    database = Database(config.registry, config.data, _form_for_broker(config, seal))
    migrate(database, config.data)
    credentials, audit = CredentialStore(database), AuditStore(database)
    routes, lookups, marks = Api(), LookupStore(database, lists_full=not config.is_asked), PresenceStore(database)
    tokens, operators = _open_access(config, database)
    authorities = Authorities(AuthorityStore(database), seal)
    access = BrokerAccess(lookups, marks, *_open_broker(config, seal, authorities), ClaimStore(database).in_force)
    keeper = Keeper(marks, config.silence_s, None if config.is_asked else Connections(credentials, access).note)
    door = DeviceDoor(lookups, keeper, credentials, authorities.resolve)
    x509_api.add_routes(routes, authorities, door)
    control = Control(database, config, door)
    keeper.arrived = control.arrive
    verbs = _open_registry(database), control.deeds(), Types(config, database)
    hosted = Hosted(
        config, keeper, access,
        _chores(config, database, _add_registry(routes, database, verbs), keeper) | control.chores(),
    )  # fmt: skip

    _add_topics(routes, config, database, seal, door)
    _add_people(routes, database, tokens, operators)
    internal_api.add_lookups(routes, lookups, control.bell)
    audit_api.add_routes(routes, audit)
    internal_api.add_signs(routes, keeper, credentials, audit)
    control.add_routes(routes)

    def ready() -> dict[str, str]:
        return {"database": "ok" if database.is_reachable() else "does not answer"} | hosted.checks()

    app = create_web_app(_edge(config, database, tokens, ready), routes)
    app.before_request(api.limit_json)
    app.extensions |= {"headwater.database": database, parking.QUICK: QUICK_PATHS}
    app.extensions["headwater.workers"] = _start(control, hosted)
    return app


def _open_access(config: DevicesConfig, database: Database) -> tuple[Tokens, Operators]:
    tokens, operators = Tokens(TokenStore(database)), Operators(OperatorStore(database))
    tokens.bootstrap(config.operator_token)
    operators.bootstrap(config.admin_hash)
    return tokens, operators


def _open_registry(database: Database) -> Registry:
    return Registry(DeviceStore(database), CredentialStore(database), DescriptionStore(database))


def _edge(config: DevicesConfig, database: Database, tokens: Tokens, ready: Callable[[], dict[str, str]]) -> Edge:
    services, reaches = Services(config.services, config.service_token), QueryReaches(Finder(database))
    return Edge("devices", services, tokens, ready, MAX_BYTES, reaches=reaches)


def _start(*threaded: Control | Hosted) -> Workers:
    workers = Workers()
    for each in threaded:
        each.start(workers)
    return workers


def _add_registry(routes: Api, database: Database, verbs: tuple[Registry, More, Types]) -> Runner:
    """Add the routes of devices and of long work about them; give what does it."""
    registry, deeds, types = verbs
    api.add_routes(routes, registry)
    rows = JobStore(database)
    importer = Importer(DeviceStore(database), GatewayStore(database), rows)
    finder, groups = Finder(database), GroupStore(database)
    bulk = Bulk(registry, finder, groups, rows, deeds)
    rotations = RotationStore(database)
    rotation = Rotation(rotations, rows)
    kinds = {JOB_KIND: importer.kind(), BULK_KIND: bulk.kind(), ROTATION_KIND: rotation.kind()}
    erasures = Erasures(registry, rows)
    kinds |= {ERASE_KIND: erasures.kind(), DRY_RUN_KIND: types.dry_runs.kind()}
    jobs = Jobs(rows, kinds)
    types.add_routes(routes, jobs)
    jobs_api.add_routes(routes, jobs)
    onboarding_api.add_routes(routes, importer, jobs)
    groups_api.add_routes(routes, groups)
    bulk_api.add_routes(routes, bulk, finder, jobs)
    erasure_api.add_routes(routes, registry, erasures, jobs)
    rotations_api.add_routes(routes, rotation, jobs, (finder, rotations, rows))
    return Runner(rows, kinds)


def _chores(config: DevicesConfig, database: Database, runner: Runner, keeper: Keeper) -> dict[str, Chore]:
    """Name the threads of the host beside presence and the broker's list."""
    api, roll_call = _management(config), dict[str, Chore]()
    if api is not None:
        roll_call["roll-call"] = RollCall(api, PresenceStore(database), keeper.apply, LookupStore(database)).run
    return roll_call | {
        "jobs": runner.run,
        "type-schedule": partial(schedule.run, TypeStore(database)),
        "holds-expiry": partial(holds.expire_until_stopped, HoldStore(database)),
    }


def _add_people(routes: Api, database: Database, tokens: Tokens, operators: Operators) -> None:
    invitations = Invitations(InvitationStore(database))
    people_api.add_routes(routes, tokens, operators, SessionStore(database), invitations)
    internal_api.add_access(routes, tokens, operators, invitations)


def _add_topics(routes: Api, config: DevicesConfig, database: Database, seal: Seal, seen: DeviceDoor) -> None:
    """Add the routes of topics that need little but the database."""
    oidc.add_routes(routes, config, database, seal)
    is_counted = not config.is_asked or _management(config) is not None
    tenants = Tenants(TenantStore(database), is_counted=is_counted)
    tenants_api.add_routes(routes, tenants)
    usage_api.add_routes(routes, tenants, UsageStore(database), DeviceStore(database))
    descriptions_api.add_routes(routes, DescriptionStore(database))
    gateways_api.add_routes(routes, GatewayStore(database), NameStore(database))
    claims = ClaimStore(database)
    claims_api.add_routes(routes, claims)
    ways = EnrolmentStore(database)
    door = Door(ways, seal)
    enrolment_api.add_routes(routes, Enrolments(ways, seal), door, HoldStore(database))
    provision.add_routes(routes, door)
    if config.is_asked:
        hooks = BrokerHooks(LookupStore(database), door.admit, claims.in_force, seen.note_connected)
        hooks_api.add_routes(routes, hooks, config.broker_hook_token)


def _form_for_broker(config: DevicesConfig, seal: Seal) -> BrokerForm | None:
    """Tell what is kept of a secret for the broker: a hash, unless its plugin wants to make that itself."""
    if config.broker_auth != "dynsec":
        return None
    return lambda row: seal.close(row.plain.encode(), "broker") if row.plain else row.broker_hash


def _revocations(config: DevicesConfig, authorities: Authorities) -> Revocations:
    cutter = SocketCutter(Path(config.broker_socket), (config.broker_username, config.broker_password))
    return Revocations(authorities, Path(config.broker_ca_file), Path(config.broker_crl_file), cutter)


def _open_broker(config: DevicesConfig, seal: Seal, authorities: Authorities) -> tuple[BrokerAuth, Pick]:
    api = _management(config)
    if api is not None:
        return Management(api), every
    return _open_list(config, seal, authorities), choose


def _management(config: DevicesConfig) -> management.Api | None:
    """Give the management API of a broker that asks by HTTP hooks, if it is set."""
    if not config.is_asked or not config.broker_management:
        return None
    return management.read(config.broker_management, config.broker_management_token)


def _open_list(config: DevicesConfig, seal: Seal, authorities: Authorities) -> BrokerAuth:
    if config.broker_auth == "dynsec":
        credential, control = (config.broker_username, config.broker_password), config.control_username
        return DynamicSecurity(config.broker, credential, lambda form: seal.reveal(form, "broker"), control)
    if config.is_asked or not config.broker_passwd_file:
        return NoBroker()
    revocations = _revocations(config, authorities) if config.broker_crl_file else None
    services = Path(config.broker_services_file) if config.broker_services_file else None
    pid_path = Path(config.broker_pid_file) if config.broker_pid_file else None
    return MosquittoFile(Path(config.broker_passwd_file), services, pid_path, revocations, _access_list(config))


def _access_list(config: DevicesConfig) -> AccessList | None:
    if not config.broker_acl_file or not config.broker_services_acl_file:
        return None
    return AccessList(Path(config.broker_acl_file), Path(config.broker_services_acl_file), config.control_username)
