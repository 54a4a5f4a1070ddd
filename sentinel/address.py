"""Where something is reached: http and https URLs, and `unix:PATH`. Parsing only; it must never resolve or connect.

Stands apart because `urllib.parse` costs 9 ms to import and accepts what no server can be reached by.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from typing import Self


class Address(Value):
    """One place to connect to. `target` is what stands in the request line; `unix` is a socket's path or empty."""

    host: str
    port: int
    target: str = "/"
    tls: bool = False
    userinfo: str = ""
    unix: str = ""

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Url(str):
    """An http or https URL that was checked."""

    __slots__ = ()
    FORM = "a URL such as http://localhost:8080/health"

    @classmethod
    def parse(cls, text: str) -> Self:
        parse_url(text)
        return cls(text)


class Headers(tuple[tuple[str, str], ...]):
    """Request headers that were checked. Their values are secrets: nothing prints them."""

    __slots__ = ()
    FORM = "headers, a map such as {Authorization: 'file:/run/secrets/token'}"
    PLAIN = True  # takes what YAML has, not only text

    @classmethod
    def parse(cls, plain: object) -> Self:
        if not isinstance(plain, dict):
            raise ValueError(f"want {cls.FORM}")
        for name, value in plain.items():
            # RFC 9110 §5.1: a name is a token; §5.5: a value has no line breaks
            if not name or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name):
                raise ValueError(f"{name!r} is not the name of a header")
            if not isinstance(value, str) or not value.isprintable() or not value.isascii():
                raise ValueError(f"the value of {name} must be printable ASCII on one line")
        return cls(plain.items())

    def plain(self) -> dict[str, str]:
        """As the configuration writes it, less the values."""
        return {name: "***" for name, _ in self}


class Listen(str):
    """Where to listen: `HOST:PORT` or `unix:PATH`."""

    __slots__ = ()
    FORM = "an address such as 127.0.0.1:9710 or unix:/run/sentinel/sentinel.sock"

    @classmethod
    def parse(cls, text: str) -> Self:
        parse_listen(text)
        return cls(text)


class Control(str):
    """Where commands are taken: a Unix socket and nothing else, so that its file says who may give them."""

    __slots__ = ()
    FORM = "unix:PATH, a socket such as unix:/run/sentinel/control.sock"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text.startswith("unix:") or ":/" in text.removeprefix("unix:") or not text.removeprefix("unix:"):
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return cls(text)


def parse_url(text: str) -> Address:
    """An http or https URL as an address. Raises ValueError with one sentence; credentials are not repeated in it."""
    scheme, found, rest = text.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        raise ValueError(f"{_shown(text)}: want {Url.FORM}")
    if not text.isascii() or any(char <= " " or char == "\x7f" for char in text):
        raise ValueError(f"{_shown(text)}: a URL has no spaces and only ASCII; write others as %XX or xn--")
    rest = rest.partition("#")[0]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, target = rest[:end], rest[end:]
    userinfo, _, hostport = authority.rpartition("@")
    tls = scheme.lower() == "https"
    host, port = _host_port(hostport, 443 if tls else 80, text)
    if not target.startswith("/"):
        target = "/" + target
    return Address(host, port, target, tls, userinfo)


def parse_listen(text: str) -> Address:
    """`HOST:PORT` or `unix:PATH`. Port 0 lets the kernel choose. Raises ValueError with one sentence."""
    if text.startswith("unix:"):
        return parse_unix(text)
    if ":" not in text or text.endswith(":"):
        raise ValueError(f"{text!r}: want {Listen.FORM}")
    host, port = _host_port(text, None, text)
    return Address(host, port)


def parse_unix(text: str) -> Address:
    """`unix:PATH`, the path of a socket, or `unix:PATH:/TARGET` to ask for something there. Raises ValueError."""
    path, found, target = text.removeprefix("unix:").rpartition(":/")
    if not found:
        path, target = target, ""
    if not path:
        raise ValueError(f"{text!r}: want unix:PATH, the path of a socket")
    return Address("localhost", 80, "/" + target, unix=path)


def _host_port(hostport: str, default: int | None, text: str) -> tuple[str, int]:
    if hostport.startswith("["):
        host, closed, tail = hostport[1:].partition("]")
        if not closed or (tail and not tail.startswith(":")):
            raise ValueError(f"{_shown(text)}: an IPv6 address stands in brackets, as in [::1]:8080")
        port_text = tail[1:]
    else:
        host, _, port_text = hostport.partition(":")
    if not host:
        raise ValueError(f"{_shown(text)}: no host")
    if not port_text and default is not None:
        return host, default
    if not port_text.isdecimal() or not port_text.isascii() or int(port_text) > 65535 or len(port_text) > 5:
        raise ValueError(f"{_shown(text)}: port {port_text!r}, want a number up to 65535")
    return host, int(port_text)


def _shown(text: str) -> str:
    """The text for a message, without what may be a password in it."""
    return repr(masked(text))


def masked(url: str) -> str:
    """A URL for people: what stands before the @ of the authority is hidden."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    end = min((at for at in (rest.find("/"), rest.find("?"), rest.find("#")) if at >= 0), default=len(rest))
    userinfo, at, host = rest[:end].rpartition("@")
    return f"{scheme}://{'***@' if userinfo or at else ''}{host}{rest[end:]}"
