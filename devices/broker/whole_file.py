"""Files that another program reads while they are replaced."""

from __future__ import annotations

import os
from pathlib import Path

from chassis import logs

log = logs.get(__name__)


def holds(path: Path, content: bytes) -> bool:
    """Tell whether a file is there and holds exactly this."""
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def write_whole(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one: a reader sees all of one or of the other, also after a crash."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        _like(file.fileno(), path)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _like(descriptor: int, path: Path) -> None:
    """Give owner and mode of the old file to the new one: a broker that gave up root must be able to read it."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    os.fchmod(descriptor, old.st_mode & 0o777)
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError:
            log.warning("broker_file_owner_kept", path=str(path))
