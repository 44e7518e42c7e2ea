"""A headless Chromium for the tests: pages opened, looked at and photographed over its debugging protocol."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import urllib3
import websocket

from chassis.web import SESSION_COOKIE
from tests.support.waiting import wait_until

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
         "--remote-allow-origins=*", "--disable-dev-shm-usage")  # fmt: skip


class CallError(AssertionError):
    """What the browser answers to a call that it does not do."""


class Browser:
    """One Chromium process with a profile of its own, and one tab."""

    def __init__(self, profile: Path) -> None:
        argv = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = profile / "DevToolsActivePort"
        wait_until(lambda: told.exists() and "\n" in told.read_text(), 30, "Chromium")
        port = told.read_text().split("\n")[0]
        with urllib3.PoolManager() as http:
            tabs = wait_until(lambda: http.request("GET", f"http://127.0.0.1:{port}/json/list").json(), 20, "a tab")
        tab = next(tab for tab in tabs if tab["type"] == "page")
        self._socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=30)
        self._last_id = 0
        self.console: list[str] = []  # errors and refusals that the page reported
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> Any:
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": given}))
        while True:
            message = json.loads(self._socket.recv())
            self._note(message)
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise CallError(message)
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        found = message.get("params", {})
        if message.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.console.append(found["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(found["exceptionDetails"])[:500])

    def log_in(self, url: str, token: str) -> None:
        self.call("Network.setCookie", url=url, name=SESSION_COOKIE, value=token, httpOnly=True, sameSite="Strict")

    def shape(self, width: int, height: int = 900, *, dark: bool = False, scripts: bool = True) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        wait_until(
            lambda: self._try("document.readyState") == "complete" and self._try("location.href") != "about:blank"
        )

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def html(self) -> str:
        """Give the document as it stands, also where scripts are off; empty while it is being replaced."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        try:
            html: str = self.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
        except CallError:
            return ""
        return html

    def until(self, script: str, timeout_s: float = 10.0) -> Any:
        return wait_until(lambda: self._try(script), timeout_s, script)

    def _try(self, script: str) -> Any:
        try:
            return self.run(script)
        except CallError:  # the page was just then replaced by another
            return None

    def photograph(self, path: Path, *, whole: bool = True) -> None:
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(10)
