"""The command from outside: arguments, exit codes, whole runs against a fake platform and a real broker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from simulators.cli import main
from simulators.ledger import read_ledger
from tests.e2e.platform import free_ports
from tests.simulators.fakes import FakePlatform, Mosquitto
from tests.support.waiting import wait_until

REPORT_KEYS = {
    "sent", "acked", "stored", "lost", "duplicates", "unacked", "quarantined", "rate_s", "ack_ms", "visible_ms", "command_ms", "commands", "twin",
    "errors", "seed", "settings",
}  # fmt: skip
QUICK = ["-c", "5", "--rate", "20/s", "--ramp", "100/s", "--duration", "1s"]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "operator.token"
    path.write_text("operator\n")
    return path


def http_run(platform: FakePlatform, token_file: Path, *more: str) -> tuple[int, dict[str, Any]]:
    path = token_file.with_name("report.json")
    target = ["--transport", "http", "--url", platform.url, "--token-file", str(token_file), "--report", str(path)]
    code = main(["run", *QUICK, *target, *more])
    return code, json.loads(path.read_text())


def test_run_over_http_reports_and_verifies(platform: FakePlatform, token_file: Path) -> None:
    code, report = http_run(platform, token_file, "--verify", "--seed", "42", "--fail-if", "lost>0,sent<100,ack_p99>5s")

    assert code == 0
    assert set(report) == REPORT_KEYS
    assert [report[key] for key in ("sent", "acked", "stored", "lost", "duplicates", "unacked")] == [
        100,
        100,
        100,
        0,
        0,
        0,
    ]
    assert report["seed"] == 42
    assert report["visible_ms"]["max"] > 0
    assert report["settings"]["devices"] == 5


def test_losses_and_duplicates_are_reported_exactly(platform: FakePlatform, token_file: Path) -> None:
    platform.lose, platform.double = {7, 19, 20}, {31, 55}

    code, report = http_run(platform, token_file, "--verify", "--drain-timeout", "1s")

    assert code == 1
    assert [report[key] for key in ("acked", "stored", "lost", "duplicates")] == [100, 97, 3, 2]


def assert_balanced(report: dict[str, Any]) -> None:
    """A malformed message that is posted again, since a storm cut off the answer, is quarantined again."""
    again = report["errors"].get("resent", 0)
    assert report["sent"] == report["acked"]
    assert report["sent"] <= report["stored"] + report["quarantined"] <= report["sent"] + again


def test_faulty_fleet_balances(platform: FakePlatform, token_file: Path) -> None:
    faults = "drop=10%,dup=10%,late=10%,malformed=10%,storm=300ms"

    code, report = http_run(platform, token_file, "--verify", "--faults", faults)

    assert code == 0
    assert_balanced(report)
    assert 0 < report["quarantined"] < 25
    assert 75 < report["sent"] < 100
    assert report["settings"]["faults"]["drop"] == 0.1


def test_batches_of_lines_are_complete(platform: FakePlatform, token_file: Path) -> None:
    code, report = http_run(platform, token_file, "--verify", "--batch", "8", "--faults", "malformed=5%")

    assert code == 0
    assert report["sent"] == report["stored"] + report["quarantined"] == 100
    assert platform.posts <= 5 * 4


def rows_of(platform: FakePlatform) -> dict[str, list[dict[str, Any]]]:
    """What the platform stored of each device, in the order of sending, without the times of this run."""
    return {device_id: [row["fields"] for row in rows] for device_id, rows in platform.rows.items()}


def test_seed_gives_the_same_readings_however_many_processes(platform: FakePlatform, token_file: Path) -> None:
    more = ["--verify", "--seed", "7", "--scenario", "pump,greenhouse", "--faults", "drop=20%", "--prefix", "one-"]
    code, alone = http_run(platform, token_file, *more)
    readings = rows_of(platform)
    platform.rows.clear()

    codes, shared = http_run(platform, token_file, *more, "--processes", "3")

    assert (code, codes) == (0, 0)
    assert alone["sent"] == alone["stored"] == shared["sent"] == shared["stored"]
    assert shared["settings"]["processes"] == 3
    assert rows_of(platform) == readings
    assert len(readings) == 5


def test_several_processes_give_one_exact_verdict(platform: FakePlatform, token_file: Path) -> None:
    platform.lose, platform.double = {7, 19, 20}, {31, 55}
    ledger = token_file.with_name("ledger")

    code, report = http_run(
        platform, token_file, "--verify", "--processes", "2", "--drain-timeout", "1s", "--ledger", str(ledger)
    )

    assert code == 1
    assert [report[key] for key in ("sent", "acked", "stored", "lost", "duplicates")] == [100, 100, 97, 3, 2]
    assert sum(len(account.acked) for account in read_ledger(ledger).accounts) == 100


def test_refused_credentials_are_renewed_and_kept_by_several_processes(
    platform: FakePlatform, token_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "credentials.json"
    more = ["--prefix", "kept-", "--credentials", str(path), "--processes", "2"]
    assert http_run(platform, token_file, *more)[0] == 0
    for device_id in platform.devices:
        platform.devices[device_id] = "s7"  # somebody else has rotated them

    code, report = http_run(platform, token_file, *more, "--verify", "--drain-timeout", "60s")

    assert (code, report["unacked"], report["lost"]) == (0, 0, 0), report
    assert json.loads(path.read_text()) == platform.devices == dict.fromkeys(platform.devices, "s8")


def test_faulty_fleet_in_several_processes_balances(platform: FakePlatform, token_file: Path) -> None:
    faults = "drop=5%,dup=5%,late=5%,malformed=5%,clock=5%,power=5%,storm=300ms"

    code, report = http_run(platform, token_file, "--verify", "--faults", faults, "--processes", "2")

    assert code == 0
    assert_balanced(report)
    assert report["quarantined"] > 0
    assert report["visible_ms"]["max"] is None, "where clocks are wrong the newest reading is not the latest"


def test_process_that_dies_fails_the_run(broker: Mosquitto) -> None:
    process = Process(
        "-c", "4", "--rate", "20/s", "--duration", "1h", "--no-register", "--processes", "2",
        "--mqtt", f"127.0.0.1:{broker.port}",
    )  # fmt: skip
    victim = wait_until(lambda: len(found := process.children()) == 2 and found[1])

    os.kill(victim, signal.SIGKILL)
    code, said = process.wait()

    assert code == 1
    assert "process 2 ended with -9" in said
    assert process.children() == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_scenario_file_makes_the_fleet(platform: FakePlatform, token_file: Path, processes: str) -> None:
    path = token_file.with_name("mine.toml")
    path.write_text(
        """
        [[groups]]
        name = "quick"
        devices = 2
        rate = "20/s"
        fields.count = { type = "int", value = { model = "counter", start = 1 } }

        [[groups]]
        name = "slow"
        devices = 4
        rate = "5/s"
        faults = { dup = "50%" }
        fields.on = { type = "bool", value = { model = "states", hold = "1s" } }

        [[phases]]
        duration = "500ms"

        [[phases]]
        duration = "500ms"
        groups = ["slow"]
        rate = 2
        """
    )
    target = ["--transport", "http", "--url", platform.url, "--token-file", str(token_file), "--verify"]
    report_path = token_file.with_name("report.json")

    code = main([
        "run", "--scenario", str(path), "--prefix", "p-", *target, "--processes", processes,
        "--report", str(report_path),
    ])  # fmt: skip

    report = json.loads(report_path.read_text())
    assert code == 0
    assert report["sent"] == report["stored"] == 2 * 20 + 4 * 8
    assert (report["settings"]["devices"], report["settings"]["duration"]) == (6, 1.0)
    assert set(platform.types) == {"quick", "slow"}
    assert sorted(platform.rows) == ["p-quick-01", "p-quick-02", "p-slow-01", "p-slow-02", "p-slow-03", "p-slow-04"]


def test_metrics_are_served_during_a_run(broker: Mosquitto) -> None:
    port = free_ports(1)[0]
    process = Process(
        "-c", "4", "--rate", "20/s", "--duration", "1h", "--no-register", "--metrics-port", str(port),
        "--mqtt", f"127.0.0.1:{broker.port}",
    )  # fmt: skip

    def sent() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                found = re.search(r"^headwater_sim_sent_total (\d+)", answer.read().decode(), re.MULTILINE)
        except OSError:
            return 0
        return int(found[1]) if found else 0

    wait_until(lambda: sent() > 10)
    code, said = process.interrupt(signal.SIGINT)

    assert code == 0, said


def test_kept_ledger_is_verified_again(platform: FakePlatform, token_file: Path, tmp_path: Path) -> None:
    ledger, target = tmp_path / "ledger", ["--url", platform.url, "--token-file", str(token_file)]
    http_run(platform, token_file, "--verify", "--ledger", str(ledger))
    assert main(["verify", str(ledger), *target]) == 0

    for rows in platform.rows.values():
        del rows[3:5]
    report_path = tmp_path / "again.json"
    code = main(["verify", str(ledger), *target, "--drain-timeout", "0.5s", "--report", str(report_path)])

    report = json.loads(report_path.read_text())
    assert code == 1
    assert set(report) == REPORT_KEYS
    assert [report[key] for key in ("sent", "acked", "stored", "lost")] == [100, 100, 90, 10]
    assert main(["verify", str(ledger), *target, "--drain-timeout", "0.5s", "--fail-if", "lost>10"]) == 0


def test_file_that_is_no_ledger_is_refused(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(token_file)]) == 2
    assert f"{token_file}: not a ledger" in capsys.readouterr().err
    assert main(["verify", "/nowhere/ledger"]) == 1


def test_failed_condition_gives_1_and_a_line(
    platform: FakePlatform, token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = http_run(platform, token_file, "--fail-if", "sent>10")

    assert code == 1
    assert "FAILED sent>10: sent is 100" in capsys.readouterr().out


def test_bare_broker_needs_no_platform(broker: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "report.json"

    code = main(
        ["run", *QUICK, "--no-register", "--mqtt", f"127.0.0.1:{broker.port}", "-V", "5", "--report", str(path)]
    )

    report = json.loads(path.read_text())
    assert code == 0
    assert report["acked"] == report["sent"] == 100
    assert report["stored"] is report["lost"] is None


def test_ledger_is_kept_where_told(broker: Mosquitto, tmp_path: Path) -> None:
    target = ["--no-register", "--mqtt", f"127.0.0.1:{broker.port}", "--ledger", str(tmp_path / "ledger")]

    assert main(["run", *QUICK, *target]) == 0

    head = json.loads((tmp_path / "ledger").read_bytes().split(b"\n", 1)[0])
    assert len(head["devices"]) == 5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--rate", "0"], "--rate: not a rate: '0'"),
        (["--duration", "0"], "--duration is zero"),
        (["-c", "0"], "not a number of 1 or more: '0'"),
        (["--transport", "coap"], "--transport: invalid choice"),
        (["--protocol", "morse"], "--protocol: invalid choice"),
        (["--faults", "rain=1%"], "--faults: unknown fault 'rain'"),
        (["--fail-if", "lost>0"], "--fail-if lost>0 needs --verify"),
        (["--fail-if", "lost"], "--fail-if: not a condition: 'lost'"),
        (["--answer-commands", "lost=1%"], "--answer-commands: unknown answer 'lost' (known: failed, late, never)"),
        (["--answer-commands", "late=60%,never=50%"], "answers of 110% of all commands, limit 100%"),
        (["--answer-commands", "-q", "0"], "commands and twins (--answer-commands, --firmware) are for"),
        (["--firmware", "1.0", "--transport", "http"], "commands and twins (--answer-commands, --firmware) are for"),
        (["--send-commands", "5/s", "--forever"], "--send-commands and --send-desired go with neither"),
        (["--fail-if", "commands.lost>0"], "--fail-if commands.lost>0 needs --verify"),
        (["--fail-if", "commands.eaten>0"], "--fail-if: unknown name 'commands.eaten'"),
        (["-c", "2", "--processes", "3"], "--processes 3 is more than the 2 devices"),
        (["--scenario", "nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["--faults", "late=60%,dup=60%"], "--faults: faults of 120% of all readings, limit 100%"),
        (["--scenario", "volcano"], "unknown scenario 'volcano'"),
        (["--prefix", "_x"], "--prefix makes device ids like '_xplain-100'"),
        (["--prefix", "x" * 60], "--prefix makes device ids"),
        (["--url", "gate:8080"], "--url is not an http(s) URL"),
        (["--mqtt", "http://gate"], "--mqtt is not an mqtt(s) address"),
        (["--mqtt", "gate:0"], "--mqtt: not an address"),
        (["--verify", "--forever"], "--verify goes with neither"),
        (["--batch", "5"], "--batch is for --transport http"),
        (["--batch", "5", "--transport", "http", "--protocol", "cbor"], "--batch goes as NDJSON"),
        (["--protocol", "sparkplug", "--transport", "http"], "--protocol sparkplug is for --transport mqtt"),
        (["--protocol", "sparkplug", "--answer-commands", "never=1%"], "not for --protocol sparkplug"),
        (["--transport", "http", "--no-register"], "--no-register is for --transport mqtt"),
        (["--ca", "/nowhere.pem"], "--ca: no such file"),
        (["--report", "/nowhere/out.json"], "--report: no such folder: /nowhere"),
        (["--ledger", "/nowhere/ledger"], "--ledger: no such folder: /nowhere"),
        (["-c", "100000000"], "open files, the limit here is"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_arguments_give_2_and_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: Any = main(["run", *arguments])
    except SystemExit as leaving:
        code = leaving.code

    said = capsys.readouterr().err
    assert code == 2
    assert line in said
    assert said.count("\n") == 1


def test_missing_token_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--token-file", str(tmp_path / "none")]) == 1
    assert re.fullmatch(
        r"headwater sim run: operator token: No such file or directory: \S+ \(see --token-file\)\n",
        capsys.readouterr().err,
    )


def test_ledger_on_a_full_disk_ends_the_run(broker: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    target = ["--no-register", "--mqtt", f"127.0.0.1:{broker.port}", "--ledger", "/dev/full"]

    assert main(["run", *QUICK, *target]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_run_that_sends_nothing_fails(broker: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    broker.stop()
    quick = [
        "-c",
        "1",
        "--duration",
        "1s",
        "--drain-timeout",
        "0.3s",
        "--no-register",
        "--mqtt",
        f"127.0.0.1:{broker.port}",
    ]

    assert main(["run", *quick]) == 1
    assert "nothing could be sent" in capsys.readouterr().err


class Process:
    """The simulator as a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "simulators", "run", *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.pid = self._process.pid

    def children(self) -> list[int]:
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    def interrupt(self, number: signal.Signals) -> tuple[int, str]:
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        said, _ = self._process.communicate(timeout=20)
        return self._process.returncode, said


def test_interrupted_run_still_gives_its_verdict(platform: FakePlatform, token_file: Path) -> None:
    process = Process(
        "-c", "3", "--rate", "50/s", "--duration", "1h", "--transport", "http", "--verify",
        "--url", platform.url, "--token-file", str(token_file),
    )  # fmt: skip
    wait_until(lambda: platform.posts > 20)

    code, said = process.interrupt(signal.SIGINT)

    assert code == 0
    assert "lost 0" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_processes_still_give_their_verdict(
    platform: FakePlatform, token_file: Path, number: signal.Signals
) -> None:
    process = Process(
        "-c", "4", "--rate", "50/s", "--duration", "1h", "--transport", "http", "--verify", "--processes", "2",
        "--url", platform.url, "--token-file", str(token_file),
    )  # fmt: skip
    wait_until(lambda: platform.posts > 20)

    for child in process.children():  # as a terminal or a unit does it: all processes of the group
        os.kill(child, number)
    code, said = process.interrupt(number)

    assert code == 0, said
    assert "lost 0" in said
    assert "Traceback" not in said


def test_standing_fleet_waits_for_the_platform_and_stops_cleanly(
    platform: FakePlatform, broker: Mosquitto, tmp_path: Path
) -> None:
    token = tmp_path / "later.token"
    process = Process(
        "-c", "20", "--rate", "5/s", "--forever", "--scenario", "greenhouse,cold-chain,pump", "--prefix", "demo-",
        "--credentials", str(tmp_path / "credentials.json"), "--mqtt", f"127.0.0.1:{broker.port}",
        "--url", platform.url, "--token-file", str(token),
    )  # fmt: skip
    token.write_text("operator")
    wait_until(lambda: len(platform.devices) == 20)
    wait_until((tmp_path / "credentials.json").exists)

    code, said = process.interrupt(signal.SIGTERM)

    assert code == 0, said
    assert "demo-cold-chain-01" in platform.devices
    assert "Traceback" not in said


def test_demo_fits_its_memory(broker: Mosquitto, tmp_path: Path) -> None:
    process = Process(
        "-c", "20", "--rate", "20/s", "--forever", "--scenario", "greenhouse,cold-chain,pump", "--no-register",
        "--mqtt", f"127.0.0.1:{broker.port}", "--ledger", str(tmp_path / "ledger"),
    )  # fmt: skip
    wait_until(lambda: (tmp_path / "ledger").exists() and (tmp_path / "ledger").stat().st_size > 20_000)

    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    pss_mb = int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1]) / 1024  # type: ignore[index]
    process.interrupt(signal.SIGTERM)

    assert pss_mb <= 35
