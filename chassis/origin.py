"""Where the request that is being answered came from: handed on to other services, so that their audit names it too."""

from __future__ import annotations

from flask import has_request_context, request


def remote_ip() -> str:
    """Give the address of who asks; empty outside of a request."""
    return (request.remote_addr or "") if has_request_context() else ""
