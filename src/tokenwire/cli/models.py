"""``tokenwire models``: available models, and what the others need."""

from __future__ import annotations

import msgspec

from tokenwire.providers.registry import Registry

__all__ = ["run_models"]


def run_models(*, as_json: bool) -> None:
    """Print the table."""
    infos = Registry().models()
    if as_json:
        print(msgspec.json.encode(infos).decode())
        return
    width = max(len(info.example or info.name) for info in infos)
    for ready in (True, False):
        rows = [info for info in infos if info.configured is ready]
        if not rows:
            continue
        print("Ready:" if ready else "\nNot configured:")
        for info in rows:
            what = info.title if ready else f"{info.title}: {info.missing}"
            print(f"  {info.example or info.name:<{width}}  {what}")
    print(
        "\nAny model of a provider works by name. Also: URL#MODEL for a compatible server,"
        "\nPATH.gguf for a local file. Example: tokenwire chat -m demo Hello"
    )
