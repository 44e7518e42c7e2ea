"""Progress: one live line in a terminal, whole lines elsewhere."""

from __future__ import annotations

import io

from simulators.journal import Journal
from simulators.progress import Progress
from tests.simulators.fakes import message


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_names_what_matters() -> None:
    journal = Journal()
    outgoing = message(1)
    outgoing.sent_at = 1.0
    journal.sent(outgoing)
    journal.error("reconnects")
    journal.error("http_503")

    line = Progress(io.StringIO(), journal)._line(3)

    assert line.startswith("sent 1  acked 0  ")
    assert "waiting 3  reconnects 1  errors 1" in line


def test_terminal_line_is_replaced_and_text_keeps_its_own() -> None:
    plain, terminal = io.StringIO(), Terminal()

    Progress(plain, Journal()).say("hello")
    Progress(terminal, Journal()).say("hello")

    assert plain.getvalue() == "hello\n"
    assert terminal.getvalue() == "\r\x1b[2Khello\n"
