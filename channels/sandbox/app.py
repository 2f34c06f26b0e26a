"""The bank as an ASGI application: wallet under `/wallet/`, control API under `/_ctl/`, and for the rest the port's skin."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from payonce.channels.sandbox.asgi import (
    Receive,
    Request,
    Response,
    Scope,
    Send,
    TooLargeError,
    read_request,
    send_response,
)
from payonce.channels.sandbox.bank import Bank
from payonce.channels.sandbox.control_api import ControlApi
from payonce.channels.sandbox.faults import DropError
from payonce.channels.sandbox.skins import OWN
from payonce.channels.sandbox.wallet import Wallet

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class App:
    """Routes requests. `after_control` runs after each control call, before it is answered.

    `accounts_by_port` names the account behind each port that only one account has.
    """

    def __init__(self, bank: Bank, token: str) -> None:
        self._bank = bank
        self.accounts_by_port: dict[int, str] = {}
        self._wallet = Wallet(bank)
        self._control = ControlApi(bank, token)
        self.after_control: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox serves http, not {scope['type']}")
        try:
            request = await read_request(scope, receive)
            await send_response(send, await self._serve(request, scope["server"][1]))
        except TooLargeError:
            await send_response(send, Response(413))
        except DropError:
            await _break_connection(receive, send)

    async def _serve(self, request: Request, port: int) -> Response:
        account = self._bank.accounts.get(self.accounts_by_port.get(port, ""))
        skin = account.skin if account is not None else OWN
        is_ours = request.path == "/" or request.path.startswith(("/wallet/", "/_ctl/"))
        if not is_ours and (skin != OWN or request.path.startswith("/v1/")):
            return await self._bank.skins[skin].serve(account, request)
        # A page in the browser must not reach the wallet or the controls under a name of its own (DNS rebinding).
        if request.headers.get("host", "").rpartition(":")[0] not in _LOCAL_NAMES and not _is_bare_local(request):
            return Response(421)
        if request.path.startswith("/_ctl/"):
            response = await self._control.serve(request)
            if self.after_control is not None and request.method == "POST":
                await self.after_control()
            return response
        if request.path == "/":
            return Response(303, b"", {"location": "/wallet/"})
        if request.path.startswith("/wallet/"):
            return await self._wallet.serve(request)
        return Response(404)


def _is_bare_local(request: Request) -> bool:
    return request.headers.get("host", "") in _LOCAL_NAMES


async def _break_connection(receive: Receive, send: Send) -> None:
    """Close the connection without finishing the answer. ASGI has no word for it, so uvicorn's transport is used."""
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("planned drops need uvicorn without middleware")
    transport.close()
    with contextlib.suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
