"""Real PostgreSQL servers for tests: on free ports, in temporary folders, ended by their id.

`initdb` refuses root, so that root starts them as the user ``postgres`` (or ``nobody``).
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.free_ports import free_port

__all__ = ["BIN", "PgBouncer", "PostgresServer", "need_postgres", "postgres_server"]

PR_SET_PDEATHSIG = 1

#: Starts all servers: a child gets its signal when the thread ends that started it.
_STARTER = ThreadPoolExecutor(1)

#: What ordinary tests need no disk for. A test of what survives leaves them out.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _folder() -> str | None:
    folder = os.environ.get("TOKENWIRE_TEST_POSTGRES_BIN")
    if folder:
        return folder
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_number)
    if folders:
        return folders[-1]
    server = shutil.which("postgres")
    return str(Path(server).parent) if server else None


def _number(folder: str) -> int:
    text = Path(folder).parent.name
    return int(text) if text.isdigit() else 0


#: Where the programs of the newest PostgreSQL are; TOKENWIRE_TEST_POSTGRES_BIN names another.
BIN = _folder()


def need_postgres() -> str:
    """The folder of the programs; skips the test, saying why, when there is no server to start."""
    if BIN is None:
        pytest.skip("PostgreSQL is not installed")
    return BIN


def _user() -> pwd.struct_passwd | None:
    """As whom root starts a server; None for everybody else."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("no user but root to run PostgreSQL as")


def _become(number: int) -> Callable[[], None]:
    """For a child: be that user, and get the signal when this process dies, however it does."""
    user = _user()
    library = ctypes.CDLL(None)

    def become() -> None:
        if user is not None:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        library.prctl(PR_SET_PDEATHSIG, number)

    return become


def _is_alive(pid: int) -> bool:
    """Whether it runs: one that has ended may wait for somebody to ask for its result."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def own(folder: str) -> None:
    """Give a folder to the user of the servers."""
    user = _user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)


class PostgresServer:
    """One cluster with one server. `start` waits until it takes statements; `kill` is kill -9.
    ``settings`` are of postgresql.conf."""

    def __init__(
        self, *, fast: bool = True, folder: str | None = None, **settings: str | int
    ) -> None:
        self.bin = need_postgres()
        self.port = free_port()
        self._own = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="tokenwire-postgres-")
        self.data = f"{self.folder}/data"
        self.settings = {**(FAST if fast else {}), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        if self._own:
            own(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://tokenwire@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> str:
        """The output of a program of PostgreSQL, run as the server's user."""
        done = subprocess.run(
            [f"{self.bin}/{program}", *arguments],
            preexec_fn=_become(signal.SIGKILL),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{program}: {done.stderr[-500:]}"
        return done.stdout

    def sql(self, statement: str) -> str:
        """What a statement gives: fields with a bar between them, rows in lines."""
        options = ["-qAtX", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tokenwire"]
        return self.run("psql", *options, "-c", statement, "postgres").strip()

    def standby(self) -> PostgresServer:
        """A standby of this server, which holds all that this one has now."""
        other = PostgresServer(**self.settings)
        source = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tokenwire"]
        self.run("pg_basebackup", "-D", other.data, "-R", "-X", "stream", "-c", "fast", *source)
        return other.start()

    def caught_up(self, standby: PostgresServer) -> bool:
        """Whether ``standby`` has replayed all that this server wrote."""
        place = self.sql("SELECT pg_current_wal_lsn()")
        return standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{place}'::pg_lsn") == "t"

    def initialize(self) -> None:
        options = ["--auth=trust", "--username=tokenwire", "--encoding=UTF8", "--locale=C"]
        self.run("initdb", "-D", self.data, *options, "--no-sync", "--data-checksums")

    def start(self) -> PostgresServer:
        if not os.path.exists(f"{self.data}/PG_VERSION"):
            self.initialize()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "autovacuum_naptime": "10s",
            "log_min_messages": "fatal",
            "log_min_error_statement": "panic",
            "dynamic_shared_memory_type": "mmap",
            **self.settings,
        }
        command = [f"{self.bin}/postgres", "-D", self.data, "-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = open(f"{self.folder}/log", "ab")  # noqa: SIM115 - the server's from now on
        options = {"preexec_fn": _become(signal.SIGQUIT), "cwd": "/", "stdout": log, "stderr": log}
        self._process = _STARTER.submit(subprocess.Popen, command, **options).result()
        log.close()
        end = time.monotonic() + 60
        while not self._is_ready():
            if self._process.poll() is not None:
                raise AssertionError(f"postgres ended: {self.log()[-800:]}")
            assert time.monotonic() < end, "postgres does not become ready"
            time.sleep(0.02)
        return self

    def _is_ready(self) -> bool:
        """Its last line but for blanks says so; a standby is ``standby`` there."""
        with contextlib.suppress(OSError):
            lines = Path(f"{self.data}/postmaster.pid").read_text().splitlines()
            return (
                len(lines) >= 8
                and lines[0] == str(self.pid)
                and lines[7].strip() in ("ready", "standby")
            )
        return False

    def log(self) -> str:
        return Path(f"{self.folder}/log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def pids(self) -> list[int]:
        """All processes of the server, the first one first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def signal_all(self, number: int) -> None:
        """Send a signal to every process of the server."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """kill -9 of every process, and wait until all are gone."""
        if self._process is None:
            return
        pids = self.pids() if self._process.poll() is None else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(20)
        end = time.monotonic() + 20
        while any(map(_is_alive, pids)) and time.monotonic() < end:
            time.sleep(0.01)
        self._process = None
        with contextlib.suppress(OSError):
            os.unlink(f"{self.data}/postmaster.pid")

    def restart(self) -> None:
        """kill -9, and start again on the same port and files."""
        self.kill()
        self.start()

    def stop(self) -> None:
        self.kill()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def postgres_server(*, fast: bool = True, **settings: str | int) -> Iterator[PostgresServer]:
    server = PostgresServer(fast=fast, **settings)
    try:
        yield server.start()
    finally:
        server.stop()


class PgBouncer:
    """A pooler in transaction mode before ``server``."""

    def __init__(self, server: PostgresServer, *, mode: str = "transaction") -> None:
        binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            pytest.skip("pgbouncer is not installed")
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="tokenwire-pgbouncer-")
        own(self.folder)
        settings = Path(f"{self.folder}/pgbouncer.ini")
        settings.write_text(
            "[databases]\n"
            f"postgres = host=127.0.0.1 port={server.port} user=tokenwire\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 4\n"
            f"server_idle_timeout = 1\nlogfile = {self.folder}/log\n"
        )
        settings.chmod(0o644)
        options = {"preexec_fn": _become(signal.SIGKILL), "cwd": "/", "stderr": subprocess.DEVNULL}
        command = [binary, "-q", str(settings)]
        self._process = _STARTER.submit(subprocess.Popen, command, **options).result()

    @property
    def url(self) -> str:
        return f"postgresql://tokenwire@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
