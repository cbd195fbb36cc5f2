"""nginx, HAProxy and Caddy as Debian sets them up, before a server of a test: on free ports, in
temporary folders, ended by their id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.free_ports import free_port

__all__ = ["KINDS", "ReverseProxy", "nginx_with", "proxy_with", "reverse_proxy"]

KINDS = ["nginx", "haproxy"]
_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"

_NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
worker_processes 1;
events {{ }}
http {{
    access_log off;
    gzip on;  # as in Debian's nginx.conf
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {body}
    }}
}}
"""

#: The timeouts are those of Debian's haproxy.cfg.
_HAPROXY = """
global
    stats socket {folder}/control level admin
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
frontend here
    bind 127.0.0.1:{port}
    default_backend there
backend there
    server one 127.0.0.1:{upstream}
"""

_CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    {body}
}}
"""


class ReverseProxy:
    """One proxy process. `reload` makes it read its settings again, as after a change of them."""

    def __init__(self, kind: str, settings: Callable[[str, int], str]) -> None:
        found = shutil.which(kind) or shutil.which(kind, path=_PLACES)
        if found is None:
            pytest.skip(f"{kind} is not installed")
        self.kind, self._binary = kind, found
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.mkdtemp(prefix="tokenwire-proxy-")
        self._file = Path(self.folder) / "settings"
        self._file.write_text(settings(self.folder, self.port))
        self._processes = [self._launch()]
        self._wait()

    def _launch(self, *more: str) -> subprocess.Popen[bytes]:
        words = {
            "nginx": ["-p", self.folder, "-c"],
            "haproxy": ["-db", "-f"],
            "caddy": ["run", "--adapter", "caddyfile", "--config"],
        }[self.kind]
        output = (Path(self.folder) / "output").open("ab")
        with output:
            return subprocess.Popen(
                [self._binary, *words, str(self._file), *more],
                stdout=output,
                stderr=output,
                env={**os.environ, "HOME": self.folder},
            )

    def _wait(self) -> None:
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=40).close()
                return
            said = (Path(self.folder) / "output").read_text()
            assert self._processes[-1].poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.02)

    def reload(self) -> None:
        """As ``nginx -s reload``, or a new haproxy that takes over from the old one."""
        if self.kind == "nginx":
            before = self._workers()
            self._processes[0].send_signal(signal.SIGHUP)
            end = time.monotonic() + 60
            while self._workers() <= before:
                assert time.monotonic() < end, "nginx started no new worker"
                time.sleep(0.02)
            return
        old = self._processes[-1]
        self._processes.append(self._launch("-sf", str(old.pid)))
        self._wait()

    def _workers(self) -> set[int]:
        number = self._processes[0].pid
        return set(map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split()))

    def stop(self) -> None:
        for process in self._processes:
            # A master that is killed leaves its workers; one that is asked ends them.
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _running(kind: str, settings: Callable[[str, int], str]) -> Iterator[ReverseProxy]:
    proxy = ReverseProxy(kind, settings)
    try:
        yield proxy
    finally:
        proxy.stop()


@contextlib.contextmanager
def reverse_proxy(kind: str, upstream: int) -> Iterator[ReverseProxy]:
    """A proxy with nothing set but where the server is."""

    def settings(folder: str, port: int) -> str:
        if kind == "haproxy":
            return _HAPROXY.format(folder=folder, port=port, upstream=upstream)
        return _nginx(folder, port, f"location / {{ proxy_pass http://127.0.0.1:{upstream}; }}")

    with _running(kind, settings) as proxy:
        yield proxy


@contextlib.contextmanager
def nginx_with(body: str) -> Iterator[ReverseProxy]:
    """nginx with these lines in its ``server``."""
    with _running("nginx", lambda folder, port: _nginx(folder, port, body)) as proxy:
        yield proxy


@contextlib.contextmanager
def proxy_with(kind: str, body: str, upstream: int) -> Iterator[ReverseProxy]:
    """A proxy with these lines of its own: in nginx's ``server``, at the end of HAProxy's file, in
    Caddy's site."""

    def settings(folder: str, port: int) -> str:
        if kind == "nginx":
            return _nginx(folder, port, body)
        if kind == "caddy":
            return _CADDY.format(port=port, body=body)
        return _HAPROXY.format(folder=folder, port=port, upstream=upstream) + body + "\n"

    with _running(kind, settings) as proxy:
        yield proxy


def _nginx(folder: str, port: int, body: str) -> str:
    # Its workers would change to a user who may not enter the folder.
    user = "user root;" if os.getuid() == 0 else ""
    return _NGINX.format(folder=folder, port=port, body=body, user=user)
