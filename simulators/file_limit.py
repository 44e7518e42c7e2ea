"""Allow this process a socket for each of its devices."""

from __future__ import annotations

import resource

_SPARE_FILES = 64


def raise_file_limit(devices: int) -> None:
    """Raise the soft limit of open files as far as the devices need.

    Raises:
        ValueError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = devices + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise ValueError(
            f"--devices: {devices} in one process need {wanted} open files, the limit here is {hard}"
            " (ulimit -Hn, or more --processes)"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
