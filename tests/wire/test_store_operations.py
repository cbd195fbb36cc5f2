"""What a request costs the store: starting in a long list of threads, resuming a long chat."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from support.server import Reading, Site, site


def ui(prompt: str, chat: str, number: int = 1) -> dict[str, Any]:
    message = {
        "id": f"u{number}",
        "role": "user",
        "parts": [{"type": "text", "text": prompt}],
    }
    return {"id": chat, "messages": [message], "trigger": "submit-message"}


class Counted:
    """Counts the reading operations of a site's store, and the documents that they return."""

    def __init__(self, here: Site) -> None:
        self.calls: Counter[str] = Counter()
        self.documents = 0
        #: Of the single documents that were read.
        self.names: list[str] = []
        store = here.app.state.store
        for name in ("describe", "read", "thread", "documents", "document"):
            setattr(store, name, self._counted(name, getattr(store, name)))

    def _counted(self, name: str, method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            result = await method(*args, **kwargs)
            # Which conversations have something to start every process looks at, now and then.
            is_list = name == "documents" and args[0] != "conversation-pending"
            self.documents += len(result) if is_list else 0
            self.names += args[1:2] if name == "document" else []
            return result

        return call

    def reset(self) -> None:
        self.calls.clear()
        self.documents = 0


def test_a_start_does_not_read_the_other_threads() -> None:
    with site() as here:
        for number in range(30):
            here.start("scenario:text", thread=f"t{number}")
        end = time.monotonic() + 45
        pending = here.app.state.store._documents.get("conversation-pending", {})
        while pending and time.monotonic() < end:  # what looks after the other threads is done
            time.sleep(0.02)
        counted = Counted(here)
        here.start("scenario:text", thread="one-more")
        assert counted.documents == 0
        # The thread's own entry; its head and queue, and the request until its run is there.
        assert all("one-more" in name or ".0" in name for name in counted.names)
        assert counted.calls["document"] <= 20


def test_resuming_a_chat_looks_at_its_newest_run_alone() -> None:
    with site() as here:
        for number in range(12):
            body = ui("scenario:text", "long", number)
            assert here.client.post("/api/chat", json=body).is_success
        run = here.start("scenario:stall", thread="long")
        Reading.get(here.port, f"/v1/runs/{run}/events").until(b"text-delta")
        counted = Counted(here)
        reading = Reading.get(here.port, "/api/chat/long/stream")
        reading.until(b"text-delta")
        reading.close()
        assert counted.calls["thread"] == 1
        assert counted.calls["describe"] <= 3
        assert counted.calls["read"] <= 2  # the follower's own, and no other of the whole log
        here.client.post(f"/v1/runs/{run}/cancel")
