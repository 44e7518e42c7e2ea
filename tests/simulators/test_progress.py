"""Progress: one live line in a terminal, whole lines elsewhere."""

from __future__ import annotations

import io
from collections import Counter

from simulators.progress import Progress
from simulators.tally import Tally


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_names_what_matters() -> None:
    tally = Tally(sent=1, waiting=3, errors=Counter(reconnects=1, http_503=1))

    line = Progress(io.StringIO())._line(tally)

    assert line.startswith("sent 1  acked 0  ")
    assert "waiting 3  reconnects 1  errors 1" in line


def test_terminal_line_is_replaced_and_text_keeps_its_own() -> None:
    plain, terminal = io.StringIO(), Terminal()

    Progress(plain).say("hello")
    Progress(terminal).say("hello")

    assert plain.getvalue() == "hello\n"
    assert terminal.getvalue() == "\r\x1b[2Khello\n"
