"""The README as a stranger follows it: its shell blocks are run, on the ports and in the folder of an installation."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from compose.__main__ import build_parser
from tests.e2e.platform import Installation
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
LINES = [line for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
         for line in block.replace("\\\n", "").splitlines()]  # fmt: skip
COMMANDS = [line for line in LINES if line.startswith("headwater ")]


def blocks(heading: str) -> list[str]:
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@pytest.mark.e2e
def test_first_device_of_the_readme_works_as_printed(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "data").symlink_to(installation.data)

    def run(text: str) -> str:
        here = text.replace(":8080/", f":{installation.port}/").replace("-p 1883", f"-p {installation.mqtt}")
        command = ["bash", "-e", "-O", "expand_aliases", "-c", here]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout

    register, over_mqtt, over_http, back_out = blocks("Your first device")
    printed = run(register.replace("SECRET=...", ""))
    secret = re.search(r"^Secret\s+(\S{40,})", printed)
    assert secret, printed
    assert register.count("SECRET=...") == 1
    secret_line = f"SECRET={secret[1]}\n"
    wait_until(lambda: _succeeds(run, secret_line + over_mqtt), 5, every_s=0.2, what="the broker takes the device")

    assert json.loads(run(secret_line + over_http)) == {"accepted": 1, "quarantined": []}

    def fields() -> object:
        return [point["fields"] for point in json.loads(run(back_out))["points"]]

    wait_until(lambda: fields() and len(installation.points("d1")) == 2, 10, what="both readings")
    assert {name for each in json.loads(run(back_out))["points"] for name in each["fields"]} == {"temp", "door_open"}


def test_commands_of_the_pages_are_known_with_all_their_flags() -> None:
    assert len(COMMANDS) > 4
    for line in COMMANDS:
        words = shlex.split(line.partition(" > ")[0], comments=True)[1:]  # where its output goes is the shell's

        assert hasattr(build_parser(words[0]).parse_args(words), "run"), line


def test_programs_of_the_pages_are_there() -> None:
    programs = {words[0] for line in LINES if (words := shlex.split(line, comments=True)) and "=" not in words[0]}
    files = {program for program in programs if program.startswith("./")}

    assert {"./run", "./test"} <= files
    assert sorted(name for name in files if not (ROOT / name).exists()) == []
    modules = re.findall(r"python -m (\S+)", "\n".join(LINES))
    assert sorted(name for name in modules if not (ROOT / (name.replace(".", "/") + ".py")).exists()) == []


def _succeeds(run: Callable[[str], str], text: str) -> bool:
    try:
        run(text)
    except subprocess.CalledProcessError:  # within two seconds the broker knows a new device
        return False
    return True
