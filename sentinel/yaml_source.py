"""A YAML file as plain values, every scalar as text, with the line of each: `${NAME}` and `file:` replaced.

It knows no key by name. Text it all stays because YAML's own guesses (`on`, `1:30`, `1e3`) lose what was written.
Bounded: a file that is large, deep or multiplies by aliases is refused. Faults are collected, not thrown one by one.

    ConfigError                every fault, one line each: FILE:LINE: PATH: sentence
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    Where = tuple[str | int, ...]

_MAX_FILE = 1 << 20  # bytes; a thousand engines take a quarter of it
_MAX_VALUES = 100_000  # a file this size cannot hold more without aliases that multiply (a YAML bomb)
_MAX_DEPTH = 20
_VARIABLE = re.compile(
    r"\$(?:(?P<literal>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<odd>\{))"
)


class ConfigError(ValueError):
    """What is wrong with a configuration, one line a fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Source:
    """One YAML file: its plain values (every scalar as text) and the line that each stands on."""

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.environ = environ
        self.lines: dict[Where, int] = {}
        self.faults: list[tuple[Where, str]] = []
        self.secrets: list[str] = []
        self.values = 0

    def read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
            if len(data) > _MAX_FILE:
                raise ConfigError([f"{self.path}: larger than {_MAX_FILE >> 20} MiB"])
            root = yaml.compose(data, Loader=yaml.SafeLoader)
        except OSError as exc:
            raise ConfigError([f"{self.path}: cannot read: {exc.strerror}"]) from exc
        except RecursionError as exc:
            raise ConfigError([f"{self.path}: nested too deeply"]) from exc
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            what = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "unreadable"
            raise ConfigError([f"{self.path}{line}: not YAML: {what}"]) from exc
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError([f"{self.path}:1: want keys such as listen: and engines:"])
        plain = self._plain(root, ())
        if self.faults:
            raise self.failed(self.faults)
        assert isinstance(plain, dict)
        return plain

    def failed(self, faults: list[tuple[Where, str]]) -> ConfigError:
        """The faults with their lines, in the order of the file, each once."""
        rows = {(self._line(where), f"{shown(where)}{what}"): None for where, what in faults}
        return ConfigError([f"{self.path}:{line}: {text}" for line, text in sorted(rows)])

    def _line(self, where: Where) -> int:
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def _plain(self, node: yaml.Node, where: Where) -> Any:
        self.lines.setdefault(where, node.start_mark.line + 1)
        self.values += 1
        if self.values > _MAX_VALUES or len(where) > _MAX_DEPTH:
            if self.values <= _MAX_VALUES + 1:
                self.faults.append((where[:1], "expands to too many or too deeply nested values"))
            self.values = _MAX_VALUES + 2
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*where, at)) for at, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == "tag:yaml.org,2002:null" and node.style is None:
            return None
        return self._scalar(str(node.value), where)

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append((where, "a key must be a word"))
                continue
            key = str(key_node.value)
            at = (*where, key)
            if key in plain:
                self.lines[at] = key_node.start_mark.line + 1
                self.faults.append((at, "stands here twice"))
                continue
            self.lines[at] = key_node.start_mark.line + 1
            plain[key] = self._plain(value_node, at)
        return plain

    def _scalar(self, text: str, where: Where) -> str:
        def replaced(match: re.Match[str]) -> str:
            if match["literal"]:
                return "$"
            if match["odd"]:
                self.faults.append((where, f"{text!r}: want ${{NAME}} or ${{NAME:-default}}, and $$ for a dollar sign"))
                return ""
            value = self.environ.get(match["name"]) or match["default"]
            if value is None:
                self.faults.append((where, f"the environment has no {match['name']}; set it or write a default"))
                return ""
            return value

        text = _VARIABLE.sub(replaced, text)
        if not text.startswith("file:"):
            return text
        path = self.path.parent / text.removeprefix("file:")
        try:
            secret = path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            self.faults.append((where, f"cannot read the secret {path}: {getattr(exc, 'strerror', '') or 'not UTF-8'}"))
            return ""
        if not secret:
            self.faults.append((where, f"the secret {path} is empty"))
        self.secrets.append(secret)
        return secret


def shown(where: Where) -> str:
    """`engines[0].probes.health: `, or nothing for the file itself."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return f"{text.lstrip('.')}: " if text else ""
