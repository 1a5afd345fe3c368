"""Who may speak to the page's server: this machine's browser, or who has the token."""

import hmac
from ipaddress import ip_address

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "melpatch_token"
_NAMES = {"localhost", "127.0.0.1", "::1"}
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; frame-ancestors 'none'"
)


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Lets requests through that come from this machine's browser, or bring the token.

    Without a token, the name that a request is addressed to must be one of this machine: a page of
    somebody else, whose name was made to point here, is refused. Changes must be sent as JSON, and
    files as bytes, which such a page cannot without being asked first.

    Args:
        app: the server.
        token: what requests must bring, in a cookie or once as ``?token=``; None on a loopback
            address.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(HTTPConnection(scope), scope["method"])
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, request: HTTPConnection, method: str) -> Response | None:
        if method == "POST":
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            if kind not in ("application/json", "application/octet-stream"):
                return _refused("changes are sent as JSON, and files as bytes")
        if self._token is None:
            if request.url.hostname in _NAMES:
                return None
            return _refused("open the page by http://localhost")
        given = request.query_params.get("token")
        if given is not None and hmac.compare_digest(given.encode(), self._token.encode()):
            answer = RedirectResponse(request.url.path)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        kept = request.cookies.get(COOKIE, "")
        if hmac.compare_digest(kept.encode(), self._token.encode()):
            return None
        return _refused("open the page by the address with its token, as it was printed")


def _refused(reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=403)
