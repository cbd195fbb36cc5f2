"""A plain socket that asks the simulator and keeps every byte, for tests of faults."""

import asyncio
import json


class Heard:
    """What came back: the head, the body as HTTP chunks, and how the connection ended."""

    def __init__(self):
        self.raw = b""
        self.reset = False
        self.pieces = []
        self.ended = False
        self.silent = False

    @property
    def status(self):
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self):
        lines = self.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    @property
    def body(self):
        return b"".join(self.pieces)

    def frames(self):
        return [frame for frame in self.body.split(b"\n\n") if frame]

    def unchunk(self):
        head, _, rest = self.raw.partition(b"\r\n\r\n")
        if b"content-length" in head:
            self.pieces, self.ended = [rest], True
            return
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                self.ended = True
                return
            self.pieces.append(rest[:length])
            rest = rest[length + 2 :]


async def hear(server, prompt, faults="", *, path="/v1/chat/completions", stream=True, quiet=2.0):
    """Ask, read until the end, a break, or ``quiet`` seconds of silence."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = {"model": "demo", "max_tokens": 4000, "stream": stream}
    body["messages"] = [{"role": "user", "content": prompt}]
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += f"content-length: {len(data)}\r\nx-sim-faults: {faults}\r\n\r\n"
    writer.write(head.encode() + data)
    heard = Heard()
    try:
        while data := await asyncio.wait_for(reader.read(65536), quiet):
            heard.raw += data
    except ConnectionResetError:
        heard.reset = True
    except TimeoutError:
        heard.silent = True
    writer.close()
    heard.unchunk()
    return heard
