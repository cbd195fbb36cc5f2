"""An application with its own login and database, whose answers come from tokenwire.

``python examples/app/app.py 8000``; README.md beside this file says more.
"""

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import uvicorn
from database import Database
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

import tokenwire
from tokenwire import RunContext, ToolContext
from tokenwire.server import Live

HERE = Path(__file__).parent
DATA = Path(os.environ.get("APP_DATA", HERE / "data"))
DATA.mkdir(mode=0o700, exist_ok=True)
database = Database(DATA / "app.db")

# --- the answers: everything that concerns tokenwire ---------------------------------------------


def signed_in(connection: HTTPConnection) -> str | None:
    return connection.session.get("name")


@tokenwire.tool(needs_approval=True, idempotent=True)
def delete_file(path: str, context: ToolContext) -> str:
    """Delete one of the person's files."""
    is_deleted = database.delete_file(context.principal, path)
    return f"{path} is deleted" if is_deleted else f"there is no file {path}"


async def read_files(ctx: RunContext) -> list[tokenwire.Message]:
    files = await ctx.step("search", database.search, ctx.principal, ctx.prompt, idempotent=True)
    ctx.data("sources", [file["path"] for file in files], id="sources")
    texts = "\n\n".join(f"{file['path']}:\n{file['text']}" for file in files)
    return [tokenwire.system(f"Answer from the person's files:\n\n{texts}"), *ctx.messages]


def save_answer(ended: tokenwire.EndedRun) -> None:
    database.save(
        run=ended.run,
        person=ended.principal,
        thread=ended.thread or ended.run,
        question=ended.input[-1].text,
        answer=ended.message.text,
        outcome=ended.outcome,
    )


live = Live(
    f"sqlite:{DATA / 'runs.db'}",
    models=[os.environ.get("APP_MODEL", "demo")],
    tools=[delete_file],
    prepare=read_files,
    on_end=save_answer,
)
app = FastAPI(title="Files with answers", lifespan=live.lifespan)
app.include_router(live.router(prefix="/ai", user=Depends(signed_in)))

# --- the application: people, sessions, history --------------------------------------------------


class Credentials(BaseModel):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")
    password: str = Field(min_length=8, max_length=200)


def person(name: Annotated[str | None, Depends(signed_in)]) -> str:
    if name is None:
        raise HTTPException(401, "sign in first")
    return name


Person = Annotated[str, Depends(person)]


@app.post("/people", status_code=201)
def sign_up(request: Request, credentials: Credentials) -> dict[str, str]:
    if not database.add_person(credentials.name, credentials.password):
        raise HTTPException(409, "this name is taken")
    request.session["name"] = credentials.name
    return {"name": credentials.name}


@app.post("/session")
def sign_in(request: Request, credentials: Credentials) -> dict[str, str]:
    if not database.has_password(credentials.name, credentials.password):
        raise HTTPException(401, "wrong name or password")
    request.session["name"] = credentials.name
    return {"name": credentials.name}


@app.delete("/session", status_code=204)
def sign_out(request: Request) -> None:
    request.session.clear()


@app.get("/session")
def who_am_i(name: Person) -> dict[str, str]:
    return {"name": name}


@app.get("/files")
def files(name: Person) -> list[str]:
    return database.files(name)


@app.get("/conversations")
def conversations(name: Person) -> list[dict[str, str]]:
    return database.conversations(name)


@app.get("/conversations/{thread}")
def messages(thread: str, name: Person) -> list[dict[str, str]]:
    return database.messages(name, thread)


def secret_of_sessions() -> str:
    """Made once, and kept beside the data, so that a restart signs nobody out."""
    file = DATA / "secret"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32))
    return file.read_text()


app.add_middleware(SessionMiddleware, secret_key=secret_of_sessions(), same_site="lax")
pages = os.environ.get("APP_PAGES", HERE / "web" / "dist")
app.mount("/", StaticFiles(directory=pages, html=True, check_dir=False))

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, log_level="warning")
