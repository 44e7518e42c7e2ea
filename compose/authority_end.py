"""When this installation's own certificate authority ends: somebody must be told in time, and renew it."""

from __future__ import annotations

import datetime as dt

from compose.folder import Folder
from wire import clock

WARN_DAYS = 365  # every device must get to know the next one before


def end_of(folder: Folder) -> dt.datetime | None:
    """Give when it ends, of two the newer one; None without one.

    Raises:
        OSError: its certificate cannot be read.
    """
    path = folder.broker / "ca.pem"  # the registry keeps it there for the broker
    if not path.exists():
        return None
    from cryptography import x509  # 0.1 s, only where there is something to read

    try:
        return max(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes()))
    except ValueError:
        raise OSError(f"{path} is no certificate") from None


def warning(end: dt.datetime) -> str | None:
    """Give what to tell people; None while there is time."""
    days = (end - dt.datetime.fromtimestamp(clock.now_ns() / clock.NS_PER_S, dt.UTC)).days
    if days >= WARN_DAYS:
        return None
    told = f"the certificate authority of this installation {'ended' if days < 0 else 'ends'} on {end:%Y-%m-%d}"
    return f"{told}: headwater ca renew"
