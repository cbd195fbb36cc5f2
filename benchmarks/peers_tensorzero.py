"""TensorZero's gateway, as its Python package starts it in a process; no database.

Run by `gateway_peers.py` with the interpreter of an environment that has ``tensorzero`` and
``openai``. Its package starts a gateway on a port of its own choosing, which goes into a file.

    python benchmarks/peers_tensorzero.py http://127.0.0.1:9000/v1 PORT_FILE
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path

from openai import OpenAI
from tensorzero import patch_openai_client

CONFIG = """
[gateway]
observability.enabled = false

[models.bench]
routing = ["local"]

[models.bench.providers.local]
type = "openai"
model_name = "bench"
api_base = "%s"
api_key_location = "none"
"""


def main() -> None:
    upstream, port_file = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tensorzero.toml")
        config.write_text(CONFIG % upstream)
        os.environ["TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS"] = "1"
        client = OpenAI(api_key="none")
        patch_openai_client(client, config_file=str(config), async_setup=False)
        Path(port_file).write_text(str(client.base_url.port))
        threading.Event().wait()


if __name__ == "__main__":
    main()
