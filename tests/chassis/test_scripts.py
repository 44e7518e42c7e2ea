"""Scripts of people: what they give, what they may not take, and that nothing of one is left for the next."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.scripts import ANSWER_S, Limits, ScriptFault, Scripts, run_once

CALL = "JSON.stringify(f())"
GOOD = "function f() { return {a: 1}; }"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    made = Scripts()
    yield made
    made.close()


def child_of(scripts: Scripts) -> int:
    assert scripts._child is not None
    return scripts._child.pid


def fault_of(scripts: Scripts, text: str) -> ScriptFault:
    with pytest.raises(ScriptFault) as caught:
        scripts.run(text, CALL)
    return caught.value


def test_script_gives_the_text_of_the_expression(scripts: Scripts) -> None:
    assert scripts.run(GOOD, CALL) == '{"a":1}'
    assert scripts.run("const f = () => 'ä\\ud800'", "f()" + ".slice(0, 1)") == "ä"


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("time", "function f() { for (;;); }"),
        ("time", "for (;;);"),
        ("time", "function f() { for (;;) { try { for (;;); } catch (e) {} } }"),
        ("time", "function f() { return /^(a+)+$/.test('a'.repeat(40) + 'b'); }"),
        ("time", "function f() { return new Array(2 ** 32 - 1).join(''); }"),  # never looks at the clock
        ("time", "function f() { throw {toString() { for (;;); }}; }"),
        ("time", "function f() { return {toJSON() { for (;;); }}; }"),
        ("memory", "function f() { const a = []; for (;;) a.push(new Array(1000).fill(1)); }"),
        ("memory", "function f() { const a = []; for (;;) a.push(new ArrayBuffer(1e6)); }"),
        ("", "function f() { let a = 'x'; for (;;) a += a; }"),  # the longest string comes before the memory's end
        ("", "function f() { return f() + 1; }"),
        ("", "function f() { let a = {}; a.a = a; return a; }"),
        ("", "function f() { return 'x'.repeat(1e6); }"),
    ],
)
def test_hostile_script_costs_its_own_run_only(scripts: Scripts, limit: str, text: str) -> None:
    fault = fault_of(scripts, text)

    assert (fault.limit, len(str(fault)) <= 256) == (limit, True)
    assert str(fault) == "it needs more than 50 ms" or limit != "time"  # of CPU, told by its own process
    assert scripts.run(GOOD, CALL) == '{"a":1}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("function f() {\n  throw new Error('broken probe');\n}", "Error: broken probe (f (script:2:"),
        ("function f() { throw 'broken probe'; }", "broken probe"),
        ("function f() { return g(); }", "ReferenceError: g is not defined"),
        ("function f( {", "SyntaxError: "),
        ("function f() {}", "it gives nothing that JSON can say"),
        ("function f() { throw new Error('\\ud800'); }", "Error: "),
    ],
)
def test_fault_is_told_in_the_words_of_the_script(scripts: Scripts, text: str, said: str) -> None:
    assert str(fault_of(scripts, text)).startswith(said)


def test_nothing_of_a_run_is_left_for_the_next(scripts: Scripts) -> None:
    counting = "globalThis.n = (globalThis.n || 0) + 1; Array.prototype.x = 1; function f() { return [n, [].y]; }"

    given = [scripts.run(counting, CALL) for _ in range(3)]
    after = scripts.run("function f() { return typeof n + [].x; }", CALL)

    assert given == ["[1,null]"] * 3
    assert after == '"undefinedundefined"'


def test_script_reaches_nothing_outside(scripts: Scripts) -> None:
    text = "function f() { return [typeof require, typeof std, typeof os, typeof fetch, typeof process]; }"

    assert scripts.run(text, CALL) == str(["undefined"] * 5).replace("'", '"').replace(" ", "")
    scripts.run("function f() { console.log('kept for nobody'); return 1; }", CALL)


def test_process_may_open_no_file_and_write_none(scripts: Scripts) -> None:
    scripts.run(GOOD, CALL)

    rows = [line.split() for line in Path(f"/proc/{child_of(scripts)}/limits").read_text().splitlines()]
    assert ["Max", "open", "files", "0", "0", "files"] in rows
    assert ["Max", "file", "size", "0", "0", "bytes"] in rows


def test_process_that_somebody_else_ended_is_started_anew(scripts: Scripts) -> None:
    scripts.run(GOOD, CALL)
    before = child_of(scripts)
    os.kill(before, signal.SIGKILL)

    assert scripts.run(GOOD, CALL) == '{"a":1}'
    assert child_of(scripts) != before


@pytest.mark.parametrize("text", [GOOD, GOOD + "//" + "x" * 200_000], ids=["short", "longer than a pipe"])
def test_process_that_somebody_froze_holds_nobody_up_for_ever(text: str) -> None:
    frozen = Scripts()
    frozen.run(GOOD, CALL)
    before, frozen.answer_s = child_of(frozen), 0.1
    os.kill(before, signal.SIGSTOP)
    killer = threading.Timer(20, os.kill, (before, signal.SIGKILL))  # so that a fault of ours is one red test
    killer.start()

    fault = fault_of(frozen, text)
    killer.cancel()

    frozen.answer_s = ANSWER_S
    assert fault.limit == "time"
    assert not Path(f"/proc/{before}").exists(), "neither frozen nor a zombie"
    assert frozen.run(text, CALL) == '{"a":1}'
    frozen.close()


def test_script_and_answer_may_be_longer_than_a_pipe(scripts: Scripts) -> None:
    text = "function f() { return '\u00e4'.repeat(60000); }//" + "x" * 200_000

    assert scripts.run(text, CALL) == f'"{"ä" * 60_000}"'


def test_limits_of_a_run_are_its_own(scripts: Scripts) -> None:
    many = "function f() { return new Array(100000).fill(1).length; }"

    with pytest.raises(ScriptFault, match="256 KiB"):
        scripts.run(many, CALL, Limits(memory_kib=256))
    assert scripts.run(many, CALL) == "100000"


def test_process_for_one_run_ends_with_it() -> None:
    assert run_once(GOOD, CALL, Limits()) == '{"a":1}'
