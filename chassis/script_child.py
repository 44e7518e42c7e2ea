"""The process that runs people's scripts: a line of JSON in, a line of JSON out, a fresh engine for each.

Started by `chassis.scripts` as a file of its own; it imports nothing of ours. QuickJS's own limits of time and memory
come first. Some of its built-in functions never look at the clock, so a timer of CPU time ends the process then: time
that it waits for its turn on a busy machine does not count. It can open neither files nor sockets.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

import quickjs

STACK_BYTES = 256 * 1024
ADDRESS_SPACE_BYTES = 512 * 1024 * 1024  # beside QuickJS's own count of what a script takes
GRACE_S = 0.1
# Debug output that scripts written for other platforms have.
PRELUDE = "var console={log(){},info(){},warn(){},error(){},debug(){}};"


def main() -> None:
    """Answer until nobody asks any more."""
    lock_up()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, 2 * asked["time_ms"] / 1000 + GRACE_S)
        answer = run(asked)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def lock_up() -> None:
    """Give up what a script that broke out of its engine would want."""
    for kind, most in (
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
    ):
        resource.setrlimit(kind, (most, most))


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a script, then an expression; give its value, a text, or why there is none."""
    context = quickjs.Context()
    context.set_memory_limit(asked["memory_kib"] * 1024)
    context.set_max_stack_size(STACK_BYTES)
    context.set_time_limit(asked["time_ms"] / 1000)
    try:
        context.eval(PRELUDE)
        context.eval(asked["text"])
        value = context.eval(asked["call"])
    except quickjs.JSException as error:
        return {"fault": str(error)}
    except Exception as error:  # a message that is no text, no memory for one
        return {"fault": type(error).__name__}
    if type(value) is not str:
        return {"fault": "it gives nothing that JSON can say"}
    if len(value) > asked["most_chars"]:
        return {"fault": f"its result has {len(value)} characters, at most {asked['most_chars']} are taken"}
    return {"value": value}


if __name__ == "__main__":
    main()
