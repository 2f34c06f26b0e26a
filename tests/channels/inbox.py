"""A shop's notification address on 127.0.0.1 that keeps what it receives and answers as told."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from payonce.channels.messages import NotificationRequest

Answer = Callable[[NotificationRequest], tuple[int, bytes]]


class Inbox:
    """Received messages, in order of arrival."""

    def __init__(self) -> None:
        self.messages: list[NotificationRequest] = []
        self.answer: Answer = lambda _: (200, b"success")
        self.url = ""
        self._arrived: queue.SimpleQueue[NotificationRequest] = queue.SimpleQueue()

    def take(self, message: NotificationRequest) -> tuple[int, bytes]:
        """Keep a message, then answer."""
        self.messages.append(message)
        self._arrived.put(message)
        return self.answer(message)

    def next(self, seconds: float = 10.0) -> NotificationRequest:
        """Wait for the next message. Raises queue.Empty."""
        return self._arrived.get(timeout=seconds)

    def is_empty(self) -> bool:
        """True where every message was taken by `next`."""
        return self._arrived.empty()


@contextlib.contextmanager
def inbox() -> Iterator[Inbox]:
    """A running inbox."""
    box = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = box.take(NotificationRequest(body, headers))
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.url = f"http://127.0.0.1:{server.server_port}/notify/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
