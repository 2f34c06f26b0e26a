"""The shop's endpoint: takes signed messages over HTTP, writes down what it heard, and can be down in several ways."""

import base64
import hashlib
import hmac
import json
from collections import Counter
from pathlib import Path

from aiohttp import web

LISTENER = "web"


class Inbox:
    """Writes one line for each message that it acknowledges. `mode` is up, failing (503) or hanging."""

    def __init__(self, path: Path, listener: str = LISTENER) -> None:
        self._path = path
        self._listener = listener
        self.secret = ""
        self.mode = "up"
        self.counts: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def is_open(self) -> bool:
        """Does it accept connections?"""
        return self._runner is not None

    @property
    def url(self) -> str:
        """Where it takes messages."""
        return f"http://127.0.0.1:{self._port}/payonce/"

    async def start(self, port: int = 0) -> int:
        """Listen on a port of the loopback address, a free one where none is given; returns it."""
        app = web.Application()
        app.router.add_post("/payonce/", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        place = web.TCPSite(self._runner, "127.0.0.1", port or self._port, reuse_address=True)
        await place.start()
        self._port = self._runner.addresses[0][1]
        return self._port

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.mode == "failing":
            self.counts["refused"] += 1
            return web.Response(status=503)
        if not self._is_signed(request, body):
            self.counts["unsigned"] += 1
            return web.Response(status=401)
        line = {**json.loads(body), "listener": self._listener}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.counts["told"] += 1
        return web.Response(status=500 if self.mode == "deaf" else 204)

    def _is_signed(self, request: web.Request, body: bytes) -> bool:
        """Standard Webhooks: base64 of HMAC-SHA256 over id, time and body, under the secret behind `whsec_`."""
        name, at = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
        wanted = b"v1," + base64.b64encode(digest)
        given = request.headers.get("webhook-signature", "").encode().split(b" ")
        return any(hmac.compare_digest(wanted, one) for one in given)
