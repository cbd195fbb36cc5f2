"""A FastAPI app whose answers stream, survive their readers, and can be read again.

python examples/fastapi_app.py 8000
curl -N -X POST 'http://127.0.0.1:8000/chat?prompt=Hello'
"""

import sys

import uvicorn
from fastapi import FastAPI, Request

from tokenwire.server import Live

live = Live("memory:", models=["demo"])  # sqlite:chat.db keeps the answers
app = FastAPI(lifespan=live.lifespan)


@app.post("/chat")
async def chat(prompt: str):
    return await live.start(prompt)


@app.get("/chat/{run}")
async def again(run: str, request: Request):
    return await live.resume(run, request.headers.get("last-event-id"))


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
