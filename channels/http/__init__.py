"""The two drivers that run an adapter's conversation. Beside the sandbox server, only this package opens sockets.

`run` blocks and is for web requests and tasks; `AsyncDriver` serves the poller's hundreds of concurrent queries;
`post_to_public` sends a message to an address that somebody else chose. None of them follows a redirect, reads a proxy
from the environment, or sends anything twice.
"""

from payonce.channels.http.asynchronous import AsyncDriver, run_async
from payonce.channels.http.blocking import Transport, close_idle_connections, run, send
from payonce.channels.http.public import post_to_public

__all__ = ["AsyncDriver", "Transport", "close_idle_connections", "post_to_public", "run", "run_async", "send"]
