"""Run ids: hard to guess, easy to copy."""

from __future__ import annotations

import math
import re

from tokenwire.run import stream


def test_an_id_is_22_letters_and_digits_and_keeps_every_random_bit(monkeypatch):
    drawn = {0, 1, 61, 62, (1 << 130) - 1, 1 << 129, 12345678901234567890}
    ids = set()
    for number in drawn:
        monkeypatch.setattr(stream.secrets, "randbits", lambda bits, n=number: n % (1 << bits))
        ids.add(stream.new_run_id())
    assert len(ids) == len(drawn)
    assert all(re.fullmatch("[A-Za-z0-9]{22}", word) for word in ids)
    assert math.log2(62) * 22 > 130  # or two numbers would share an id
