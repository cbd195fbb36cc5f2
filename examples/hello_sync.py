"""The same without async."""

from tokenwire import sync

with sync.stream("Hello", model="demo") as run:
    for text in run.text():
        print(text, end="", flush=True)
print()
