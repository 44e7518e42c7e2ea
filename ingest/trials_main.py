"""The process that tries versions of device types on real data; `ingest.trials_process` starts it and asks it.

A line in is a request, `VERB BODY`, the first one the settings; a line out is `ok BODY` or `problem PROBLEM`, all JSON.
It ends when nobody asks any more: after IDLE_S, or as soon as its input does, as it does when the asking process dies.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import orjson
from pydantic import BaseModel

import series
from chassis import ending, logs
from chassis.peers import HttpPeer, Peer
from ingest.config import IngestConfig
from ingest.dry_run import DryRuns
from ingest.gate import Gate
from ingest.opening import open_ports
from ingest.protocols import PROTOCOLS
from ingest.readings import Reading
from ingest.trials import Trials
from wire.dry_runs import Place, SliceRequest, WaitingRequest
from wire.errors import HeadwaterError
from wire.schemas import ObserveRequest, TryRequest

log = logs.get(__name__)
IDLE_S = 5.0  # far longer than a job rests between two slices
NICE = 15  # a thirtieth of what one that answers devices gets, when both want a processor; all of it when it is idle
OK, PROBLEM = b"ok", b"problem"


class Verb(NamedTuple):
    """What may be asked: a body of this model, and what answers it."""

    body: type[BaseModel]
    run: Callable[[Any], BaseModel]


class _Nothing:
    """Keeps no readings: what is tried leaves no trace."""

    def append(self, readings: Sequence[Reading]) -> None:
        raise NotImplementedError(f"{len(readings)} readings of a trial")

    def accepted(self) -> int:
        return 0

    def size_bytes(self) -> int:
        return 0


def open_verbs(config: IngestConfig, registry: Peer, closing: ExitStack) -> dict[str, Verb]:
    """Open what the verbs need."""
    ports, opened = open_ports(config, registry, lambda _: _Nothing())
    closing.enter_context(opened)
    open_reader = partial(series.open_reader, config.store, config.data)
    trials, runs = Trials(ports, PROTOCOLS, open_reader), DryRuns(ports, PROTOCOLS, open_reader)
    return {
        "try": Verb(TryRequest, _polled(ports.gate, trials.run)),
        "observe": Verb(ObserveRequest, trials.observe),
        "count": Verb(Place, runs.count),
        "judge": Verb(SliceRequest, runs.judge),
        "judge-waiting": Verb(WaitingRequest, _polled(ports.gate, runs.judge_waiting)),
    }


def _polled(gate: Gate, run: Callable[[Any], BaseModel]) -> Callable[[Any], BaseModel]:
    """Hear what changed before it is judged by: between two requests nothing here listens."""

    def hear_and_run(asked: Any) -> BaseModel:
        gate.poll()
        return run(asked)

    return hear_and_run


def answer(verbs: dict[str, Verb], line: bytes) -> bytes:
    """Answer one line."""
    name, _, body = line.partition(b" ")
    try:
        verb = verbs[name.decode()]
        return b"%b %b\n" % (OK, verb.run(verb.body.model_validate_json(body)).model_dump_json().encode())
    except HeadwaterError as error:
        return b"%b %b\n" % (PROBLEM, orjson.dumps(error.to_problem()))
    except Exception:
        log.fault("trial_fault", verb=name.decode())
        return b"%b %b\n" % (PROBLEM, orjson.dumps(HeadwaterError("an error of ours; it was logged").to_problem()))


def main() -> None:
    """Answer until nobody asks."""
    ending.watch()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints is no answer
    lines = sys.stdin.buffer
    config = IngestConfig.model_validate_json(lines.readline())
    logs.configure("ingest-trials", style=config.log_style, level=config.log_level)
    with ExitStack() as closing:
        verbs = open_verbs(config, HttpPeer(config.devices_url, config.service_token), closing)
        os.nice(NICE)  # not before: who waits for the first answer waits for the start, too
        while line := _next(lines):
            answers.write(answer(verbs, line))
            answers.flush()


def _next(lines: BinaryIO) -> bytes:
    signal.setitimer(signal.ITIMER_REAL, IDLE_S)  # whose signal ends the process
    line = lines.readline()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return line


if __name__ == "__main__":
    main()
