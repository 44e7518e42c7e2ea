"""Settings of the log-in by an OpenID Connect provider."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, Self, get_args

from pydantic import BaseModel, model_validator

from wire.devices import TENANT, Role


class OidcSettings(BaseModel):
    """How people log in by a provider; all of it off while `oidc_issuer` is empty."""

    oidc_issuer: str = ""  # as its discovery document says it; empty: no log-in by a provider
    oidc_client_id: str = ""
    oidc_client_secret: str = ""  # empty: a public client, which PKCE alone protects
    oidc_redirect_url: str = ""  # https://HOST/login/oidc/callback, as registered with the provider
    oidc_scopes: str = "openid profile email"
    oidc_accounts: Literal["invited", "anybody"] = "invited"  # who gets an account at the first log-in
    oidc_name_claim: str = "preferred_username"  # names new accounts of people who were not invited
    oidc_tenant_claim: str = ""  # names the tenant; empty: new accounts are in oidc_tenant
    oidc_tenant: str = TENANT
    oidc_role_claim: str = "groups"  # a text or a list; a dot goes down into an object
    oidc_roles: str = ""  # admin=iot-admins,viewer=staff: the highest that fits, at each log-in; empty: roles stay
    oidc_role: Role = "viewer"  # of new accounts of people who were not invited, while oidc_roles is empty

    @model_validator(mode="after")
    def check_oidc(self) -> Self:
        """Refuse half a configuration at the start, not at the first log-in."""
        if not self.oidc_issuer:
            return self
        if find_spec("authlib") is None:
            raise ValueError("oidc_issuer needs the extra: pip install 'headwater[oidc]'")
        if not self.oidc_client_id or not self.oidc_redirect_url:
            raise ValueError("oidc_issuer needs oidc_client_id and oidc_redirect_url")
        if "openid" not in self.oidc_scopes.split():
            raise ValueError("oidc_scopes must hold openid")
        read_roles(self.oidc_roles)
        return self


def read_roles(text: str) -> dict[str, Role]:
    """Read `admin=iot-admins,viewer=staff` into the role of each value of the claim.

    Raises:
        ValueError: it is not of that form.
    """
    roles: dict[str, Role] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, _, value = part.partition("=")
        if role not in get_args(Role) or not value:
            raise ValueError(f"oidc_roles: {part!r} is not ROLE=VALUE with a role of {', '.join(get_args(Role))}")
        roles[value] = role  # type: ignore[assignment] # one of Role, see above
    return roles
