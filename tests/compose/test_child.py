"""A supervised process' readiness probe."""

from __future__ import annotations

import asyncio

import pytest

from compose import ports
from compose.child import Child, Spec

TURNS = 12  # of the event loop; a refused connection takes 7


@pytest.mark.parametrize("turns", range(TURNS))
def test_watch_over_a_process_that_ends_can_be_cancelled_at_any_moment(turns: int) -> None:
    """The probe of a process that was just killed fails at the very moment at which its watch is given up."""

    async def give_up() -> bool:
        spec = Spec("gone", ["true"], ready=f"tcp://127.0.0.1:{ports.pick()}")
        watching = asyncio.create_task(Child(spec, lambda _name, _line: None).wait_ready())
        for _ in range(turns):
            await asyncio.sleep(0)
        watching.cancel()
        return bool((await asyncio.wait({watching}, timeout=1.0))[0])

    assert asyncio.run(give_up())
