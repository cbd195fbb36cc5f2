"""Events: the small typed values that a run consists of, their JSON form, and their fold.

::

    from tokenwire.events import TextDelta, ToolResult
"""

from tokenwire.events import model
from tokenwire.events.codec import AnyEvent, decode, encode
from tokenwire.events.fold import Fold
from tokenwire.events.model import *  # noqa: F403

__all__ = ["AnyEvent", "Fold", "decode", "encode"]
__all__ += model.__all__
