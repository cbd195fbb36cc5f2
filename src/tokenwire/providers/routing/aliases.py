"""Aliases: names of an operator's own for models.

Always true: an alias leads to one model, never to another alias; a registry of the caller is read
and never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.registry import Registry

__all__ = ["Aliased", "aliases_of", "shadowed"]

_MOST = 200


def aliases_of(value: str | Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """Alias -> model, from ``NAME=MODEL`` texts or a mapping. Raises `ConfigError` for what is no
    alias, for two of one name, and for one that leads to an alias."""
    pairs: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        pairs += value.items()
    else:
        for item in [value] if isinstance(value, str) else value:
            name, equals, model = item.partition("=")
            if not equals:
                raise ConfigError(f"an alias must be NAME=MODEL, not '{item[:_MOST]}'")
            pairs.append((name.strip(), model.strip()))
    aliases: dict[str, str] = {}
    for name, model in pairs:
        if not isinstance(name, str) or not isinstance(model, str) or not name or not model:
            raise ConfigError("an alias must be NAME=MODEL, with both of them")
        if len(name) > _MOST or not name.isprintable() or " " in name or "," in name:
            raise ConfigError(
                f"the alias {name[:_MOST]!r} must be at most {_MOST} printable characters without "
                "spaces and commas"
            )
        if aliases.setdefault(name, model) != model:
            raise ConfigError(f"the alias '{name}' has two models: {aliases[name]} and {model}")
    for name, model in aliases.items():
        if model == name:
            raise ConfigError(f"the alias '{name}' leads to itself; name a model")
        if model in aliases:
            raise ConfigError(
                f"the alias '{name}' leads to the alias '{model}'; name its model: {aliases[model]}"
            )
    return aliases


class Aliased(Registry):
    """The models of ``registry``, and ``aliases`` of some of them."""

    def __init__(self, registry: Registry, aliases: Mapping[str, str]) -> None:
        # An object of the caller's may stand for a registry, and have `resolve` alone.
        own = isinstance(registry, Registry)
        super().__init__(demo_url=registry.demo_url if own else None)
        self._registry, self._aliases = registry, aliases

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        """The dialect and target of a model or an alias ``name``. Raises as `Registry.resolve`
        does; the message names the alias."""
        model = self._aliases.get(name)
        if model is None:
            return self._registry.resolve(name)
        try:
            return self._registry.resolve(model)
        except ConfigError as error:
            raise ConfigError(f"the alias '{name}': {error.message}") from error
        except TokenwireError as error:
            raise type(error)(f"the alias '{name}': {error.message}") from error

    def reads(self, variable: str) -> bool:
        """Whether an environment ``variable`` has a meaning for some provider."""
        return self._registry.reads(variable)


def shadowed(aliases: Mapping[str, str], registry: Registry) -> list[str]:
    """Aliases whose names are models themselves, which cannot be reached any more."""
    names: list[str] = []
    for name in aliases:
        try:
            registry.resolve(name)
        except TokenwireError:
            continue
        names.append(name)
    return names
