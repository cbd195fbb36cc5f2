"""PNG frames and their times (frames.json) as one animated WebP; runs where Pillow is.

python scripts/film/encode.py FOLDER OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image


def above(page: Path, strip: Path) -> Image.Image:
    """Both pictures in one, the page at the top."""
    top, bottom = Image.open(page), Image.open(strip)
    whole = Image.new("RGB", (top.width, top.height + bottom.height))
    whole.paste(top, (0, 0))
    whole.paste(bottom, (0, top.height))
    return whole


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    frames = json.loads((folder / "frames.json").read_text())
    pictures = [above(folder / page, folder / strip) for page, strip, _ in frames]
    pictures[0].save(
        out,
        save_all=True,
        append_images=pictures[1:],
        duration=[max(40, round(seconds * 1000)) for *_, seconds in frames],
        loop=0,
        lossless=True,
        quality=90,
        method=6,
        minimize_size=True,
    )


if __name__ == "__main__":
    main()
