"""All benchmarks, one after the other (``make bench``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    for script in ("ingest.py", "serve.py"):
        print(f"\n== {script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).parent / script)], check=True)
