"""A real server on a free port, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette


@contextlib.contextmanager
def running_server(app: Starlette) -> Iterator[str]:
    """Run an app in a thread of this process and give its URL; at the end the app is shut down properly.

    Example:
        ``with running_server(create_app(engine)) as url: Engine.connect(url).status()``
    """
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    quiet: dict[str, Any] = {
        "log_level": "critical",
        "access_log": False,
        "ws": "none",
        "server_header": False,
    }
    config = uvicorn.Config(app, timeout_graceful_shutdown=5, **quiet)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
