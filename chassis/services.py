"""The platform's services among themselves: each shows a token of its own, and is known by its hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from chassis.tokens import hash_token, is_same
from wire.errors import Forbidden, Unauthorized

SHA256_LENGTH = 64


def read_listing(listing: str) -> dict[str, str]:
    """Read `name sha256` in each line into the kind of service of each hash.

    Raises:
        ValueError: it is no such listing.
    """
    words = listing.split()
    names, hashes = words[::2], words[1::2]
    if len(names) != len(hashes) or not all(len(each) == SHA256_LENGTH for each in hashes):
        raise ValueError("must be `NAME SHA256` of each service, in lines")
    return {sha256: kind_of(name) for name, sha256 in zip(names, hashes, strict=True)}


def _checked(listing: str) -> str:
    read_listing(listing)
    return listing


ServiceList = Annotated[str, AfterValidator(_checked)]  # a setting


def kind_of(name: str) -> str:
    """Give the kind of a process by its name: `bridge-2` is a bridge, `ingest-json` an ingest."""
    return name.partition("-")[0]


class Services:
    """Which services may call, by their tokens."""

    def __init__(self, listing: str, shared: str = "") -> None:
        """Take a ServiceList; without one, `shared` is the token that all services show, for everything."""
        self._kinds = read_listing(listing)
        self._shared = "" if self._kinds else shared

    def demand(self, token: str, callers: Sequence[str]) -> None:
        """Refuse whoever is none of the services that a route is for.

        Raises:
            Unauthorized: no token of a service.
            Forbidden: that of a service which has no business there.
        """
        if is_same(token, self._shared):
            return
        # Looked up by its hash: how long that takes tells nothing of a token.
        kind = self._kinds.get(hash_token(token)) if token else None
        if kind is None:
            raise Unauthorized("this route is for the platform's own services")
        if kind not in callers:
            raise Forbidden(f"this route is for {', '.join(callers)}; the token is of {kind}", code="wrong_service")
