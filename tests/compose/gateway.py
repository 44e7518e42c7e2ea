"""A stand-in gateway that records what it was asked, and the command line pointed at it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from compose.__main__ import main


class Gateway:
    """Answers by method and path; unknown paths are problems."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.problems: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((f"{self.command} {self.path}", content, self.headers.get("Authorization")))
                self._send(*outer.find(f"{self.command} {self.path}"))

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def _send(self, status: int, answer: Any) -> None:
                text = answer if isinstance(answer, str) else json.dumps(answer)
                body = b"" if answer is None else text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def find(self, asked: str) -> tuple[int, Any]:
        if asked in self.answers:
            return 200, self.answers[asked]
        if asked in self.problems:
            return self.problems[asked]
        return 404, {"code": "not_found", "status": 404, "detail": f"nothing at {asked}"}

    def body(self, number: int = -1) -> Any:
        return json.loads(self.asked[number][1])


def run(gateway: Gateway, *words: str) -> int:
    return main([*words, "--url", gateway.url, "--token", "ttt"])
