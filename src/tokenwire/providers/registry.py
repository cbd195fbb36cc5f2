"""Model names to a dialect and a target: ``openai:gpt-5``, ``http://host/v1#name``, ``demo``, ...

Always true: addresses, headers and keys come from the configuration and the environment, never from
a name's own text beyond what the configuration allowed; a dialect's module is imported when it is
first used; a bad name is told at once, with what would be right.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from tokenwire.errors import ConfigError, UnknownModelError
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.clocks import CLOCKS, checked_clocks, clocks_of, variable_prefix
from tokenwire.providers.compatible import PROVIDERS, QUIRKS, Provider
from tokenwire.providers.credentials.clouds import cloud_credential, extra_of
from tokenwire.providers.credentials.credential import Credential, called
from tokenwire.providers.credentials.key_file import key_file

__all__ = ["DIALECTS", "FAMILIES", "ModelInfo", "Registry", "read_providers"]

#: Dialect -> the module that has it as ``DIALECT``.
DIALECTS: dict[str, str] = {
    "openai-chat": "tokenwire.providers.openai.chat",
    "openai-responses": "tokenwire.providers.openai.responses",
    "anthropic": "tokenwire.providers.anthropic.decoder",
    "gemini": "tokenwire.providers.google.gemini",
    "gemini-interactions": "tokenwire.providers.google.interactions",
    "ollama": "tokenwire.providers.ollama",
    "cohere": "tokenwire.providers.cohere",
    "bedrock-converse": "tokenwire.providers.bedrock.converse",
    "completions": "tokenwire.providers.openai.completions",
}
#: Family of a recorded stream -> the dialect that reads it.
FAMILIES: dict[str, str] = {
    "chat": "openai-chat",
    "responses": "openai-responses",
    "messages": "anthropic",
    "gemini": "gemini",
    "interactions": "gemini-interactions",
    "ollama": "ollama",
    "ollama-generate": "ollama",
    "cohere-v2": "cohere",
    "converse": "bedrock-converse",
    "completions": "completions",
}
#: Where third parties register: an entry point gives a `Provider`, a dialect, or a list of both.
ENTRY_POINTS = "tokenwire.providers"
#: The key for servers that are named by their address.
ADDRESS_KEY = "TOKENWIRE_MODEL_API_KEY"
#: Before the names of its clocks: ``TOKENWIRE_MODEL_IDLE_TIMEOUT``.
ADDRESS_PREFIX = "TOKENWIRE_MODEL"
#: A TOML file with further providers, one table each: `read_providers`.
PROVIDERS_FILE = "TOKENWIRE_PROVIDERS"
#: What such a server does differently: names of quirks, separated by blanks.
ADDRESS_QUIRKS = "TOKENWIRE_MODEL_QUIRKS"

_ADDRESS = re.compile(
    r"(?:(?P<dialect>[a-z][a-z-]*)\+)?(?P<url>https?://[^\s#]+)(?:#(?P<model>.*))?"
)
_MODEL = re.compile(r"[^\s\x00-\x1f\x7f?#%\\]{1,256}")
#: One for all: an empty set takes 200 bytes.
_NO_QUIRKS: frozenset[str] = frozenset()
#: Names of which what they mean is kept.
_MOST_RESOLVED = 256
_BLANK = re.compile(r"\{([A-Z0-9_]+)(?::([^{}]*))?\}")
_HOST_ONLY = re.compile(r"[a-zA-Z0-9._\-\[\]:]+")


class ModelInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of `tokenwire models`: a prefix, and what it still needs."""

    name: str
    title: str
    dialect: str
    base_url: str
    configured: bool
    #: What to set, when it is not configured.
    missing: str | None = None
    example: str | None = None


class Registry:
    """The models that this process may call, and how.

    ``demo_url``: where the demo model listens. ``providers``: rows that add to or replace those of
    the table. ``env``: where keys and addresses are looked up (the process's environment).
    ``keys``: provider -> a function that returns its key, plain or async (a text, asked for before
    each call, or a `tokenwire.providers.credentials.credential.Token` with its end), or a
    `Credential`.
    """

    def __init__(
        self,
        *,
        demo_url: str | None = None,
        providers: Iterable[Provider] = (),
        env: Mapping[str, str] | None = None,
        keys: Mapping[str, Callable[[], Any] | Credential] | None = None,
    ) -> None:
        self.demo_url = demo_url
        self._keys = dict(keys or {})
        self._credentials: dict[str, Credential] = {}
        self._env = os.environ if env is None else env
        own = [*read_providers(self._env.get(PROVIDERS_FILE) or None), *providers]
        self._providers = {**PROVIDERS, **{p.name: p for p in own}}
        self._dialects: dict[str, Dialect] = {}
        self._resolved: dict[str, tuple[Dialect, Target]] = {}
        self._plugins_read = False

    @property
    def has_demo(self) -> bool:
        """Whether the demo model's address is known."""
        return self.demo_url is not None

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        """The dialect and target of a model ``name``.

        Raises `UnknownModelError` for a name that means nothing, and `ConfigError` when a key or
        an address is missing. The first use of a ``.gguf`` file loads it, which takes its time.
        """
        resolved = self._resolve(name)
        # The same object while it says the same: each run under way has one.
        before = self._resolved.get(name)
        if before is not None and before == resolved:
            return before
        if len(self._resolved) >= _MOST_RESOLVED:
            self._resolved.clear()
        self._resolved[name] = resolved
        return resolved

    def _resolve(self, name: str) -> tuple[Dialect, Target]:
        if name == "demo":
            return self._demo()
        address = _ADDRESS.fullmatch(name)
        if address is not None:
            return self._by_address(name, address)
        if name.lower().endswith(".gguf"):
            return self._gguf(name)
        prefix, colon, model = name.partition(":")
        provider = self._provider(prefix) if colon else None
        if provider is None:
            raise UnknownModelError(self._unknown(name, prefix), model=name[:200])
        return self.dialect(provider.dialect), self._target(provider, model)

    def dialect(self, name: str) -> Dialect:
        """A dialect by its ``name`` or by the family of a recorded stream. Raises
        `UnknownModelError`."""
        name = FAMILIES.get(name, name)
        dialect = self._dialects.get(name)
        if dialect is not None:
            return dialect
        module = DIALECTS.get(name)
        if module is None:
            self._read_plugins()
            if name in self._dialects:
                return self._dialects[name]
            names = ", ".join(sorted({*DIALECTS, *self._dialects}))
            raise UnknownModelError(f"unknown dialect '{name}'; choose one of {names}")
        dialect = cast(Dialect, importlib.import_module(module).DIALECT)
        self._dialects[name] = dialect
        return dialect

    def models(self) -> list[ModelInfo]:
        """Every provider, with the settings that are missing to use it."""
        self._read_plugins()
        models = [
            ModelInfo(
                name="demo",
                title="Simulated answers, without a key or a network",
                dialect="openai-chat",
                base_url=self.demo_url or "",
                configured=True,
            )
        ]
        for provider in self._providers.values():
            url, missing = self._url(provider)
            if missing is None and provider.keys and self._key(provider) is None:
                missing = f"set {' or '.join(provider.keys)}"
            models.append(
                ModelInfo(
                    name=provider.name,
                    title=provider.title,
                    dialect=provider.dialect,
                    base_url=url,
                    configured=missing is None,
                    missing=missing,
                    example=f"{provider.name}:{provider.example}",
                )
            )
        return models

    def address(self, provider: Provider) -> str | None:
        """The base URL of a ``provider``; None while a variable that it needs is not set, or where
        it is none of HTTP."""
        url, lacking = self._url(provider)
        return url if lacking is None else None

    # --- each kind of name -----------------------------------------------------------------------

    def reads(self, variable: str) -> bool:
        """Whether a key, an address or a deadline of some model comes from the environment
        ``variable``. Packages that register providers count, too; they are loaded only when nothing
        else reads it."""
        if variable in (PROVIDERS_FILE, ADDRESS_KEY, ADDRESS_QUIRKS):
            return True
        if self._some_provider_reads(variable):
            return True
        self._read_plugins()
        return self._some_provider_reads(variable)

    def _some_provider_reads(self, variable: str) -> bool:
        is_clock = variable.endswith(tuple(f"_{clock.upper()}_TIMEOUT" for clock in CLOCKS))
        prefixes = [ADDRESS_PREFIX, *map(variable_prefix, self._providers)]
        if is_clock and variable.startswith(tuple(f"{prefix}_" for prefix in prefixes)):
            return True
        return any(
            variable in (*provider.keys, *(f"{key}_FILE" for key in provider.keys), *provider.urls)
            or variable == f"{variable_prefix(provider.name)}_BASE_URL"
            or any(match[1] == variable for match in _BLANK.finditer(provider.base_url))
            for provider in self._providers.values()
        )

    def _demo(self) -> tuple[Dialect, Target]:
        if self.demo_url is None:
            raise ConfigError("the demo model is not running; start it, or set 'demo_url'")
        target = Target(
            provider="demo", dialect="openai-chat", model="demo", base_url=self.demo_url.rstrip("/")
        )
        return self.dialect("openai-chat"), target

    def _by_address(self, name: str, match: re.Match[str]) -> tuple[Dialect, Target]:
        url, model = match["url"].rstrip("/"), match["model"] or ""
        if "@" in url.partition("//")[2].partition("/")[0]:
            raise UnknownModelError(
                f"a model address must not contain a user or password; set {ADDRESS_KEY} instead"
            )
        if "?" in url:
            raise UnknownModelError("a model address must not contain a query ('?...')")
        if not model:
            raise UnknownModelError(
                f"the model's name is missing in '{name[:200]}'; write URL#MODEL"
            )
        dialect = self.dialect(match["dialect"] or "openai-chat")
        host = url.partition("//")[2].partition("/")[0]
        target = Target(
            provider=host,
            dialect=dialect.name,
            model=_checked(model),
            base_url=url,
            api_key=self._env.get(ADDRESS_KEY) or None,
            quirks=self._address_quirks(),
            clocks=clocks_of(self._env, ADDRESS_PREFIX, model, {}),
        )
        return dialect, target

    def _gguf(self, name: str) -> tuple[Dialect, Target]:
        from tokenwire.providers import local

        return self.dialect("openai-chat"), local.target(name)

    def _target(self, provider: Provider, model: str) -> Target:
        url, missing = self._url(provider)
        key = self._key(provider)
        credential = (
            self._credential(provider) if key is None or provider.name in self._keys else None
        )
        if missing is None and provider.keys and key is None and credential is None:
            missing = f"set {' or '.join(provider.keys)}" + _extra_hint(provider)
        if missing is not None:
            raise ConfigError(f"{provider.title} is not configured: {missing}")
        return Target(
            provider=provider.name,
            dialect=provider.dialect,
            model=_checked(model),
            base_url=url,
            api_key=key if credential is None else None,
            credential=credential,
            headers=provider.headers,
            quirks=provider.quirks,
            clocks=clocks_of(self._env, variable_prefix(provider.name), model, provider.clocks),
        )

    def _address_quirks(self) -> frozenset[str]:
        names = self._env.get(ADDRESS_QUIRKS, "").split()
        if not names:
            return _NO_QUIRKS
        quirks = frozenset(names)
        unknown = sorted(quirks - set(QUIRKS))
        if unknown:
            raise ConfigError(
                f"{ADDRESS_QUIRKS}: unknown quirk '{unknown[0]}'; choose from {', '.join(QUIRKS)}"
            )
        return quirks

    # --- configuration ---------------------------------------------------------------------------

    def _provider(self, prefix: str) -> Provider | None:
        provider = self._providers.get(prefix)
        if provider is None:
            self._read_plugins()
            provider = self._providers.get(prefix)
        return provider

    def _key(self, provider: Provider) -> str | None:
        return next((k for name in provider.keys if (k := self._env.get(name, "").strip())), None)

    def _credential(self, provider: Provider) -> Credential | None:
        """What gives a key that changes: a function of the caller, a file, a cloud's library."""
        credential = self._credentials.get(provider.name)
        if credential is None:
            credential = self._new_credential(provider)
            if credential is not None:
                self._credentials[provider.name] = credential
        return credential

    def _new_credential(self, provider: Provider) -> Credential | None:
        source = self._keys.get(provider.name)
        if isinstance(source, Credential):
            return source
        if source is not None:
            return called(f"the key function of '{provider.name}'", source)
        for name in provider.keys:
            if path := self._env.get(f"{name}_FILE", "").strip():
                return key_file(path, f"{name}_FILE")
        return cloud_credential(provider, self._env)

    def _url(self, provider: Provider) -> tuple[str, str | None]:
        """The base URL, and what must be set for it."""
        own = f"{variable_prefix(provider.name)}_BASE_URL"
        for name in (own, *provider.urls):
            address = self._env.get(name, "").strip().rstrip("/")
            if address:
                if "://" not in address and _HOST_ONLY.fullmatch(address):
                    address = f"http://{address}"
                if not address.startswith(("http://", "https://")):
                    return address, f"{name} must begin with http:// or https://"
                return address, None
        lacking: list[str] = []

        def fill(match: re.Match[str]) -> str:
            value = self._env.get(match[1], "").strip().rstrip("/") or match[2]
            if not value:
                lacking.append(match[1])
            return value or match[0]

        url = _BLANK.sub(fill, provider.base_url)
        if not lacking and not url.startswith(("http://", "https://")):
            url = f"https://{url}"
        return url, f"set {' and '.join(lacking)}" if lacking else None

    def _read_plugins(self) -> None:
        """Take what installed packages register; a broken one is named, not hidden."""
        if self._plugins_read:
            return
        self._plugins_read = True
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINTS):
            try:
                loaded = point.load()
            except Exception as error:
                raise ConfigError(
                    f"the provider plugin '{point.name}' cannot be loaded: {type(error).__name__}"
                ) from error
            for item in loaded if isinstance(loaded, list | tuple) else [loaded]:
                if isinstance(item, Provider):
                    self._providers.setdefault(item.name, item)
                elif hasattr(item, "decoder") and hasattr(item, "name"):
                    self._dialects.setdefault(item.name, cast(Dialect, item))
                else:
                    raise ConfigError(
                        f"the provider plugin '{point.name}' returns a {type(item).__name__}; "
                        "it must be a Provider or a dialect"
                    )

    def _unknown(self, name: str, prefix: str) -> str:
        from difflib import get_close_matches

        printable = name[:80] if name.isprintable() else repr(name[:80])
        near = get_close_matches(prefix, [*self._providers, "demo"], 1, 0.6)
        if near:
            example = "demo" if near[0] == "demo" else f"{near[0]}:MODEL"
            return f"unknown model '{printable}'; did you mean '{example}'?"
        return (
            f"unknown model '{printable}'; write demo, PROVIDER:MODEL (such as "
            "openai:gpt-5-mini), URL#MODEL, or a path that ends in .gguf"
        )


def read_providers(path: str | None) -> list[Provider]:
    """The providers of a TOML file: a table each, with the fields of `Provider`. Raises
    `ConfigError` naming the table and what is wrong with it."""
    if path is None:
        return []
    try:
        data = Path(path).read_bytes()
        tables = msgspec.toml.decode(data, type=dict[str, dict[str, Any]])
    except OSError as error:
        raise ConfigError(
            f"{PROVIDERS_FILE}: '{Path(path).name}' cannot be read: {error.strerror}"
        ) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(
            f"{PROVIDERS_FILE}: '{Path(path).name}' is not a table of providers: {error}"
        ) from error
    return [_row(name, fields) for name, fields in tables.items()]


def _row(name: str, fields: dict[str, Any]) -> Provider:
    unknown = sorted(set(fields) - set(Provider.__struct_fields__) | ({"name"} & set(fields)))
    if unknown:
        raise ConfigError(f"provider '{name}' has no setting '{unknown[0]}'")
    try:
        row = msgspec.convert({"title": name, **fields, "name": name}, Provider)
    except msgspec.ValidationError as error:
        raise ConfigError(f"provider '{name}': {error}") from error
    checked_clocks(f"provider '{name}'", row.clocks)
    odd = sorted(row.quirks - set(QUIRKS))
    if odd:
        raise ConfigError(f"provider '{name}' has the unknown quirk '{odd[0]}'")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name == "demo":
        raise ConfigError(f"provider '{name}': a name has small letters, digits and '-' only")
    return row


def _extra_hint(provider: Provider) -> str:
    extra = extra_of(provider)
    return f", or pip install 'tokenwire[{extra}]' for the cloud's own credentials" if extra else ""


def _checked(model: str) -> str:
    """A model's name goes into addresses of some wires, so it may not climb out of them."""
    if not _MODEL.fullmatch(model) or ".." in model.split("/") or model.startswith("/"):
        raise UnknownModelError(
            "the model's name is empty, too long, or contains an invalid character"
        )
    return model
