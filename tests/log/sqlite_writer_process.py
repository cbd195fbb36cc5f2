"""A process that appends to a SQLite log until it is killed, and prints what was accepted.

Arguments: URL, stream, first epoch's owner. Each line: epoch, offset accepted.
"""

from __future__ import annotations

import asyncio
import sys

from tokenwire.log.open import open_store


def record(stream: str, offset: int) -> bytes:
    return f"{stream}:{offset}:".encode() + b"x" * (offset % 200)


async def main(url: str, stream: str, count: int) -> None:
    log = open_store(url)
    await log.start()
    claim = await log.claim(stream, owner="child", lease=0)
    if claim is None:
        await log.create(stream, owner="child", lease=0)
        epoch, offset = 1, 0
    else:
        epoch, offset = claim.epoch, claim.tail
    for _ in range(count):
        size = 1 + offset % 3
        records = [record(stream, offset + n) for n in range(1, size + 1)]
        done = await log.append(stream, epoch=epoch, first=offset + 1, records=records)
        if done.status == "fenced":
            break
        assert done.status == "ok", done
        offset = done.tail
        sys.stdout.write(f"{epoch} {offset}\n")
        sys.stdout.flush()
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
