"""The same without async."""

from tokenwire import sync

with sync.stream("demo", "Hello") as run:
    for text in run.text():
        print(text, end="", flush=True)
print()
