"""The ring of I/O: asks go in, answers come out. One port, two implementations: `blocking` and `loop`.

Here is what both share: the words for what can go wrong, so that a check and the daemon say the same of the same fault.

    FetchError                 reason, and one sentence: circumstance, got, want
"""

from __future__ import annotations

from sentinel.address import masked
from sentinel.model import TYPE_CHECKING, Failure
from sentinel.units import duration, size

if TYPE_CHECKING:
    from sentinel.address import Address
    from sentinel.model import Get

HEAD_LIMIT = 64 << 10  # bytes of status line and headers together; servers themselves take 8 to 64 KiB

# What a person reads where the kernel's own words are worse. Keys are errno values (errno(3)).
_ERRNO = {
    111: ("connect_refused", "connection refused, nothing listens there"),
    104: ("answer_cut", "connection reset by the server"),
    32: ("answer_cut", "connection reset by the server"),
    2: ("connect_refused", "no such socket"),
    13: ("no_access", "permission denied"),
    110: ("timeout", "the connection timed out"),
}


class FetchError(Exception):
    """Why a GET brought no response."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def of(self, get: Get) -> Failure:
        return Failure(self.reason, f"GET {masked(get.url)}: {self.detail}")


def from_os_error(exc: OSError) -> FetchError:
    """The kernel's refusal as a word and a sentence."""
    reason, detail = _ERRNO.get(exc.errno or 0, ("unreachable", exc.strerror or str(exc)))
    return FetchError(reason, detail)


def too_slow(phase: str, budget_s: float) -> FetchError:
    """`phase` is how far it came: connecting, connected or answering."""
    got = {"connecting": "no connection", "connected": "connected but no answer", "answering": "answer not complete"}
    return FetchError("timeout", f"{got[phase]} within {duration(budget_s)}")


def unresolved(host: str, why: str) -> FetchError:
    return FetchError("dns_failed", f"cannot resolve {host!r} ({why})")


def body_too_large(limit: int) -> FetchError:
    return FetchError("body_too_large", f"the body is larger than {size(limit)}, the limit (max_body)")


def head_too_large() -> FetchError:
    return FetchError("header_too_large", f"the headers are larger than {size(HEAD_LIMIT)}, the limit")


def cut() -> FetchError:
    return FetchError("answer_cut", "the connection closed before the answer was complete")


def not_http(why: str) -> FetchError:
    return FetchError("not_http", f"the answer is not HTTP ({why})")


def tls_failed(why: str) -> FetchError:
    return FetchError("tls_failed", f"no TLS connection ({why})")


def request_headers(get: Get, address: Address) -> list[tuple[str, str]]:
    """The headers of a request beside Host and Connection: what the probe gives, and what its URL's userinfo means."""
    headers = [("Accept", get.accept), ("User-Agent", "sentinel"), *get.headers]
    if address.userinfo:
        import binascii  # only a URL with credentials in it pays

        token = binascii.b2a_base64(_unquoted(address.userinfo), newline=False).decode()
        headers.append(("Authorization", f"Basic {token}"))
    return headers


def _unquoted(text: str) -> bytes:
    """%XX back to bytes (RFC 3986 §2.1); a stray percent sign stays as it is."""
    head, *parts = text.encode().split(b"%")
    out = bytearray(head)
    for part in parts:
        try:
            out += bytes.fromhex(part[:2].decode()) + part[2:] if len(part) >= 2 else b"%" + part
        except ValueError:
            out += b"%" + part
    return bytes(out)
