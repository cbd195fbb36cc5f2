"""An OpenAPI document as one page of HTML, for ``/docs``.

Always true: the page has no script and loads nothing: its style is in it, and its policy allows
that very style and nothing else; every text of the document is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from typing import Any

__all__ = ["PAGE_POLICY", "page"]

Json = dict[str, Any]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
code, pre, .path { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { overflow-x: auto; padding: 0.5rem; border: 1px solid #8886; border-radius: 4px; }
details { border-top: 1px solid #8886; padding: 0.4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.6rem 0.2rem 0; }
td { overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0.5rem; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_CODE = re.compile(r"`([^`]+)`")
_NAMED = re.compile(r"#/components/schemas/(\w+)")


def page(document: Json, *, base: str) -> bytes:
    """The page of ``document``; ``base``: the prefix that its paths have here."""
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            html = _operation(document, base, method, path, operation)
            by_tag[operation["tags"][0]].append(html)
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: HTTP API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{_prose(info['description'])}</p>",
        f'<p><a href="{escape(base)}/openapi.json">OpenAPI {document["openapi"]}</a>, ',
        f'<a href="{escape(base)}/openapi.json?version=3.1">3.1</a></p>',
        '<nav aria-label="Subjects"><ul>',
        *(f'<li><a href="#{_anchor(tag)}">{escape(tag)}</a></li>' for tag in by_tag),
        "</ul></nav><main>",
    ]
    for tag, operations in by_tag.items():
        parts += [f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>', *operations]
    parts += [_sockets(document), _schemas(document), "</main></body></html>\n"]
    return "".join(parts).encode()


def _operation(document: Json, base: str, method: str, path: str, operation: Json) -> str:
    head = (
        f'<summary><span class="method">{method.upper()}</span>'
        f'<span class="path">{escape(path)}</span> {_prose(operation["summary"])}</summary>'
    )
    rows = [
        (
            f"<code>{escape(p['name'])}</code>",
            escape(p["in"]) + (" (required)" if p.get("required") else ""),
            _prose(p.get("description", "")) + _values(p["schema"]),
        )
        for p in operation.get("parameters", ())
    ]
    body = operation.get("requestBody")
    if body is not None:
        rows += [
            ("body", escape(kind) + (" (required)" if body["required"] else ""), _link(content))
            for kind, content in body["content"].items()
        ]
    answers = [
        _answer(status, _resolved(document, response))
        for status, response in operation["responses"].items()
    ]
    return (
        f'<details id="{escape(operation["operationId"])}">{head}'
        f"<p>{_prose(operation.get('description', ''))}</p>"
        f"{_table(('Name', 'Where', 'Meaning'), rows) if rows else ''}"
        f"{_table(('Status', 'Type', 'Meaning'), answers)}"
        f"<pre>{escape(_curl(base, method, path, operation))}</pre></details>"
    )


def _answer(status: str, response: Json) -> tuple[str, str, str]:
    kinds = [f"{escape(k)} {_link(c)}" for k, c in response.get("content", {}).items()]
    return status, "<br>".join(kinds), _prose(response["description"])


def _resolved(document: Json, response: Json) -> Json:
    ref = response.get("$ref")
    if ref is None:
        return response
    return document["components"]["responses"][ref.rpartition("/")[2]]


def _link(content: Json) -> str:
    """The names of the schemas of a body, as links."""
    names = dict.fromkeys(_NAMED.findall(json.dumps(content)))
    return " ".join(f'<a href="#schema-{name}">{name}</a>' for name in names)


def _values(schema: Json) -> str:
    values = schema.get("enum")
    return f" ({', '.join(f'<code>{escape(str(v))}</code>' for v in values)})" if values else ""


def _curl(base: str, method: str, path: str, operation: Json) -> str:
    words = ["curl", *(["-X", method.upper()] if method != "get" else [])]
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        words += ["-H", "'Content-Type: application/json'", "-d", "'{...}'"]
    return " ".join([*words, f"'http://127.0.0.1:8765{base}{path}'"])


def _sockets(document: Json) -> str:
    rows = [
        (f"<code>{escape(path)}</code>", _prose(s["summary"]), _prose(s["text"]))
        for path, s in document.get("x-websockets", {}).items()
    ]
    if not rows:
        return ""
    return f'<h2 id="websockets">WebSockets</h2>{_table(("Path", "What", "Messages"), rows)}'


def _schemas(document: Json) -> str:
    parts = ['<h2 id="schemas">Schemas</h2>']
    for name, schema in document["components"]["schemas"].items():
        text = _prose(schema.get("description", ""))
        body = {key: value for key, value in schema.items() if key not in ("title", "description")}
        code = escape(json.dumps(body, indent=1, ensure_ascii=False))
        linked = _NAMED.sub(lambda m: f'<a href="#schema-{m[1]}">{m[1]}</a>', code)
        parts.append(
            f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
            f"<p>{text}</p><pre>{linked}</pre></details>"
        )
    return "".join(parts)


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _prose(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _anchor(tag: str) -> str:
    return re.sub(r"\W+", "-", tag.lower())
