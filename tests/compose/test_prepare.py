"""Preparation of the machine, with a stand-in for apt and dpkg: no service may start, nothing may be left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

COMPOSE = Path(__file__).resolve().parents[2] / "compose"

FAKE_APT = """#!/bin/sh
echo "apt-get $*" >>"$JOURNAL"
for word; do case $word in install | update) verb=$word ;; esac; done
case $verb in install)
    [ ! -e "$BOX/dpkg-was-interrupted" ] || exit 100
    [ ! -e "$BOX/apt-fails" ] || exit 100
    [ ! -e "$BOX/lists-are-empty" ] || exit 100
    # What the packages' scripts do: ask whether they may start, for their own service and for another one.
    for service in mosquitto nginx.service ssh; do
        "$POLICY_RC_D" --quiet "$service" start && echo "started $service" >>"$JOURNAL" || echo "held $service" >>"$JOURNAL"
    done
    [ ! -e "$BOX/apt-hangs" ] || { touch "$BOX/hanging"; sleep 30; }
    # As apt does: ctrl-C does not keep dpkg from ending what it has begun.
    [ ! -e "$BOX/apt-goes-on" ] || { trap '' INT; touch "$BOX/hanging"; until [ -e "$BOX/go-on" ]; do sleep 0.05; done; }
    for name; do echo "$name" >>"$BOX/installed"; done
    ;;
update) rm -f "$BOX/lists-are-empty" ;; esac
"""
FAKE_DPKG_QUERY = '#!/bin/sh\nfor name; do :; done\ngrep -qx "$name" "$BOX/installed" && printf installed || cat "$BOX/$name" 2>/dev/null\n'
FAKE_DPKG = '#!/bin/sh\necho "dpkg $*" >>"$JOURNAL"\nrm -f "$BOX/dpkg-was-interrupted"\n'
FAKE_TOOL = '#!/bin/sh\necho "${0##*/} $*" >>"$JOURNAL"\n'


class Box:
    """A made-up Debian."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.policy = root / "policy-rc.d"
        self.journal = root / "journal"
        self.bin = root / "bin"
        self.bin.mkdir()
        self.journal.touch()
        (root / "installed").touch()
        for name, text in (
            ("apt-get", FAKE_APT),
            ("dpkg", FAKE_DPKG),
            ("dpkg-query", FAKE_DPKG_QUERY),
            ("systemctl", FAKE_TOOL),
        ):
            self.program(name, text)
        for name in ("deb-systemd-helper", "update-rc.d"):
            self.program(name, FAKE_TOOL)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    @property
    def environ(self) -> dict[str, str]:
        path = f"{self.bin}:/usr/bin:/bin"
        return {"PATH": path, "BOX": str(self.root), "JOURNAL": str(self.journal), "POLICY_RC_D": str(self.policy)}

    def start(self, *packages: str) -> subprocess.Popen[str]:
        # A run in the background ignores SIGINT, and no shell can trap what was ignored when it started.
        argv = ["env", "--default-signal=INT", "sh", str(COMPOSE / "install-packages.sh"), *packages]
        return subprocess.Popen(argv, env=self.environ, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def install(self, *packages: str) -> int:
        with self.start(*packages) as process:
            return process.wait(20)

    def events(self) -> list[str]:
        return self.journal.read_text().splitlines()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_new_services_are_held_and_disabled_and_others_start(box: Box) -> None:
    assert box.install("mosquitto", "nginx") == 0

    assert [event for event in box.events() if event.split()[0] in ("held", "started")] == [
        "held mosquitto", "held nginx.service", "started ssh",
    ]  # fmt: skip
    assert "systemctl disable mosquitto.service" in box.events()
    assert "systemctl disable nginx.service" in box.events()
    assert "update-rc.d nginx disable" in box.events()
    assert not box.policy.exists()


def test_what_was_installed_before_is_left_alone(box: Box) -> None:
    (box.root / "installed").write_text("nginx\n")

    assert box.install("mosquitto", "nginx") == 0

    assert "apt-get -y -q -o DPkg::Lock::Timeout=120 --no-install-recommends install mosquitto" in box.events()
    assert "started nginx.service" in box.events()
    assert not [event for event in box.events() if "nginx" in event and "disable" in event]


def test_nothing_missing_means_nothing_done(box: Box) -> None:
    (box.root / "installed").write_text("nginx\nmosquitto\n")

    assert box.install("mosquitto", "nginx") == 0
    assert box.events() == []


def test_policy_of_the_machine_is_asked_and_restored(box: Box) -> None:
    own = '#!/bin/sh\n[ "$2" != ssh ] || exit 101\n'
    box.policy.write_text(own)
    box.policy.chmod(0o755)

    assert box.install("mosquitto") == 0

    assert "held ssh" in box.events()
    assert "held mosquitto" in box.events()
    assert box.policy.read_text() == own
    assert sorted(path.name for path in box.root.iterdir()) == [
        "bin", "installed", "journal", "policy-rc.d", "policy-rc.d.lock",
    ]  # fmt: skip


def test_failed_installation_leaves_no_policy(box: Box) -> None:
    (box.root / "apt-fails").touch()

    assert box.install("mosquitto") == 1
    assert not box.policy.exists()


def test_empty_package_lists_are_fetched_once(box: Box) -> None:
    (box.root / "lists-are-empty").touch()

    assert box.install("mosquitto") == 0
    verbs = [word for event in box.events() for word in event.split() if word in ("install", "update")]
    assert verbs == ["install", "update", "install"]


def test_interrupted_dpkg_is_ended_first(box: Box) -> None:
    (box.root / "dpkg-was-interrupted").touch()

    assert box.install("mosquitto") == 0
    assert "dpkg --configure -a" in box.events()


def test_interrupted_installation_leaves_no_policy(box: Box) -> None:
    (box.root / "apt-hangs").touch()
    with box.start("mosquitto") as process:
        wait_until((box.root / "hanging").exists)
        os.killpg(process.pid, signal.SIGTERM)

        assert process.wait(20) == 143
    assert not box.policy.exists()


def test_service_is_disabled_after_ctrl_c_too(box: Box) -> None:
    (box.root / "apt-goes-on").touch()
    with box.start("mosquitto") as process:
        wait_until((box.root / "hanging").exists)
        os.killpg(process.pid, signal.SIGINT)
        (box.root / "go-on").touch()

        assert process.wait(20) == 130
    assert "systemctl disable mosquitto.service" in box.events()
    assert not box.policy.exists()


def test_killed_installation_is_ended_by_the_next(box: Box) -> None:
    box.policy.write_text("#!/bin/sh\nexit 0\n")
    box.policy.chmod(0o755)
    (box.root / "apt-hangs").touch()
    with box.start("mosquitto") as process:
        wait_until((box.root / "hanging").exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    (box.root / "apt-hangs").unlink()
    (box.root / "installed").write_text("mosquitto\n")

    assert box.install() == 0
    assert "systemctl disable mosquitto.service" in box.events()
    assert box.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_policy_stays_while_a_package_is_half_done(box: Box) -> None:
    (box.root / "apt-fails").touch()
    (box.root / "mosquitto").write_text("half-configured")

    assert box.install("mosquitto") == 1
    assert "mosquitto.service) exit 101" in box.policy.read_text()
    (box.root / "apt-fails").unlink()

    (box.root / "mosquitto").unlink()
    assert box.install() == 0
    assert "systemctl disable mosquitto.service" in box.events()
    assert not box.policy.exists()


def test_two_installations_at_once_are_one(box: Box) -> None:
    (box.root / "apt-goes-on").touch()
    with box.start("mosquitto") as first, box.start("mosquitto") as second:
        wait_until((box.root / "hanging").exists)
        (box.root / "go-on").touch()

        assert (first.wait(20), second.wait(20)) == (0, 0)
    assert len([event for event in box.events() if event.startswith("apt-get")]) == 1


def shell(box: Box, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    script = f"set -eu\nhere={box.root}\n. {COMPOSE}/prepare.sh\n{text}\n"
    return subprocess.run(
        ["/bin/sh", "-c", script], env=box.environ | environ, capture_output=True, text=True, timeout=30, check=False
    )


def test_machine_without_apt_is_told_what_to_install(box: Box) -> None:
    empty = box.root / "empty"
    empty.mkdir()
    result = shell(box, "install_debian some-package", PATH=str(empty))

    assert result.returncode == 1
    assert result.stderr == (
        "headwater: this is no Debian: install these with your package manager, then start again: some-package\n"
    )


def test_ordinary_user_without_sudo_is_told_all_in_one_line(box: Box) -> None:
    box.program("id", "#!/bin/sh\necho 1000\n")
    (box.bin / "dash").symlink_to("/bin/dash")
    text = "packages=; add_missing_programs no-such=some-package; add_missing_python; install_debian $packages"
    result = shell(box, f"find_python() {{ return 1; }}\n{text}", PATH=str(box.bin))

    script = f"'{box.root}/compose/install-packages.sh'"
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"headwater: these packages are needed; as root, with network: sh {script} some-package python3 python3-venv"
    )


def test_ordinary_user_installs_through_sudo(box: Box) -> None:
    box.program("id", "#!/bin/sh\necho 1000\n")
    box.program("sudo", '#!/bin/sh\necho "sudo $*" >>"$JOURNAL"\n')
    result = shell(box, "install_debian some-package")

    assert result.returncode == 0
    assert box.events() == [f"sudo sh {box.root}/compose/install-packages.sh some-package"]


@pytest.mark.parametrize("version", ["3.9.2", "3.10.1"])
def test_old_python_is_named(box: Box, version: str) -> None:
    old = f"#!/bin/sh\ncase $2 in *version_info*) exit 1 ;; *) echo {version} ;; esac\n"
    box.program("python3", old)
    for name in ("id", "uv"):
        box.program(name, "#!/bin/sh\nexit 1\n")
    (box.root / "tools").mkdir()
    result = shell(box, "is_new_enough() { return 1; }\nadd_missing_python", PATH=f"{box.bin}:{box.root}/tools")

    assert result.returncode == 1
    assert result.stderr == f"headwater: Python 3.11 or later is needed; python3 is {version}\n"


def test_installed_packages_are_compiled(box: Box) -> None:
    (box.root / ".venv" / "bin").mkdir(parents=True)
    for name in ("uv", "python3", "../.venv/bin/python"):
        box.program(name, FAKE_TOOL)
    (box.root / ".venv/.whole").write_text(str(box.root))

    result = shell(box, "lock=x\ninstall_python_packages")

    assert result.returncode == 0
    assert box.events()[-1].startswith("python -m compileall -q -j 0 .venv/lib wire chassis ")


@pytest.fixture
def tree(box: Box) -> Box:
    """A made-up clone on a machine with all programs."""
    for name in ("mosquitto", "nginx"):
        box.program(name, "#!/bin/sh\n")
    (box.root / "pyproject.toml").write_text("x")
    (box.root / "requirements.lock").write_text("x")
    (box.root / ".venv" / "bin").mkdir(parents=True)
    for name in ("headwater", "python"):
        box.program(f"../.venv/bin/{name}", "#!/bin/sh\n")
    return box


INSTALL = "install_python_packages() { echo installs; }\nprepare runtime"


def test_prepared_tree_takes_no_time(tree: Box) -> None:
    first, second = shell(tree, INSTALL), shell(tree, INSTALL)
    (tree.root / "pyproject.toml").write_text("y")
    third = shell(tree, INSTALL)

    assert (first.stdout, second.stdout, third.stdout) == ("installs\n", "", "installs\n")


def test_another_python_means_another_preparation(tree: Box) -> None:
    shell(tree, INSTALL)
    tree.program("../.venv/bin/python", "#!/bin/sh\nexit 1\n")

    assert shell(tree, INSTALL).stdout == "installs\n"


@pytest.mark.parametrize(("place", "is_kept"), [("{root}", True), ("/elsewhere", False), ("", False)])
def test_venv_that_is_not_whole_is_made_anew(tree: Box, place: str, is_kept: bool) -> None:
    """Killed half-way, it says no place; moved, another one."""
    (tree.root / ".venv/.whole").write_text(place.format(root=tree.root))
    (tree.root / ".venv/old").touch()
    for name in ("uv", "python3"):
        tree.program(name, "#!/bin/sh\nmkdir -p .venv/bin\ncp $BOX/bin/nginx .venv/bin/python\n")

    result = shell(tree, "prepare runtime")

    assert result.returncode == 0, result.stderr
    assert (tree.root / ".venv/old").exists() is is_kept
    assert (tree.root / ".venv/.whole").read_text() == f"{tree.root}\n"


def test_two_preparations_at_once_are_one(tree: Box) -> None:
    slow = "install_python_packages() { echo installs; touch $BOX/begun; until [ -e $BOX/go ]; do sleep 0.05; done; }"
    script = f"set -eu\nhere={tree.root}\n. {COMPOSE}/prepare.sh\n{slow}\nprepare runtime\n"
    argv = ["/bin/sh", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=tree.environ, stdout=pipe, stderr=pipe, text=True) as first:
        wait_until((tree.root / "begun").exists)
        with subprocess.Popen(argv, env=tree.environ, stdout=pipe, stderr=pipe, text=True) as second:
            assert second.stderr
            assert second.stderr.readline() == "Another start prepares this folder; waiting for it ...\n"
            (tree.root / "go").touch()
            output = first.communicate(timeout=20)[0] + second.communicate(timeout=20)[0]

    assert output == "installs\n"


def test_failed_download_says_what_to_do(tree: Box) -> None:
    tree.program("uv", "#!/bin/sh\ncase $1 in pip) exit 1 ;; venv) mkdir -p .venv/bin ;; esac\n")

    result = shell(tree, "prepare runtime")

    assert result.returncode == 1
    assert "PIP_INDEX_URL" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "test",
        ".ci/run",
        "compose/prepare.sh",
        "compose/install-packages.sh",
        "compose/lock.sh",
        "compose/audit.sh",
    ],
)
def test_scripts_are_posix_and_executable(name: str) -> None:
    script = COMPOSE.parent / name

    assert subprocess.run(["dash", "-n", str(script)], check=False).returncode == 0
    assert name == "compose/prepare.sh" or os.access(script, os.X_OK)
