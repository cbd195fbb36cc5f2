"""Runs on a store: the one place where a run meets a log.

What is above, the server first of all, imports the store from here and passes it to `Runs`; it does
not import `tokenwire.log`.
"""

from tokenwire.log.base import Store
from tokenwire.log.open import open_store, store_over

__all__ = ["Store", "open_store", "store_over"]
