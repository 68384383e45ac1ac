"""A separate ROS domain for each test process, so that parallel runs do not communicate."""

import fcntl
import os
from pathlib import Path
import tempfile
from typing import IO

# Domains up to 101 are legal everywhere: the ports of higher ones reach into those that Linux
# gives out by itself.
DOMAINS = range(1, 102)
# Open lock files: the system releases their locks when the process ends.
_claimed: list[IO[str]] = []


def claim_domain() -> int:
    """
    Return a domain that no other test process of this user on this machine has claimed.

    :raises RuntimeError: all domains are claimed.
    """
    folder = Path(tempfile.gettempdir()) / f'lingbot_va_ros_test_domains_{os.getuid()}'
    folder.mkdir(exist_ok=True)
    first = os.getpid() % len(DOMAINS)
    for domain in (*DOMAINS[first:], *DOMAINS[:first]):
        file = (folder / f'{domain}.lock').open('w')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _claimed.append(file)
        return domain
    raise RuntimeError(f'all {len(DOMAINS)} ROS domains are claimed by locks in {folder}')
