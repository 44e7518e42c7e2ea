"""Hosts, whatever their protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Host


@pytest.mark.parametrize("name", [name for name, protocol in PROTOCOLS.items() if protocol.host])
def test_host_does_all_that_a_service_asks_of_it(name: str, tmp_path: Path) -> None:
    host = PROTOCOLS[name].open_host(tmp_path)

    assert isinstance(host, Host)
    assert host.due().sayings == []
    host.commit()
    host.close()
