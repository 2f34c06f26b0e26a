"""Starts localstripe on 127.0.0.1, as a program of its own: its own command line would listen on every address. Argument: the port."""

import sys
import threading

from aiohttp import web
from localstripe import server


def end_with_parent() -> None:
    sys.stdin.read()
    import os

    os._exit(0)


threading.Thread(target=end_with_parent, daemon=True).start()
web.run_app(server.app, host="127.0.0.1", port=int(sys.argv[1]), print=lambda *_: print("READY", flush=True))
