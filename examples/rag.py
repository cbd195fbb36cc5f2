"""Retrieval: the pages of docs/ that fit the question, found by SQLite, then a model's answer.

``make serve AGENT=examples/rag.py:rag`` serves it with the demo model; as a program it answers one
question.
"""

import asyncio
import re
import sqlite3
from pathlib import Path

import tokenwire
from tokenwire import RunContext, agent, system

DOCS = Path(__file__).resolve().parent.parent / "docs"


def search(question: str) -> list[dict[str, str]]:
    """The four sections that fit best."""
    base = sqlite3.connect(":memory:")
    base.execute("CREATE VIRTUAL TABLE section USING fts5(page, title, body)")
    for page in sorted(DOCS.rglob("*.md")):
        for section in re.split(r"^#+ ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            title, _, body = section.partition("\n")
            row = (str(page.relative_to(DOCS)), title, body)
            base.execute("INSERT INTO section VALUES (?, ?, ?)", row)
    words = " OR ".join(re.findall(r"[A-Za-z0-9]{3,}", question)) or "tokenwire"
    found = base.execute(
        "SELECT page, title, substr(body, 1, 800) FROM section WHERE section MATCH ?"
        " ORDER BY rank LIMIT 4",
        (words,),
    )
    return [{"page": page, "title": title, "text": text} for page, title, text in found]


@agent
async def rag(ctx: RunContext):
    sections = await ctx.step("search", search, ctx.prompt)
    ctx.progress(0.5, f"reading {len(sections)} sections")
    ctx.data("sources", [f"{s['page']}: {s['title']}" for s in sections], id="sources")
    text = "\n\n".join(f"{s['title']}\n{s['text']}" for s in sections)
    guide = system(f"Answer from these sections only:\n\n{text}")
    async with ctx.stream([guide, *ctx.messages], model="demo") as answer:
        await answer.result()
    yield f"\n\nRead on: {', '.join(sorted({s['page'] for s in sections}))}"


async def main() -> None:
    async with tokenwire.stream("How does a reader resume after a cut?", model=rag) as run:
        async for text in run.text():
            print(text, end="", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
