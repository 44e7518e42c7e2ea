"""Topic claims: topics of other systems' devices that belong to one device each. Models, and what follows from them.

An MQTT subscriber cannot see who published, so the broker lets only the claiming device use the topics of its claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, Field

from wire import filters
from wire.declared import DECLARED
from wire.devices import DeviceId, Model, Name
from wire.points import TimeNs
from wire.protocols import NONE, Topics

MAX_BYTES = 256
MAX_LEVELS = 32  # mosquitto refuses its whole access list for one filter of more than 200
OWN_ROOTS = ("devices", "headwater")
# Control characters and those that are no characters: mosquitto takes neither (MQTT 5.0 s. 1.5.4).
_ENDS_OF_PLANES = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
_ODD = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_ENDS_OF_PLANES}]")


FAMILIES: Final[dict[str, Topics]] = {name: each.topics for name, each in DECLARED.items() if each.topics.up}


def check_filter(text: str) -> str:
    """Give a filter back when it can be claimed.

    Raises:
        ValueError: it is no filter, not of one family, or cannot be written into every broker's access list.
    """
    levels = filters.check(text).split("/")
    if levels[0] in ("+", "#", *OWN_ROOTS) or levels[0].startswith("$"):
        raise ValueError("a claim begins with a literal level that is not devices, headwater or $...")
    if len(text.encode()) > MAX_BYTES or len(levels) > MAX_LEVELS:
        raise ValueError(f"a claim has at most {MAX_BYTES} bytes and {MAX_LEVELS} levels")
    if _ODD.search(text):
        raise ValueError("a claim holds no control characters")
    if text != text.strip(" ") or text.startswith("eq ") or "${" in text:  # mosquitto cuts blanks off; EMQX's words
        raise ValueError("a claim neither begins nor ends with a blank, does not begin with `eq `, and holds no `${`")
    return text


def _check_protocol(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"only protocols with topics of their own can be claimed for: {', '.join(sorted(FAMILIES))}")
    return name


Filter = Annotated[str, AfterValidator(check_filter)]


class NewClaim(Model):
    """A claim to make."""

    filter: Filter
    protocol: Annotated[Name, AfterValidator(_check_protocol)]


class ClaimView(BaseModel):
    """A claim of a device."""

    device: str
    filter: str
    protocol: str
    since: TimeNs


class ClaimList(BaseModel):
    """All claims of a device, in order of their filters."""

    items: list[ClaimView]


class ClaimPage(BaseModel):
    """Claims of a tenant in order of their filters; `next` is the cursor of the following page."""

    items: list[ClaimView]
    next: str | None


class Claim(NamedTuple):
    """A claim as services hold it."""

    filter: str
    protocol: str
    device: DeviceId


class Claims(Model):
    """All claims of the installation (internal)."""

    claims: Annotated[list[Claim], Field(max_length=1_000_000)]


def heard(claims: Iterable[Claim]) -> list[str]:
    """Give the filters that hold all that claiming devices say: what the bridge subscribes to, in order."""
    return _fewest({wide for claim in claims for wide in _around(claim) if not _is_down(claim)})


def asked(claims: Iterable[Claim]) -> list[str]:
    """Give the filters on which the bridge publishes what ingestion services ask of claiming devices."""
    families = {claim.protocol for claim in claims} & FAMILIES.keys()
    return sorted(each for name in families for each in FAMILIES[name].asked)


def told(claimed: Iterable[str]) -> list[str]:
    """Give the filters of what devices with these claims are told beside what is their own."""
    mine = list(claimed)
    found = (family for family in FAMILIES.values() if family.told and any(_is_of(each, family) for each in mine))
    filters_told = [each for family in found for each in family.told]
    return [each for each in filters_told if not any(filters.covers(own, each) for own in mine)]


def reached(claims: Iterable[Claim]) -> list[str]:
    """Give the filters that hold all topics of claims, also those on which devices are only told something."""
    return _fewest({wide for claim in claims for wide in _around(claim)})


def stands_alone(claim: Claim) -> bool:
    """Tell whether a claim lies outside its protocol's family: the bridge needs a subscription for it alone."""
    family = FAMILIES.get(claim.protocol, NONE)
    return not any(filters.covers(wide, claim.filter) for wide in (*family.up, *family.down))


def is_ordered(text: str) -> bool:
    """Tell whether one bridge must hear all of a filter."""
    return any(filters.covers(wide, text) for family in FAMILIES.values() if family.is_ordered for wide in family.up)


def _is_of(filter_: str, family: Topics) -> bool:
    return any(filters.covers(wide, filter_) for wide in family.up)


def _around(claim: Claim) -> list[str]:
    family = FAMILIES.get(claim.protocol, NONE)
    found = [wide for wide in (*family.up, *family.down) if filters.covers(wide, claim.filter)]
    return found[:1] or [claim.filter]


def _is_down(claim: Claim) -> bool:
    family = FAMILIES.get(claim.protocol, NONE)
    is_up = any(filters.covers(wide, claim.filter) for wide in family.up)
    return not is_up and any(filters.covers(wide, claim.filter) for wide in family.down)


def _fewest(found: set[str]) -> list[str]:
    """Leave out what another of them covers."""
    return sorted(one for one in found if not any(wide != one and filters.covers(wide, one) for wide in found))
