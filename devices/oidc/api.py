"""Routes by which the pages let somebody log in by the provider. HTTP in and out, no rules."""

from __future__ import annotations

from chassis.web import Api, Call
from devices.oidc.service import SignOn
from wire.errors import NotFound
from wire.people import OidcBegin, OidcBegun, OidcFinish, OidcLeft, OidcSession


def add_routes(api: Api, sign_on: SignOn | None) -> None:
    """Declare the routes; without a provider all of them answer 404."""

    def there() -> SignOn:
        if sign_on is None:
            raise NotFound("there is no log-in by a provider here")
        return sign_on

    @api.route("POST", "/internal/oidc:begin", "service", callers=("dashboard",), body=OidcBegin)
    def begin(call: Call) -> OidcBegun:
        """Give the provider's address for a log-in, and what the browser has to bring back."""
        return there().begin(call.body)

    @api.route("POST", "/internal/oidc:finish", "service", callers=("dashboard",), body=OidcFinish)
    def finish(call: Call) -> OidcSession:
        """Check what a browser brought back from the provider and begin a session."""
        return there().finish(call.body)

    @api.route("GET", "/internal/oidc:leave", "service", callers=("dashboard",))
    def leave(_call: Call) -> OidcLeft:
        """Give the address at which somebody logs out at the provider too."""
        return OidcLeft(url=there().leave())
