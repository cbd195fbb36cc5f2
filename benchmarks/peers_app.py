"""The servers that most tutorials end with: a model's stream through FastAPI and the official SDK.

Run by `gateway_peers.py` with the interpreter of an environment that has ``fastapi``, ``openai``,
``sse-starlette`` and ``uvicorn``; it imports nothing of this project.

    python benchmarks/peers_app.py fastapi PORT http://127.0.0.1:9000/v1
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from sse_starlette.sse import EventSourceResponse


def app_for(kind: str, upstream: str) -> FastAPI:
    """One route, ``POST /chat``, that streams the model's text."""
    app = FastAPI()
    client = AsyncOpenAI(base_url=upstream, api_key="none", max_retries=0)

    async def tokens() -> AsyncIterator[str]:
        messages = [{"role": "user", "content": "x"}]
        stream = await client.chat.completions.create(model="bench", messages=messages, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def lines() -> AsyncIterator[str]:
        async for token in tokens():
            yield f"data: {token}\n\n"

    async def events() -> AsyncIterator[dict[str, str]]:
        async for token in tokens():
            yield {"event": "token", "data": token}

    @app.post("/chat")
    async def chat():
        if kind == "sse-starlette":
            return EventSourceResponse(events())
        return StreamingResponse(lines(), media_type="text/event-stream")

    return app


if __name__ == "__main__":
    _, kind, port, upstream = sys.argv
    uvicorn.run(
        app_for(kind, upstream), port=int(port), access_log=False, log_level="error", backlog=4096
    )
