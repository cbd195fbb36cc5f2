"""Who owns a run: the name of a process, from which others of its machine can see that it died.

Always true: an owner is declared dead only by a process for which its number means the same, in
the same boot of the same kernel and the same namespace of process numbers; two containers may
share a file and a host name, and then only leases tell.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from functools import lru_cache
from pathlib import Path

__all__ = ["may_live", "new_owner"]

#: The names of this process: each server or `Live` in it has its own.
_OWN: set[str] = set()


@lru_cache(maxsize=1)
def _scope() -> str:
    """Where our process number means what it means to us."""
    if sys.platform != "linux":
        return sys.platform  # without namespaces of process numbers
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:13]
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return secrets.token_hex(8)  # nobody else's


def new_owner() -> str:
    """``host:pid:random:scope`` of this process."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}:{_scope()}"
    _OWN.add(owner)
    return owner


def _is_unreaped(pid: int) -> bool:
    """Whether the process is dead, and has its number only until its parent asks what became of it,
    which a parent that is no supervisor may never do."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return False  # the numbers there are those of another namespace
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"Z", b"X")


def may_live(owner: str) -> bool:
    """Whether an owner's process may still run; True when this process cannot know."""
    parts = owner.split(":")
    if len(parts) != 4:
        return True
    host, pid, _, scope = parts
    if host != socket.gethostname() or scope != _scope() or not pid.isdigit():
        return True
    if sys.platform == "win32":
        return True  # there is no signal that only looks
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    if int(pid) != os.getpid():
        return not _is_unreaped(int(pid))
    # Our own number in a name that is not ours: a reused number. A process may hold several names.
    return owner in _OWN
