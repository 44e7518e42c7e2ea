"""Flask's app without what no service asks of it: it knows nothing of our routes and answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.routing import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class _Rule(Rule):
    """A route that is matched and never written out: Werkzeug's builders of its URL were half of a service's start."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: ARG002
        return _write_out


def _write_out(rule: Rule, **_values: Any) -> tuple[str, str]:
    raise NotImplementedError(f"the URL of {rule.rule}: pages name their addresses themselves")


class App(Flask):
    """Takes over who asks, and starts a request's clock."""

    url_rule_class = _Rule

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Start the clock, and take over who asks: the gateway puts its own entry last."""
        environ["headwater.start_s"] = time.perf_counter()
        for header, name in (("HTTP_X_FORWARDED_FOR", "REMOTE_ADDR"), ("HTTP_X_FORWARDED_PROTO", "wsgi.url_scheme")):
            if environ.get(header):
                environ[name] = environ[header].rpartition(",")[2].strip()
        return super().wsgi_app(environ, start_response)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Give the function back: none of ours is a coroutine, and Flask looks four times a request."""
        return func
