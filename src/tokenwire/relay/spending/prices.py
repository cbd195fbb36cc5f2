"""What tokens cost, by the table of `genai-prices`, an optional package.

Always true: nothing is fetched, so a price is that of the installed table, whose name and version
stand beside every amount; a model without a price has none, which is not the same as costing
nothing; amounts are whole billionths of a US dollar, so that sums are exact.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from tokenwire.errors import ConfigError
from tokenwire.relay.spending.counts import Counts
from tokenwire.relay.spending.meter import ModelCall

__all__ = [
    "NANOS",
    "GenaiPrices",
    "NoPrices",
    "OwnPrices",
    "Prices",
    "installed_prices",
    "own_prices",
]

_log = logging.getLogger("tokenwire.relay")

#: Billionths of a dollar.
NANOS = 1_000_000_000

#: Our counts and the table's names for them.
_NAMES = {
    "input_tokens": "input_tokens",
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "input_image_tokens": "input_image_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "output_image_tokens": "output_image_tokens",
}


#: Kinds that need a price of their own: that of the rest says nothing about it.
_NEEDED = {
    "input_tokens": "input_mtok",
    "output_tokens": "output_mtok",
    "input_audio_tokens": "input_audio_mtok",
    "output_audio_tokens": "output_audio_mtok",
}
#: Providers (of the table) that bill audio as text, unless the table has a price of it.
_AUDIO_AS_TEXT = ("google",)
#: What our names of providers have for their wires.
_WIRE = re.compile(r"-(?:responses|completions|anthropic|interactions)\Z")
_NUMBER = r"\$?([0-9]{1,6}(?:\.[0-9]{1,9})?)"
_ROW = re.compile(rf"([^\s/=]+/[^\s=]+)={_NUMBER}/{_NUMBER}")
_MOST_ROW = 300


class Prices(Protocol):
    """A table of prices. ``table``: its name and version; None without one."""

    @property
    def table(self) -> str | None:
        """As above."""
        ...

    def cost(self, call: ModelCall) -> int | None:
        """What a call cost, in billionths of a dollar; None where that is not known."""
        ...


class NoPrices:
    """No table: what anything costs is not known."""

    table: str | None = None

    def cost(self, call: ModelCall) -> int | None:
        """Not known."""
        return None


class GenaiPrices:
    """The table of the installed `genai-prices`. `load` it before use."""

    def __init__(self) -> None:
        self.table: str | None = f"genai-prices {version('genai-prices')}"
        self._snapshot: Any = None
        self._usage: Any = None

    def load(self) -> None:
        """Read the table, which takes some 0.4 s: not on an event loop."""
        module = import_module("genai_prices.data_snapshot")
        self._usage = import_module("genai_prices").Usage
        # The table of the package itself, whatever an application has set for others.
        self._snapshot = module.DataSnapshot(
            providers=import_module("genai_prices.data").providers, from_auto_update=False
        )

    def cost(self, call: ModelCall) -> int | None:
        """What a call cost; None for a model, or a kind of tokens, without a price."""
        counts = call.counts
        if counts is None or counts.unsplit_tokens or self._snapshot is None:
            return None
        for model in dict.fromkeys(filter(None, (call.served, call.model))):
            try:
                return self._cost(model, call, counts)
            except (LookupError, ValueError, ArithmeticError) as error:
                _log.debug("no price of %s: %s", model, error)
            except Exception:  # a fault of the package holds up no run
                _log.exception("the price of %s could not be read", model)
        return None

    def _cost(self, model: str, call: ModelCall, counts: Counts) -> int:
        usage = {
            name: count for field, name in _NAMES.items() if (count := getattr(counts, field)) > 0
        }
        at = datetime.fromtimestamp(call.time / 1000, UTC)
        price = self._price(self._usage(**usage), model, call.provider, at)
        for name, key in _NEEDED.items():
            # The table would count these as nothing, or as text, which costs less.
            if usage.get(name) and getattr(price.model_price, key) is None:
                if name == "input_audio_tokens" and price.provider.id in _AUDIO_AS_TEXT:
                    continue
                raise LookupError(f"the table has no {key}")
        nanos = Decimal(price.total_price) * NANOS
        return int(nanos.quantize(Decimal(1), rounding=ROUND_HALF_UP))

    def _price(self, usage: Any, model: str, provider: str | None, at: datetime) -> Any:
        """The table's answer, by our name of the provider or that without the wire in it
        (``xai-responses``)."""
        try:
            return self._snapshot.calc(usage, model, provider, None, at)
        except LookupError:
            base = _WIRE.sub("", provider or "")
            if base == (provider or ""):
                raise
            return self._snapshot.calc(usage, model, base, None, at)


class OwnPrices:
    """Prices of the operator's own, before those of another table. ``rows``: by model, as bills
    name it (``ollama/llama3``), billionths of a dollar for a million tokens in and out; every kind
    of input costs the one, every kind of output the other, tokens that are neither the dearer."""

    def __init__(self, rows: dict[str, tuple[int, int]], prices: Prices) -> None:
        self._rows, self._prices = rows, prices

    @property
    def table(self) -> str | None:
        """The other table, and that there are others."""
        return " and ".join(filter(None, (self._prices.table, "own prices" if self._rows else "")))

    def cost(self, call: ModelCall) -> int | None:
        """As `Prices` says."""
        row = self._rows.get(call.name)
        if row is None or call.counts is None:
            return self._prices.cost(call)
        counts, (enter, leave) = call.counts, row
        total = counts.input_tokens * enter + counts.output_tokens * leave
        total += counts.unsplit_tokens * max(enter, leave)
        return (total + 500_000) // 1_000_000


def own_prices(texts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Prices as they are written: ``ollama/llama3=0/0``, dollars for a million tokens in and out.
    Raises `ConfigError`."""
    rows: dict[str, tuple[int, int]] = {}
    for text in texts:
        match = _ROW.fullmatch(text.strip())
        if match is None or len(text) > _MOST_ROW:
            raise ConfigError(
                "a price is written as PROVIDER/MODEL=IN/OUT, dollars for a million tokens, as "
                f"ollama/llama3=0.05/0.2, not '{text[:80]}'"
            )
        rows[match[1]] = (int(Decimal(match[2]) * NANOS), int(Decimal(match[3]) * NANOS))
    return rows


async def installed_prices() -> Prices:
    """The table that is installed, ready for use."""
    try:
        prices = GenaiPrices()
        await asyncio.to_thread(prices.load)
    except PackageNotFoundError:
        _log.warning(
            "no prices are installed (tokenwire[prices]); usage is counted in tokens alone"
        )
    except Exception:  # of another version, or damaged
        _log.exception("the prices could not be read; usage is counted in tokens alone")
    else:
        return prices
    return NoPrices()
