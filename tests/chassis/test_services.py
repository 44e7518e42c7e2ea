from __future__ import annotations

import pytest

from chassis.services import Services, read_listing
from chassis.tokens import hash_token
from wire.errors import Forbidden, Unauthorized

LISTING = "".join(f"{name} {hash_token(f'token-of-{name}')}\n" for name in ("bridge-2", "ingest-json", "writer"))


def test_service_is_let_in_where_it_has_business() -> None:
    services = Services(LISTING)

    services.demand("token-of-bridge-2", ("bridge",))
    services.demand("token-of-ingest-json", ("writer", "ingest"))


def test_service_is_refused_elsewhere() -> None:
    with pytest.raises(Forbidden, match="is for bridge; the token is of writer") as refused:
        Services(LISTING).demand("token-of-writer", ("bridge",))

    assert refused.value.code == "wrong_service"


@pytest.mark.parametrize("token", ["", "x", "shared", hash_token("token-of-writer"), "token-of-writer\ud800"])
def test_others_are_nobody(token: str) -> None:
    with pytest.raises(Unauthorized):
        Services(LISTING, "shared").demand(token, ("writer",))


def test_route_without_callers_is_for_nobody() -> None:
    with pytest.raises(Forbidden):
        Services(LISTING).demand("token-of-writer", ())


def test_one_shared_token_serves_where_there_is_no_listing() -> None:
    Services("", "shared").demand("shared", ("writer",))

    for services in (Services("", "shared"), Services("", "")):
        with pytest.raises(Unauthorized):
            services.demand("", ("writer",))


@pytest.mark.parametrize("text", ["writer", "writer abc", "writer  \n bridge"])
def test_odd_listing_is_no_listing(text: str) -> None:
    with pytest.raises(ValueError, match="NAME SHA256"):
        read_listing(text)
