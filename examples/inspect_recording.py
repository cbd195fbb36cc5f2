"""Recorded bytes of a provider to typed events, and back to a message. No network involved."""

from tokenwire.events.fold import fold
from tokenwire.providers.registry import Registry

RECORDED = b"""\
data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}

data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}

data: [DONE]

"""

decoder = Registry().dialect("chat").decoder(content_type="text/event-stream")
events = []
for start in range(0, len(RECORDED), 7):  # however the bytes are cut
    events += decoder.feed(RECORDED[start : start + 7])
events += decoder.finish()

for event in events:
    print(event.type)
state = fold(events)
print(repr(state.text), state.finish_reason)
