"""The gateway's file: nginx.conf from the template beside this module, with its problem documents."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compose.broker import checked_path, fill
from compose.config import LOOPBACK, UpConfig, join, near
from compose.folder import Folder, write_private
from ingest.protocols import PROTOCOLS, SERVICES, Protocol
from wire.errors import BadRequest, HeadwaterError, NotFound, RetryLater, TooLarge, TooManyRequests, Unavailable

TEMPLATE = Path(__file__).with_name("gateway.conf")
IN_FLIGHT = 256  # telemetry requests in the service at once: a third of a second's worth on a small, busy machine
KEPT_OPEN = IN_FLIGHT  # connections to the service of most devices, when they are idle
OF_ONE_DEVICE = 8  # of these: a device that sends without measure must not take the places of the others
_SECRET = re.compile(r"(/api/v1/|[?&](?:p|%70)=)[^/?&\s\"]+", re.IGNORECASE)
RETRY_AFTER_S = 1  # a restarted service is back sooner than this on any machine
LOG_LEVELS = {"debug": "info", "info": "error", "warning": "crit", "error": "crit"}  # `error` is a line per request


def write(folder: Folder, config: UpConfig, ports: Mapping[str, int]) -> Path:
    """Write the configuration; `ports` names the gateway's and those of the services. Give its path."""
    values = {
        "USER": "user root root;" if os.geteuid() == 0 else "",
        "LOG_LEVEL": LOG_LEVELS[config.log_level],
        "INGEST_JSON": str(ports["ingest-json"]),
        "TELEMETRY": _telemetry(ports),
        "DIALECTS": _dialects(),
        "OF_ONE_DEVICE": str(OF_ONE_DEVICE),
        "HOSTS": _hosts(config),
        "MEDIA": str(config.media_limit_bytes + 1),  # so that the service says which limit was passed
        "DEVICES": str(ports["devices"]),
        "DASHBOARD": str(ports["dashboard"]),
        "LISTEN": _listen(config, ports),
        "PROBLEMS": _problems(),
    }
    shed_file(folder).unlink(missing_ok=True)
    path = folder.gateway / "nginx.conf"
    write_private(path, fill(TEMPLATE.read_text(), values))
    return path


def shed_file(folder: Folder) -> Path:
    """Give the file that gets a line for each telemetry request the gateway refused, from the start on."""
    return folder.gateway / "shed.log"


def hide_secrets(line: str) -> str:
    """Take out of a line of nginx what devices may have to say in a path or query; it quotes requests that fail."""
    return _SECRET.sub(r"\1...", line)


def near_url(config: UpConfig, ports: Mapping[str, int]) -> str:
    """Give the URL at which this machine reaches the gateway without a certificate's name in the way."""
    if config.has_tls:
        return f"http://{LOOPBACK}:{ports['gateway-near']}"
    return f"http://{join(near(config.bind), ports['gateway'])}"


def _listen(config: UpConfig, ports: Mapping[str, int]) -> str:
    address = join(config.bind, ports["gateway"])
    if config.tls_cert is None or config.tls_key is None:
        return f"listen {address} backlog=1024;"
    return "\n        ".join(
        (
            f"listen {address} ssl backlog=1024;",
            f"listen {LOOPBACK}:{ports['gateway-near']};",
            f'ssl_certificate "{checked_path(config.tls_cert)}";',
            f'ssl_certificate_key "{checked_path(config.tls_key)}";',
            "ssl_verify_client optional_no_ca;",
            "ssl_protocols TLSv1.2 TLSv1.3;",
            "ssl_session_cache shared:tls:4m;",
        )
    )


def _telemetry(ports: Mapping[str, int]) -> str:
    """Give the ingestion services, and which of them a request to /v1/telemetry is for: by its path, or by its type."""
    blocks = [
        f"    upstream telemetry-{service} {{ server {LOOPBACK}:{ports[f'ingest-{service}']} max_conns={IN_FLIGHT};"
        f" keepalive {KEPT_OPEN if service == SERVICES[0] else KEPT_OPEN // 8}; keepalive_requests 100000; }}"
        for service in SERVICES
    ]
    ways = [f"        default telemetry-{SERVICES[0]};"]
    for protocol in PROTOCOLS.values():
        if protocol.service != SERVICES[0]:
            ways.append(f'        "~^/v1/telemetry/{protocol.name}[ /]" telemetry-{protocol.service};')
            types = "|".join(map(re.escape, protocol.media_types))
            ways += [f'        "~*^/v1/telemetry ({types}) *(;|$)" telemetry-{protocol.service};'] if types else []
    return "\n".join([*blocks, '    map "$uri $content_type" $telemetry_service {', *ways, "    }"])


def _dialects() -> str:
    """Give the paths that clients of other systems post to."""
    return "\n".join(
        f"        location {'' if path.endswith('/') else '= '}{path} {{ limit_conn senders {OF_ONE_DEVICE};"
        f"{_own_words(protocol, path)} proxy_pass http://telemetry-{protocol.service}; }}"
        for protocol in PROTOCOLS.values()
        for path in protocol.paths
    )


def _own_words(protocol: Protocol, path: str) -> str:
    """Have what the gateway refuses on a path said in the words of its clients."""
    pages = (f" error_page {statuses} = /.problem/{name}{path};" for name, statuses, _ in _told() if protocol.refusal)
    return "".join(pages)


def _hosts(config: UpConfig) -> str:
    """Give a pattern of the hosts that a request may name: the trusted ones, else whatever is a host."""
    if not config.trusted_hosts:
        return r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?"
    return "(" + "|".join(re.escape(host).replace("\\-", "-") for host in config.trusted_hosts) + ")"


def _told() -> tuple[tuple[str, str, HeadwaterError], ...]:
    """Give what is refused once it is known which path a request is for: name, nginx' statuses, what is said."""
    too_slow = HeadwaterError("the request took too long to arrive", code="too_slow")
    too_slow.status = 408
    return (
        ("bad_request", "400 501", BadRequest("the request cannot be read")),
        ("too_slow", "408", too_slow),
        ("too_large", "413", TooLarge("the body is larger than this path takes")),
        ("too_many", "429", TooManyRequests(f"more than {OF_ONE_DEVICE} requests of this device at once")),
        ("unavailable", "502 503 504", Unavailable("a service does not answer now; nothing was kept: try again")),
    )


def _problems() -> str:
    blocks = [_problem(name, error.status, error) for name, _, error in _told()] + [
        _problem("plain_http", 400, BadRequest("this port speaks HTTPS: begin the address with https://")),
        _problem("uri_too_long", 414, HeadwaterError("the request line is too long", code="uri_too_long")),
        _problem("header_too_large", 431, HeadwaterError("the headers are too large", code="header_too_large")),
        _problem("hidden", 404, NotFound("no such path")),
    ]
    for protocol in PROTOCOLS.values():
        for path in protocol.paths if protocol.refusal else ():
            blocks += [_answer(f"{name}{path}", *protocol.word(error, path)) for name, _, error in _told()]
    return "\n".join(blocks)


def _problem(name: str, status: int, error: HeadwaterError) -> str:
    error.status = status
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, RetryLater) else {}
    return _answer(name, status, error.to_problem(), headers, "application/problem+json")


def _answer(
    name: str, status: int, content: Mapping[str, Any], own: Mapping[str, str], kind: str = "application/json"
) -> str:
    body = json.dumps(content, separators=(",", ":"))
    assert not {"'", "$", "\\"} & set(body + "".join(own.values()))  # nginx would read on
    added = "".join(f'add_header {header} "{value}" always; ' for header, value in own.items())
    headers = f"default_type {kind}; {added}add_header Cache-Control no-store always;"
    return f"        location = /.problem/{name} {{ internal; {headers} return {status} '{body}'; }}"
