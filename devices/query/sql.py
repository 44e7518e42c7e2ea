"""A query as one SQL condition on DEVICES, with bound values, for SQLite and PostgreSQL alike.

Every condition that can be NULL is closed where it is negated, so `not` takes exactly what is left. Conditions on other
tables are sets of ids: both databases then begin with the smallest. A set that may hold most devices (`online`, an
attribute above a bound) takes long to make: where something else narrows the devices down, each is looked up by itself,
its presence in the row that `devices.statements.HOME` joins. So every statement with a condition selects from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, false, func, not_, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Boolean

from devices.database.tables import DEVICE_TAGS, DEVICES, PRESENCE
from devices.database.tables_finding import DEVICE_ATTRIBUTES, GROUP_MEMBERS
from devices.database.tables_gateways import CHILDREN, NAMES
from devices.query.parser import to_number
from devices.query.tree import BadQuery, Compare, Contains, Every, Field, Has, Is, Node, Not, OneOf, Slot, Some, Value
from devices.query.versions import order_of

MAX_NESTING = 4  # of dynamic groups that name dynamic groups
Tenant = str | BindParameter[str]
FindGroup = Callable[[str], "Node | None"]  # None: its members are listed; KeyError: no such group
Condition = ColumnElement[bool]
_COLUMNS: dict[str, Any] = {
    "id": DEVICES.c.id,
    "type": DEVICES.c.type,
    "created": DEVICES.c.created_ns,
    "fw": DEVICES.c.fw,
}
# field -> where it is: table, column, and when a row of that table says it
_ELSEWHERE: dict[str, tuple[Any, Any, Condition]] = {
    "last_seen": (PRESENCE, PRESENCE.c.last_seen_ns, PRESENCE.c.last_seen_ns > 0),
    "parent": (CHILDREN, CHILDREN.c.gateway, true()),
    "name": (NAMES, NAMES.c.name, true()),
}

_BROAD = (PRESENCE, DEVICE_ATTRIBUTES)  # tables of which a set may hold most devices


def no_groups(name: str) -> Node | None:
    """Know no group at all: for queries that may name none."""
    raise KeyError(name)


def condition(tree: Node, tenant: Tenant, find_group: FindGroup = no_groups, *, is_narrowed: bool = False) -> Condition:
    """Give the condition by which a query chooses rows of DEVICES; the tenant is a part of it.

    `is_narrowed` says that it is asked of few devices: the rows are the same.

    Raises:
        BadQuery: it names a group that does not exist, or groups that go round in circles.
    """
    return and_(DEVICES.c.tenant == tenant, _Compiler(tenant, find_group, is_narrowed=is_narrowed).compile(tree))


def is_broad(node: Node) -> bool:
    """Tell whether a query names a set that may hold most devices."""
    match node:
        case Not(part):
            return is_broad(part)
        case Every(parts) | Some(parts):
            return any(is_broad(part) for part in parts)
        case Is("online") | Has(_):
            return True
        case Compare(field, operator, _):
            is_order = field.kind == "attribute" and operator not in ("=", "~")
            return is_order or field.kind in ("group", "state", "presence") or field.name == "last_seen"
        case OneOf(field, _):
            return field.kind in ("group", "state", "presence")
    return False


class _Compiler:
    def __init__(self, tenant: Tenant, find_group: FindGroup, *, is_narrowed: bool) -> None:
        self._tenant = tenant
        self._is_narrowed = is_narrowed  # where the compiler is: other conditions leave few devices
        self._find_group = find_group
        self._nesting = 0

    def compile(self, node: Node, *, negated: bool = False) -> Condition:
        """Push `not` down to the single conditions."""
        match node:
            case Not(part):
                return self.compile(part, negated=not negated)
            case Every(parts) | Some(parts):
                return self._joined(node, parts, negated=negated)
            case Compare(field, "=", value) if field.kind == "group":
                return self._group(field, str(value), negated=negated)
            case OneOf(field, values) if field.kind == "group":
                return self.compile(Some(tuple(Compare(field, "=", value) for value in values)), negated=negated)
        return _closed_not(self._one(node)) if negated else self._one(node)

    def _joined(self, node: Node, parts: tuple[Node, ...], *, negated: bool) -> Condition:
        if not parts:
            return not_(true()) if negated else true()
        outer, is_and = self._is_narrowed, isinstance(node, Every) != negated
        self._is_narrowed = outer or (is_and and not negated and any(_narrows(part) for part in parts))
        found = [self.compile(part, negated=negated) for part in parts]
        self._is_narrowed = outer
        return (and_ if is_and else or_)(*found)

    def _one(self, node: Node) -> Condition:
        match node:
            case Contains(text):
                named = self._among(NAMES, NAMES.c.search.contains(text.lower(), autoescape=True))
                return or_(DEVICES.c.search.contains(text.lower(), autoescape=True), named)
            case Is("online"):
                return self._among(PRESENCE, PRESENCE.c.online.is_(True))
            case Is(_):
                return DEVICES.c.gateway.is_(True)
            case Has(field):
                return self._has(field)
            case Compare(field, operator, value):
                return self._field(field, lambda column: _compared(column, operator, value), operator, (value,))
            case OneOf(field, values):
                return self._field(field, lambda column: column.in_(values), "=", values)
        raise AssertionError(node)

    def _field(
        self, field: Field, test: Callable[[Any], Condition], operator: str, values: tuple[Value, ...]
    ) -> Condition:
        if field.kind == "label":
            return self._among(DEVICE_TAGS, DEVICE_TAGS.c.key == field.key, test(DEVICE_TAGS.c.value))
        if field.kind == "attribute":
            return self._attribute(field, test, operator, values)
        if field.name in _ELSEWHERE:
            table, column, is_known = _ELSEWHERE[field.name]
            return self._among(table, is_known, test(column))
        if field.kind == "version" and operator != "~":
            return or_(*(_version(operator, str(value)) for value in values))
        if field.kind in ("state", "presence"):
            among = self._state if field.kind == "state" else self._presence
            return or_(*(among(str(value)) for value in values))
        return test(_COLUMNS[field.name])

    def _attribute(
        self, field: Field, test: Callable[[Any], Condition], operator: str, values: tuple[Value, ...]
    ) -> Condition:
        columns = DEVICE_ATTRIBUTES.c
        is_order = operator not in ("=", "~")
        tests = [] if is_order else [test(columns.value)]
        if operator != "~":
            numbers = [number for value in values if (number := to_number(str(value))) is not None]
            tests += [_compared(columns.number, operator, number) for number in numbers]
        return self._among(DEVICE_ATTRIBUTES, columns.key == field.key, or_(*tests))

    def _state(self, state: str) -> Condition:
        if state not in ("active", "registered"):
            return DEVICES.c.state == state
        seen = self._among(PRESENCE, PRESENCE.c.last_seen_ns > 0)
        return and_(DEVICES.c.state == "active", seen if state == "active" else not_(seen))

    def _presence(self, state: str) -> Condition:
        """As `devices.store` shows it."""
        if state in ("online", "stale"):
            return self._among(PRESENCE, PRESENCE.c.online.is_(True), PRESENCE.c.stale.is_(state == "stale"))
        if state == "offline":
            return self._among(PRESENCE, PRESENCE.c.online.is_(False), PRESENCE.c.last_seen_ns > 0)
        return not_(self._among(PRESENCE, or_(PRESENCE.c.online, PRESENCE.c.last_seen_ns > 0)))

    def _has(self, field: Field) -> Condition:
        if field.kind == "label":
            return self._among(DEVICE_TAGS, DEVICE_TAGS.c.key == field.key)
        if field.kind == "attribute":
            return self._among(DEVICE_ATTRIBUTES, DEVICE_ATTRIBUTES.c.key == field.key)
        if field.name in _ELSEWHERE:
            table, _, is_known = _ELSEWHERE[field.name]
            return self._among(table, is_known)
        if field.kind == "group":
            return self._among(GROUP_MEMBERS)
        known: Condition = _COLUMNS[field.name].is_not(None)
        return known

    def _among(self, table: Any, *conditions: Condition) -> Condition:
        if self._is_narrowed and table is PRESENCE:
            return func.coalesce(and_(*conditions), false()).is_(True)
        owned = select(table.c.device).where(table.c.tenant == self._tenant, *conditions)
        if self._is_narrowed and table in _BROAD:
            return owned.where(table.c.device == DEVICES.c.id).correlate(DEVICES).exists()
        return DEVICES.c.id.in_(owned)

    def _group(self, field: Field, name: str, *, negated: bool) -> Condition:
        try:
            tree = self._find_group(name)
        except KeyError:
            raise BadQuery(f"no group {name[:80]!r}", field.at, len(field.name), "the name of a group") from None
        if tree is None:
            among = self._among(GROUP_MEMBERS, GROUP_MEMBERS.c.name == name)
            return not_(among) if negated else among
        if self._nesting >= MAX_NESTING:
            raise BadQuery(f"groups name groups more than {MAX_NESTING} deep", field.at, len(field.name), "")
        self._nesting += 1
        found = self.compile(tree, negated=negated)
        self._nesting -= 1
        return found


def _narrows(node: Node) -> bool:
    """Tell whether a condition leaves few devices, which an index finds."""
    return (
        isinstance(node, Compare) and node.operator == "=" and (node.field.name == "type" or node.field.kind == "label")
    )


def _compared(column: Any, operator: str, value: Any) -> Condition:
    if operator == "~":
        text = str(value)
        return Matches(column, text if "*" in text or "?" in text else f"*{text}*")
    compared = bindparam(value.name) if isinstance(value, Slot) else value
    found: Condition = column.op(operator, is_comparison=True)(compared)
    return found


def _version(operator: str, value: str) -> Condition:
    order = order_of(value)
    if order is None:
        return DEVICES.c.fw == value  # only `=` comes here: no version, then letter for letter
    return _compared(DEVICES.c.fw_order, operator, order)


def _closed_not(found: Condition) -> Condition:
    """Negate a condition; where it is NULL because the device lacks the value, its negation holds."""
    return not_(func.coalesce(found, not_(true())))


class Matches(FunctionElement[bool]):
    """Whether a text matches a pattern in which `*` stands for any text and `?` for one character; case counts."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: Any, pattern: str) -> None:
        as_glob = pattern.replace("[", "[[]")
        as_like = pattern.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        super().__init__(column, as_glob, as_like.replace("*", "%").replace("?", "_"))


@compiles(Matches)
def _as_like(element: Matches, compiler: Any, **more: Any) -> str:
    column, _, pattern = element.clauses
    return f"{compiler.process(column, **more)} LIKE {compiler.process(pattern, **more)}"


@compiles(Matches, "sqlite")
def _as_glob(element: Matches, compiler: Any, **more: Any) -> str:
    column, pattern, _ = element.clauses
    return f"{compiler.process(column, **more)} GLOB {compiler.process(pattern, **more)}"
