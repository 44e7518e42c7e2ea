"""The pages that the dashboard's routes declare, so that a test of all pages forgets none."""

from __future__ import annotations

import re

from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from tests.dashboard_api.fakes import SERVICE_TOKEN, FakePeer, MemoryReader, Platform

GATEWAY, TYPE = "page-gateway", "page-type"
EXAMPLES = {"<device_id>": GATEWAY, "<name>": TYPE}


def pages() -> list[str]:
    """Give their paths with examples in them; a part of a path that has none is a KeyError."""
    platform = Platform()
    ports = Ports(MemoryReader(), FakePeer(platform), FakePeer(platform))
    operations = assemble(DashboardConfig(service_token=SERVICE_TOKEN), ports).extensions["headwater.api"].operations
    rules = [each.rule for each in operations if each.method == "GET" and not re.match(r"/(v1|static)/", each.rule)]
    return sorted(re.sub(r"<\w+>", lambda part: EXAMPLES[part[0]], rule) for rule in rules)
