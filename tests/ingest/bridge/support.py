"""A real mosquitto, a small real ingest service and the bridge as a process, for the bridge's tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from chassis.peers import HttpPeer
from ingest.bridge.config import BridgeConfig, Limits
from ingest.bridge.process import Bridge
from ingest.bridge.session import Session
from ingest.framing import Batch, Delivery, Ending, Verdict, decode_batch, encode_verdict
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
TOKEN = "service-token"
QUICK = Limits(retry_first_s=0.02, retry_most_s=0.1)


def config_for(broker: Broker, ingest: Ingest, **settings: str) -> BridgeConfig:
    return BridgeConfig(broker=broker.address, ingest_url=ingest.url, **settings)


@contextmanager
def running(config: BridgeConfig, session: type[Session] = Session, limits: Limits = QUICK) -> Iterator[Bridge]:
    peers: list[HttpPeer] = []

    def connect(url: str) -> HttpPeer:
        peers.append(HttpPeer(url, "service-token"))
        return peers[-1]

    bridge = Bridge(config, limits, connect, session)
    bridge.start()
    try:
        yield bridge
    finally:
        bridge.stop()
        for peer in peers:
            peer._pool.clear()


class Broker(Mosquitto):
    """Debian's mosquitto with the settings of the product."""

    def __init__(self, folder: Path, **settings: object) -> None:
        lines = {
            "allow_anonymous": "true", "persistence": "true",
            "persistence_location": f"{folder}/", "autosave_on_changes": "true", "autosave_interval": 100,
            "max_queued_messages": 10_000_000, "max_inflight_messages": 20_000, "persistent_client_expiration": "7d",
            "sys_interval": 1, "log_dest": f"file {folder}/log", "log_type": "all",
        } | settings  # fmt: skip
        super().__init__(folder, *(f"{name} {value}" for name, value in lines.items()))

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def forget(self) -> None:
        (self.folder / "mosquitto.db").unlink(missing_ok=True)

    def log(self) -> str:
        return (self.folder / "log").read_text()


class Ingest:
    """An ingest service that records what it took; `behave` decides each answer: a verdict, or (status, body)."""

    def __init__(self, port: int = 0) -> None:
        self.taken: list[Delivery] = []  # in the order of acceptance, also copies
        self.batches: list[int] = []
        self.behave: Callable[[Batch], Verdict | tuple[int, bytes]] = take_all
        self.release = threading.Event()  # ends an answer that hangs
        self._lock = threading.Lock()
        self._server = _server(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def answer(self, batch: Batch) -> tuple[int, bytes]:
        with self._lock:
            self.batches.append(len(batch.deliveries))
        said = self.behave(batch)
        if isinstance(said, tuple):
            return said
        kept = {ending.index for ending in said.endings if ending.end == "deferred"}
        with self._lock:
            self.taken += [each for index, each in enumerate(batch.deliveries) if index not in kept]
        return 200, encode_verdict(said)

    def hang(self, batch: Batch) -> tuple[int, bytes]:
        self.release.wait(30)
        return 503, b""

    def payloads(self) -> Counter[bytes]:
        with self._lock:
            return Counter(each.payload for each in self.taken)

    def by_device(self) -> dict[str, list[int]]:
        """The numbers each device's messages carry, as accepted, later copies left out."""
        found: dict[str, dict[int, None]] = defaultdict(dict)
        with self._lock:
            for each in self.taken:
                found[each.device][json.loads(each.payload)["n"]] = None
        return {device: list(numbers) for device, numbers in found.items()}

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def take_all(batch: Batch) -> Verdict:
    return Verdict(len(batch.deliveries))


def defer_if(wanted: Callable[[Delivery], bool]) -> Callable[[Batch], Verdict]:
    """Answer `deferred` to all messages of a device from the first one that is wanted."""

    def behave(batch: Batch) -> Verdict:
        late = {each.device for each in batch.deliveries if wanted(each)}
        endings = [Ending(i, "deferred") for i, each in enumerate(batch.deliveries) if each.device in late]
        return Verdict(len(batch.deliveries) - len(endings), endings)

    return behave


def _server(ingest: Ingest, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            is_ours = self.path == "/internal/batch" and self.headers["Authorization"] == f"Bearer {TOKEN}"
            status, body = ingest.answer(decode_batch(content)) if is_ours else (401, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a killed bridge breaks its connection

    return Server(("127.0.0.1", port), Handler)


class BridgeProcess:
    """The bridge as its own process, to be killed; `mutation` names a safeguard to take out (runner.py)."""

    def __init__(self, broker: Broker, ingest: Ingest, *, mutation: str = "none", **limits: object) -> None:
        self.environ = os.environ | {
            "HEADWATER_BROKER": broker.address, "HEADWATER_INGEST_URL": ingest.url, "HEADWATER_PORT": "0",
            "HEADWATER_SERVICE_TOKEN": TOKEN, "HEADWATER_BROKER_PID_FILE": str(broker.pid_file),
            "HEADWATER_CONFIG": "/dev/null", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self._arguments = [mutation, json.dumps(limits)]
        self._log = broker.folder / "bridge.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> BridgeProcess:
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        runner = str(Path(__file__).parent / "runner.py")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, runner, *self._arguments], env=self.environ, stderr=log, cwd=self._log.parent
            )
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        code = self._process.wait(15)
        self._process = None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, within_s: float) -> int:
        assert self._process is not None
        code = self._process.wait(within_s)
        self._process = None
        return code

    def wait_ready(self) -> BridgeProcess:
        """Wait until this start of the process (not an earlier one) has subscribed."""
        wait_until(lambda: "subscribed" in self.events_of_last_start(), what="subscribed")
        return self

    def events_of_last_start(self) -> list[str]:
        return [line["event"] for line in self._lines(self._log_start)]

    def probe_port(self) -> int:
        return [line["probes"] for line in self._lines(self._log_start) if line["event"] == "started"][-1]

    def events(self) -> list[str]:
        return [line["event"] for line in self._lines(0)]

    def _lines(self, start: int) -> list[dict[str, object]]:
        lines = self._log.read_bytes()[start:].splitlines() if self._log.exists() else []
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


class Publisher:
    """A good device gateway: QoS 1, keeps what was not acknowledged and sends it again after a reconnect."""

    def __init__(self, broker: Broker) -> None:
        self.acked: list[bytes] = []
        self._sent: list[tuple[int, bytes]] = []
        self._acked_mids: set[int] = set()  # by callback: paho's own is_published raises after a publish while away
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="publisher", clean_session=False)
        self.client.on_publish = lambda _client, _userdata, mid, _code, _properties: self._acked_mids.add(mid)
        self.client.max_inflight_messages_set(100)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def send(self, device: str, payload: bytes, *, topic: str | None = None, qos: int = 1) -> None:
        sent = self.client.publish(topic or f"devices/{device}/telemetry", payload, qos)
        self._sent.append((sent.mid, payload))

    def send_numbers(self, count: int, devices: int = 10, first: int = 0) -> None:
        for number in range(first, first + count):
            self.send(f"d{number % devices}", b'{"n":%d}' % number)

    def wait_acked(self, within_s: float = 30.0) -> list[bytes]:
        """Give the payloads that the broker acknowledged, all of them."""
        wait_until(
            lambda: all(mid in self._acked_mids for mid, _ in self._sent), within_s, "acknowledged by the broker"
        )
        self.acked = [payload for _, payload in self._sent]
        return self.acked

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Give certificate and key of a server at 127.0.0.1, who has signed it himself."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key
