"""Probes and metrics of a process that is no web service: /livez, /readyz, /metrics on an internal port."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from chassis import metrics

Checks = Callable[[], dict[str, str]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a prober that did not wait for its answer: a process that was frozen meets one."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(host: str, port: int, ready: Checks) -> ThreadingHTTPServer:
    """Answer probes in a thread of its own until `shutdown()`.

    Args:
        host: address to bind.
        port: port to bind; 0 picks a free one (`server_address` tells).
        ready: gives check -> "ok" or what is wrong.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.split("?", 1)[0]
            if path == "/metrics":
                self._send(200, metrics.exposition(), metrics.CONTENT_TYPE)
            elif path in ("/livez", "/readyz", "/healthz"):
                checks = {} if path == "/livez" else ready()
                is_ready = all(state == "ok" for state in checks.values())
                self._send(200 if is_ready else 503, orjson.dumps({"ready": is_ready, "checks": checks}))
            else:
                self._send(404, b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing: a probe every second is no news."""

        def _send(self, status: int, content: bytes, content_type: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = _Server((host, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.2,), name="probes", daemon=True).start()
    return server
