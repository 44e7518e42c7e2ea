from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from devices.database.engine import Database
from devices.database.schema import migrate
from devices.jobs.kinds import Job, JobFilter, Kind, Step
from devices.jobs.service import MAX_CONFLICTS, Jobs, Runner
from devices.jobs.store import JobStore
from devices.rows import Who
from tests.support.waiting import wait_until
from wire import clock
from wire.errors import BadRequest, Conflict, NotFound, Unavailable

BY = ("default", Who("token:t"))


@pytest.fixture
def database(config) -> Iterator[Database]:
    opened = Database(config.registry, config.data)
    migrate(opened, config.data)
    yield opened
    opened.close()


class Desk:
    """Jobs of one kind, whose turns are given by a function."""

    def __init__(self, database: Database, turn: Callable[[Job], Step], undo: Callable[[Job], Step] | None = None):
        self.rows = JobStore(database)
        self.kinds = {"test": Kind(turn, undo)}
        self.jobs, self.runner = Jobs(self.rows, self.kinds), Runner(self.rows, self.kinds)

    def take_turns(self, count: int = 1) -> None:
        for _ in range(count):
            for job in self.rows.due(2**62):
                self.runner.take_turn(job)


def by_parts(job: Job) -> Step:
    """Do one of three things a turn."""
    at = job.cursor.get("at", 0)
    return Step(done=1, cursor={"at": at + 1}, output=f"line {at}\n", is_last=at == 2)


def test_job_goes_on_when_the_clock_is_set_back(database, monkeypatch) -> None:
    desk = Desk(database, by_parts)
    desk.jobs.start("test", {}, BY)
    desk.take_turns()
    real_ns = clock.now_ns()

    hour_ago_ns = real_ns - 3_600 * clock.NS_PER_S
    monkeypatch.setattr(clock, "now_ns", lambda: hour_ago_ns)

    assert len(desk.rows.due(clock.now_ns())) == 1


def test_job_goes_turn_by_turn_to_its_end(database) -> None:
    desk = Desk(database, by_parts)
    queued = desk.jobs.start("test", {"what": "x"}, BY, total=3)

    desk.take_turns()
    running = desk.jobs.find("default", queued.id)
    desk.take_turns(5)
    over = desk.jobs.find("default", queued.id)

    assert (queued.state, queued.done, queued.download, queued.by) == ("queued", 0, None, "token:t")
    assert (running.state, running.done, running.finished) == ("running", 1, None)
    assert (over.state, over.done, over.total, over.spec) == ("done", 3, 3, {"what": "x"})
    assert over.started is not None
    assert "".join(desk.jobs.open_output("default", over.id, BY[1])[1]) == "line 0\nline 1\nline 2\n"


def test_another_process_goes_on_where_one_died(database) -> None:
    class Killed(BaseException):
        pass

    def die_once(job: Job) -> Step:
        if job.cursor.get("at") == 1 and not died:
            died.append(1)
            raise Killed
        return by_parts(job)

    died: list[int] = []
    job_id = Desk(database, die_once).jobs.start("test", {}, BY).id
    with pytest.raises(Killed):
        Desk(database, die_once).take_turns(5)
    desk = Desk(database, die_once)
    desk.take_turns(5)

    assert desk.jobs.find("default", job_id).done == 3
    assert "".join(desk.rows.read_output(job_id)).count("line") == 3


def test_effect_and_progress_are_kept_together_or_not_at_all(database) -> None:
    def contradict(transaction) -> None:
        transaction.changed("device", ["d1"])
        raise Conflict("taken")

    desk = Desk(database, lambda _job: Step(done=1, output="secret", effect=contradict))
    job_id = desk.jobs.start("test", {}, BY).id

    desk.take_turns()
    once = desk.jobs.find("default", job_id)
    desk.take_turns(MAX_CONFLICTS)
    over = desk.jobs.find("default", job_id)

    assert (once.state, once.done, once.download) == ("queued", 0, None)
    assert (over.state, over.error) == ("failed", "taken")


def test_turn_that_another_host_did_is_not_done_twice(database) -> None:
    desk = Desk(database, by_parts)
    job_id = desk.jobs.start("test", {}, BY).id
    [seen_by_both] = desk.rows.due(2**62)

    desk.runner.take_turn(seen_by_both)
    desk.runner.take_turn(seen_by_both)

    assert desk.jobs.find("default", job_id).done == 1


@pytest.mark.parametrize(
    ("error", "state", "shown"),
    [
        (Unavailable("away"), "running", None),
        (BadRequest("line 7 is odd"), "failed", "line 7 is odd"),
        (ZeroDivisionError("x"), "failed", "an error of ours; it was logged"),
    ],
)
def test_errors_of_a_turn_wait_or_end_the_job(database, error, state, shown) -> None:
    def turn(_job: Job) -> Step:
        raise error

    desk = Desk(database, turn)
    job_id = desk.jobs.start("test", {}, BY).id

    desk.take_turns()

    job = desk.jobs.find("default", job_id)
    assert (job.state, job.error) == (state, shown)


def test_cancelled_job_ends_and_keeps_what_it_did(database) -> None:
    desk = Desk(database, by_parts)
    job_id = desk.jobs.start("test", {}, BY, parts=["input"]).id
    desk.take_turns()

    asked = desk.jobs.cancel("default", job_id, BY[1])
    desk.take_turns(2)

    over = desk.jobs.find("default", job_id)
    assert (asked.cancelling, over.state, over.done, over.cancelling) == (True, "cancelled", 1, False)
    assert desk.rows.read_input(job_id, 0) is None
    with pytest.raises(Conflict):
        desk.jobs.cancel("default", job_id, BY[1])


def test_cancel_undoes_what_the_kind_undoes(database) -> None:
    def undo(job: Job) -> Step:
        return Step(cursor={"at": job.cursor["at"] - 1}, is_last=job.cursor["at"] == 1)

    desk = Desk(database, by_parts, undo)
    job_id = desk.jobs.start("test", {}, BY).id
    desk.take_turns(2)

    desk.jobs.cancel("default", job_id, BY[1])
    desk.take_turns()
    during = desk.jobs.find("default", job_id)
    desk.take_turns()

    assert (during.state, during.cancelling) == ("running", True)
    assert desk.jobs.find("default", job_id).state == "cancelled"


def test_jobs_of_another_tenant_do_not_exist(database) -> None:
    desk = Desk(database, by_parts)
    job_id = desk.jobs.start("test", {}, BY).id

    for ask in (
        desk.jobs.find,
        lambda t, j: desk.jobs.cancel(t, j, BY[1]),
        lambda t, j: desk.jobs.drop_output(t, j, BY[1]),
    ):
        with pytest.raises(NotFound):
            ask("other", job_id)
    assert desk.jobs.list(JobFilter("other")) == []
    assert [job.id for job in desk.jobs.list(JobFilter("default"))] == [job_id]


def test_output_is_gone_once_deleted_or_old(database) -> None:
    desk = Desk(database, by_parts)
    deleted, old = (desk.jobs.start("test", {}, BY).id for _ in range(2))
    desk.take_turns(3)

    desk.jobs.drop_output("default", deleted, BY[1])
    before = desk.jobs.find("default", old).download
    desk.rows.drop_old({"test": 0}, [], jobs_before_ns=0, now_ns=2**62)

    assert before is not None
    assert desk.jobs.find("default", old).download is None
    with pytest.raises(NotFound):
        desk.jobs.open_output("default", deleted, BY[1])


def test_input_is_read_in_parts(database) -> None:
    seen: list[str] = []

    def read(job: Job) -> Step:
        part = desk.rows.read_input(job.id, job.turn)
        if part is not None:
            seen.append(part)
        return Step(is_last=part is None)

    desk = Desk(database, read)
    desk.jobs.start("test", {}, BY, parts=["one", "two"])

    desk.take_turns(4)

    assert seen == ["one", "two"]


def test_runner_takes_turns_of_all_jobs_until_stopped(database) -> None:
    desk = Desk(database, by_parts)
    ids = [desk.jobs.start("test", {}, BY).id for _ in range(2)]
    stopping = threading.Event()
    thread = threading.Thread(target=desk.runner.run, args=(stopping,))

    thread.start()
    wait_until(lambda: all(desk.jobs.find("default", job_id).state == "done" for job_id in ids))
    stopping.set()
    thread.join(5)

    assert not thread.is_alive()


def test_secrets_go_in_time_while_their_job_lasts(database) -> None:
    desk = Desk(database, lambda job: Step(output=f"secret {job.turn}\n", cursor={}))
    started = desk.jobs.start("test", {}, BY)
    desk.take_turns(2)

    desk.rows.drop_old({"test": 0}, ["test"], jobs_before_ns=0, now_ns=clock.now_ns() + 1)
    found = desk.jobs.find("default", started.id)
    desk.take_turns()

    assert (found.state, found.download) == ("running", None)
    assert list(desk.jobs.open_output("default", started.id, BY[1])[1]) == ["secret 2\n"]


def test_rest_of_a_result_can_be_read_when_its_beginning_went(database) -> None:
    desk = Desk(database, by_parts)
    started = desk.jobs.start("test", {}, BY)
    desk.take_turns()
    first_ns = clock.now_ns() + 1
    wait_until(lambda: clock.now_ns() > first_ns, 1)
    desk.take_turns()
    desk.rows.drop_old({"test": 0}, ["test"], jobs_before_ns=0, now_ns=first_ns)
    desk.take_turns()

    assert list(desk.jobs.open_output("default", started.id, BY[1])[1]) == ["line 1\n", "line 2\n"]
