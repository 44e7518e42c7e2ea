"""A gunicorn worker that answers short posts on an event loop: no thread switch a request, one fsync for many of them.

Requests that wait for long (an app names them with their method) belong there too: parked, they cost no thread.

It is gunicorn's thread worker with one more lane. A request that is here whole after one read, short, and of a path
that the app names quick, runs at once in the polling thread as a greenlet; while it waits for the disk others run
(`chassis.parking`). Everything else, also everything odd, goes to the thread pool and through gunicorn's own code, once
it is there (`chassis.arriving`) and within READ_S: slow senders hold no threads.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request as Head
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import create
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import TConn, ThreadWorker

from chassis import ending, parking
from chassis.arriving import IN_ALL_BYTES, missing_bytes
from chassis.parking import IS_WHOLE, QUICK, LoopWaiter, Request
from chassis.refusals import Listener, as_problem

READ_BYTES = 64 * 1024
READ_S = 30.0  # for a whole request to come, from its first byte on
QUICK_BYTES = 16 * 1024  # of a body: about 1 ms of decoding, for which all others wait
TURN = 32  # connections looked at before the waiting answers leave: some 10 ms
SEND_S = 60.0  # for the rest of a long answer, while a thread waits
SWEEP_S = 0.5  # how often connections and parked requests are looked at for being overdue


class LoopWorker(ThreadWorker):  # type: ignore[misc]
    """See the module. `park`, `wake`, `watch`, `start` and `soon` are those of `chassis.parking.Loop`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prefixes: tuple[bytes, ...] = ()
        self._next_sweep_s = 0.0
        self._gathered_bytes = 0  # of requests that are not whole yet
        self._reading: dict[Any, float] = {}  # connections in the pool: until when their requests have to be there
        self._parked: dict[LoopWaiter, float] = {}  # those with a deadline (monotonic)
        self._woken: deque[LoopWaiter] = deque()
        self._soon: deque[Callable[[], None]] = deque()
        self._has_rung = False
        self._bell = -1

    # -- chassis.parking.Loop

    def park(self, waiter: LoopWaiter, timeout_s: float | None) -> None:
        """See chassis.parking.Loop."""
        if timeout_s is not None:
            self._parked[waiter] = time.monotonic() + timeout_s

    def wake(self, waiter: LoopWaiter) -> None:
        """See chassis.parking.Loop."""
        self._woken.append(waiter)
        self._ring()

    def watch(self, descriptor: int, events: int, waiter: LoopWaiter) -> None:
        """See chassis.parking.Loop."""
        self.poller.register(descriptor, events, partial(self._see, waiter))

    def _see(self, waiter: LoopWaiter, descriptor: int) -> None:
        self.poller.unregister(descriptor)
        waiter.set()

    def soon(self, work: Callable[[], None]) -> None:
        """See chassis.parking.Loop."""
        self._soon.append(work)
        self._ring()

    def start(self, work: Callable[[], None]) -> None:
        """See chassis.parking.Loop."""
        self._aside.submit(work)

    def _ring(self) -> None:
        if not self._has_rung:
            self._has_rung = True
            os.eventfd_write(self._bell, 1)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Run what is ready, in turns."""
        ready = self.poller.select(timeout)
        self._has_rung = True  # it looks at the end of each turn
        for start in range(0, max(1, len(ready)), TURN):
            for key, _ in ready[start : start + TURN]:
                key.data(key.fileobj)
            self._end_turn()

    def _end_turn(self) -> None:
        """Run what was put off to the end of a turn, then the requests that this woke."""
        while self._soon:
            self._has_rung = True  # it looks at once
            self._soon.popleft()()
        self._has_rung = False  # before the look: who comes later rings again
        while self._woken:
            waiter = self._woken.popleft()
            self._parked.pop(waiter, None)
            waiter.resume()

    # -- gunicorn's thread worker

    def init_process(self) -> None:
        """Prepare what the loop needs, then run."""
        self._aside = ThreadPoolExecutor(self.cfg.threads, "aside")
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        super().init_process()

    def run(self) -> None:
        """Run until SIGTERM."""
        quick: Iterable[str] = getattr(self.wsgi, "extensions", {}).get(QUICK, ())
        self._prefixes = tuple((f"POST {each}" if each[0] == "/" else each).encode() for each in quick)
        self.poller.register(self._bell, selectors.EVENT_READ, os.eventfd_read)
        super().run()

    def accept(self, listener: Any) -> None:
        """Take connections in; one costs no thread before something was sent on it."""
        server = listener.getsockname()
        while self.nr_conns < self.worker_connections:
            try:
                sock, client = listener.accept()
            except OSError:  # nobody there any more, or no file is free: the next turn tries again
                return
            self._take(TConn(self.cfg, sock, client, server))

    def _take(self, conn: Any) -> None:
        self.nr_conns += 1
        conn.is_busy = False
        conn.gathered, conn.missing = bytearray(), 0
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self._watch(conn)

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """Answer a quick post here; give everything else to the pool."""
        if not conn.is_watched:  # closed in an earlier turn of the same look
            return
        if conn.is_busy:  # it sends on before it has its answer: not read until then
            self._unwatch(conn)
            return
        try:
            received = client.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._end(conn)
            return
        whole = self._gather(conn, received)
        head = self._quick(whole, conn.client) if whole else None
        if head is None:
            self._hand_on(conn, whole)
            return
        conn.is_busy = True
        Request(self._serve, self).switch(conn, head)

    def _gather(self, conn: Any, received: bytes) -> bytes:
        """Give what has come of a request, if there is nothing to wait for; else keep it, and give nothing."""
        if not conn.gathered:
            conn.missing = missing_bytes(received)
            if not conn.missing:
                return received
            conn.missing += len(received)
            conn.timeout = time.monotonic() + READ_S
        self._gathered_bytes += len(received)
        conn.gathered += received
        conn.missing -= len(received)
        if conn.missing <= 0:  # looked at only then: a request that comes byte by byte costs no more than another
            conn.missing = missing_bytes(bytes(conn.gathered))
        is_waited_for = conn.missing > 0 and self._gathered_bytes < IN_ALL_BYTES
        return b"" if is_waited_for else self._let_go(conn)

    def _let_go(self, conn: Any) -> bytes:
        gathered = bytes(conn.gathered)
        self._gathered_bytes -= len(gathered)
        conn.gathered.clear()
        return gathered

    def _hand_on(self, conn: Any, received: bytes) -> None:
        """Let a thread read on, and answer."""
        if not received:
            return
        conn.init()
        conn.parser.unreader.unread(received)
        super().on_client_socket_readable(conn, conn.sock)

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to the pool, for so long as a request may take to come."""
        self._reading[conn] = time.monotonic() + READ_S
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from the pool."""
        self._reading.pop(conn, None)
        super().finish_request(conn, fs)
        conn.is_watched = True

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that is wrong, or whose app failed."""
        ending.end_if_short(exc)
        said = Listener()
        super().handle_error(req, said, addr, exc)
        with suppress(OSError):
            write_nonblock(client, as_problem(b"".join(said.parts)))

    def murder_keepalived(self, force: bool = False) -> None:
        """Close connections that were idle for too long, resume parked requests whose time is over."""
        now_s = time.monotonic()
        if now_s < self._next_sweep_s and not force:
            return
        self._next_sweep_s = now_s + SWEEP_S
        for conn in list(self.keepalived_conns):
            is_over = not conn.is_busy and conn.timeout <= now_s and (conn.gathered or not _has_sent(conn.sock))
            if force or is_over:
                self._end(conn)
        for conn in [each for each, until_s in self._reading.items() if until_s <= now_s]:
            del self._reading[conn]
            with suppress(OSError):  # what was read and is being answered is not touched by it
                conn.sock.shutdown(socket.SHUT_RD)
        for waiter in [each for each, deadline_s in self._parked.items() if deadline_s <= now_s]:
            del self._parked[waiter]
            waiter.resume()

    # -- the quick lane

    def _quick(self, received: bytes, client: Any) -> Any:
        """Give the head, with its body behind it, of a post that may run here; None for all else."""
        if not received.startswith(self._prefixes):
            return None
        unreader = IterUnreader((received,))
        try:
            head = Head(self.cfg, unreader, client)
        except Exception:  # cut off or wrong: the pool waits for the rest, or finds the words for it
            return None
        reader = head.body.reader
        is_whole = isinstance(reader, LengthReader) and reader.length == unreader.buf.getbuffer().nbytes
        if not is_whole or reader.length > QUICK_BYTES:
            return None
        return None if any(name in ("EXPECT", "CONTENT-ENCODING") for name, _ in head.headers) else head

    def _serve(self, conn: Any, head: Any) -> None:
        is_kept = False
        try:
            answer = Listener()  # so that it leaves in one write
            is_kept = self._call(conn, head, answer)
            whole = b"".join(answer.parts)
            sent = conn.sock.send(whole)
            if sent < len(whole):
                parking.aside(_send_all, conn.sock, whole[sent:])
        except OSError:
            is_kept = False
        except Exception as error:
            is_kept = False
            self.handle_error(head, conn.sock, conn.client, error)
        conn.is_busy = False
        if not is_kept:
            self._end(conn)
            return
        conn.set_timeout()
        if not conn.is_watched:
            self._watch(conn)

    def _call(self, conn: Any, head: Any, answer: Listener) -> bool:
        response, environ = create(head, answer, conn.client, conn.server, self.cfg)
        environ["wsgi.multithread"] = environ[IS_WHOLE] = True
        environ["wsgi.input"] = BytesIO(head.unreader.take_buffered())
        parts = self.wsgi(environ, response.start_response)
        if not self.alive:  # it may have become so while the request was parked
            response.force_close()
        try:
            for part in parts:
                response.write(part)
            response.close()
        finally:
            if hasattr(parts, "close"):
                parts.close()
        return not response.should_close()

    def _watch(self, conn: Any) -> None:
        conn.is_watched = True
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _unwatch(self, conn: Any) -> None:
        conn.is_watched = False
        self.poller.unregister(conn.sock)

    def _end(self, conn: Any) -> None:
        if conn.is_watched:
            self._unwatch(conn)
        self._let_go(conn)
        self.keepalived_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()


def _send_all(sock: Any, rest: bytes) -> None:
    """Send what did not fit into the kernel's memory; nobody else uses the socket meanwhile."""
    sock.settimeout(SEND_S)
    sock.sendall(rest)
    sock.setblocking(False)


def _has_sent(sock: Any) -> bool:
    """Tell whether something has come since the last look: closing now would lose a request."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except OSError:
        return False
    return True
