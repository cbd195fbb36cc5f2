"""Write docs/reference/settings.md from the table in `tokenwire.server.settings`.

``python scripts/settings_table.py`` writes it; with ``--check`` it only says whether it is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
PAGE = ROOT / "docs" / "reference" / "settings.md"

HEAD = """# Settings of the server

<!-- Made by scripts/settings_table.py from src/tokenwire/server/settings.py. -->

Every setting is a flag of `tokenwire serve`, an environment variable, and a key of a TOML file. A
flag wins over the environment, the environment over the file, the file over the default. The file
is the one of `--config` or `TOKENWIRE_CONFIG`, else `tokenwire.toml` in the working directory.

Times may carry a unit (`500ms`, `30s`, `5m`, `24h`), sizes too (`64KiB`, `1MiB`). Lists are flags
given several times, comma-separated environment variables, or TOML arrays. An unknown key, a bad
value, or a combination that would be unsafe ends the start with one line and exit code 2.

```toml
# tokenwire.toml
model = ["openai:gpt-5-mini", "demo"]
store = "sqlite:chat.db"
retention = "7d"
heartbeat = 15
```
"""


def page() -> str:
    """The whole page."""
    from tokenwire.server.settings import settings_table

    lines = [HEAD]
    group = ""
    for row in settings_table():
        if row.group != group:
            group = row.group
            lines += [
                f"\n## {group}\n",
                "| Flag | Environment | Default | Meaning |",
                "|---|---|---|---|",
            ]
        choices = f" One of {', '.join(row.choices)}." if row.choices else ""
        lines.append(f"| `{row.flag}` | `{row.env}` | {_default(row)} | {row.help}{choices} |")
    return "\n".join(lines) + "\n"


def _default(row: object) -> str:
    value, unit = row.default, row.unit  # type: ignore[attr-defined]
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    if unit == "s":
        return f"{value:g} s"
    if unit == "B":
        return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"
    return f"`{value}`"


def main() -> int:
    wanted = page()
    if "--check" in sys.argv:
        current = PAGE.read_text("utf-8") if PAGE.exists() else ""
        if current != wanted:
            print("docs/reference/settings.md is old: run python scripts/settings_table.py")
        return int(current != wanted)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
