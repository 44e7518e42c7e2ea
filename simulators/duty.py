"""What one process of a crew does: takes its order, runs its squad, says how far it is, stops when told."""

from __future__ import annotations

import asyncio
import sys
from typing import BinaryIO

from simulators.crew import pack, unpack
from simulators.file_limit import raise_file_limit
from simulators.outbox import Keep
from simulators.platform_api import PlatformError
from simulators.squad import Order, Squad

_EVERY_S = 0.5


async def work(output: BinaryIO) -> None:
    """Serve the order that comes on standard input."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    order: Order = await unpack(commands)
    try:
        raise_file_limit(len(order.members))
        squad = Squad(order, _teller(output) if order.options.credentials else None)
        helpers = [asyncio.create_task(_obey(commands, squad)), asyncio.create_task(_tell(output, squad))]
        tally = await squad.run()
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
    except (OSError, ValueError, PlatformError) as error:
        _send(output, pack((True, str(error))))
        return
    _send(output, pack((True, tally)))


async def _obey(commands: asyncio.StreamReader, squad: Squad) -> None:
    await commands.read(1)  # a command to stop, or the end: both mean that
    squad.stop()


async def _tell(output: BinaryIO, squad: Squad) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        _send(output, pack((False, squad.tally())))


def _teller(output: BinaryIO) -> Keep:
    return lambda login: _send(output, pack((False, login)))


def _send(output: BinaryIO, message: bytes) -> None:
    output.write(message)
    output.flush()
