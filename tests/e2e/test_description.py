"""Requests made of the OpenAPI description of a running installation: no 5xx, and every answer as declared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platform import Installation

pytestmark = pytest.mark.e2e

EXAMPLES = os.environ.get("HEADWATER_TEST_EXAMPLES", "4")  # a route; more find more
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# A websocket; what ends our own access; what waits as long as it is asked to.
LEFT_OUT = r"(/feed$|:password$|/v1/me/|/v1/operators/|:suspend$|/v1/commands/\{command_id\}$|/v1/device/commands$)"


def test_requests_made_of_the_description_are_answered_as_it_says(installation: Installation) -> None:
    program = str(Path(sys.executable).parent / "schemathesis")
    command = [
        program,
        "run",
        f"{installation.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {installation.token}",
    ]
    command += ["--phases", "fuzzing", "--mode", "all", "--max-examples", EXAMPLES, "--checks", CHECKS, "--seed", "1"]
    command += [
        "--exclude-path-regex",
        LEFT_OUT,
        "--workers",
        "2",
        "--generation-database",
        "none",
        "--warnings",
        "off",
    ]
    command += ["--suppress-health-check", "all", "--continue-on-failure", "--no-shrink", "--no-color"]

    told = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, cwd=installation.data.parent
    )

    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-1000:]
    assert " passed" in told.stdout
