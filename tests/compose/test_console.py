"""Lines on the terminal."""

from __future__ import annotations

import io
import json
import threading
import time

from compose.console import Console


def written(*lines: tuple[str, str], style: str = "auto", colours: bool = False) -> str:
    stream = io.StringIO()
    console = Console(stream, style=style, colours=colours)
    for name, text in lines:
        console.line(name, text)
    console.close()
    return stream.getvalue()


def test_lines_carry_the_name_of_their_process() -> None:
    assert written(("bridge", "a"), ("ingest-json", "b")) == "bridge      | a\ningest-json | b\n"


def test_names_have_colours_in_a_terminal_only() -> None:
    assert "\x1b[36mbridge     \x1b[0m | a" in written(("bridge", "a"), colours=True)
    assert "\x1b" not in written(("bridge", "a"))


def test_json_style_keeps_json_lines_and_wraps_others() -> None:
    own = '{"service":"devices","event":"x"}'

    first, second = written(("devices", own), ("broker", 'say "hi"'), style="json").splitlines()

    assert first == own
    assert json.loads(second).items() >= {"service": "broker", "event": 'say "hi"'}.items()


def test_paused_terminal_stops_nobody() -> None:
    released = threading.Event()

    class Paused(io.StringIO):
        def write(self, text: str) -> int:
            released.wait(10)
            return super().write(text)

    stream = Paused()
    console = Console(stream)
    began = time.monotonic()
    for _ in range(15_000):
        console.line("bridge", "x")
    took = time.monotonic() - began
    released.set()
    while "left out" not in stream.getvalue():
        assert time.monotonic() < began + 10
        console.line("bridge", "last")
    console.close()

    assert took < 5
    assert "log lines left out" in stream.getvalue()
