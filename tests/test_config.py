"""The configuration: one bad file for each mistake, with the exact message; and what a good file means."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sentinel import config_command
from sentinel.address import Headers, Url
from sentinel.config import load_config, schema
from sentinel.model import Policy, Window
from sentinel.spec import with_evidence
from sentinel.units import Bytes, Seconds, Share
from sentinel.yaml_source import ConfigError, Source

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://localhost:8080/health"
DURATIONS = "(units: ns, us, µs, μs, ms, s, m, h, d)"


def one_probe(text: str) -> str:
    """A file with one probe; the mistake stands on line 4."""
    return f"engines:\n  - name: e\n    probes:\n      p: {{{text}}}\n"


def one_window(text: str) -> str:
    """A file with one maintenance window; the mistake stands on line 5."""
    return one_probe(f"kind: http, url: '{URL}'") + f"    maintenance: [{{{text}}}]\n"


def one_receiver(text: str) -> str:
    """A file with one receiver; the mistake stands on line 2."""
    return f"notify:\n  r: {{{text}}}\n"


BAD = [
    pytest.param("listn: 127.0.0.1:9710", "1: listn: unknown key, did you mean 'listen'?", id="unknown key"),
    pytest.param("quux: 1", "1: quux: unknown key", id="unknown key like no other"),
    pytest.param("- a", "1: want keys such as listen: and engines:", id="not a map"),
    pytest.param("a: b: c", "1: not YAML: mapping values are not allowed here", id="not YAML"),
    pytest.param("engines: 5", "1: engines: want a list", id="engines not a list"),
    pytest.param("engines: [5]", "1: engines[0]: want a map of keys and values", id="an engine not a map"),
    pytest.param("engines:\n  - probes: {}", "2: engines[0].name: is missing", id="an engine without a name"),
    pytest.param(
        "engines:\n  - name: e\n    probes: {}",
        "3: engines[0].probes: no probes: an engine without questions is never healthy",
        id="no probes",
    ),
    pytest.param(
        f"engines:\n- name: e\n  probes: {{p: {{kind: http, url: '{URL}'}}}}\n"
        f"- name: e\n  probes: {{p: {{kind: http, url: '{URL}'}}}}",
        "4: engines[1].name: a second engine named 'e'",
        id="two engines of one name",
    ),
    pytest.param(
        f"engines:\n- name: e\n  probes:\n    p: {{kind: http, url: '{URL}'}}\n    p: {{kind: http, url: '{URL}'}}",
        "5: engines[0].probes.p: stands here twice",
        id="two probes of one name",
    ),
    pytest.param(
        "engines: [{name: a/b, probes: {}}]",
        "1: engines[0].name: 'a/b': want a name of letters, digits, dots, dashes and underscores, at most 63",
        id="a name that no URL holds",
    ),
    pytest.param(
        one_probe("kind: htpp"),
        "4: engines[0].probes.p: no kind 'htpp', want one of 'evidence', 'http', 'latency', 'memory', 'process'",
        id="unknown kind",
    ),
    pytest.param(
        one_probe("url: 'http://h'"),
        "4: engines[0].probes.p: kind is missing, want one of evidence, http, latency, memory, process",
        id="no kind",
    ),
    pytest.param(one_probe("kind: http"), "4: engines[0].probes.p.url: is missing", id="a setting is missing"),
    pytest.param(
        one_probe("kind: http, url: 'localhost:8080'"),
        "4: engines[0].probes.p.url: 'localhost:8080': want a URL such as http://localhost:8080/health",
        id="a URL without a scheme",
    ),
    pytest.param(
        one_probe("kind: http, url: 'http://u:secret@h:99999/'"),
        "4: engines[0].probes.p.url: 'http://***@h:99999/': port '99999', want a number up to 65535",
        id="a port too large, and the password is not repeated",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', interval: 1000parsecs"),
        "4: engines[0].probes.p.interval: '1000parsecs': unknown unit 'parsecs', "
        f"want a duration such as 800ms, 1s or 1000us {DURATIONS}",
        id="a unit that is none",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', interval: 5"),
        f"4: engines[0].probes.p.interval: '5': no unit, want a duration such as 800ms, 1s or 1000us {DURATIONS}",
        id="a duration without a unit",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', interval: 1ms"),
        "4: engines[0].probes.p.interval: 1ms is too often, want at least 10ms",
        id="an interval too short",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', timeout: 2s"),
        "4: engines[0].probes.p.timeout: 2s is longer than the interval, 1s",
        id="a timeout longer than the interval",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', fall: 0"),
        "4: engines[0].probes.p.fall: '0': input should be greater than or equal to 1",
        id="a fall of nothing",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', severity: urgent"),
        "4: engines[0].probes.p.severity: 'urgent', want 'critical' or 'warning'",
        id="an unknown severity",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', needs: [q]"),
        "4: engines[0].probes.p.needs: no probe 'q', want one of p",
        id="needs what is not there",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', needs: [p]"),
        "4: engines[0].probes.p.needs: goes in a circle",
        id="needs itself",
    ),
    pytest.param(
        one_probe("kind: http, url: '${NOT_SET}'"),
        "4: engines[0].probes.p.url: the environment has no NOT_SET; set it or write a default",
        id="a variable that is not set",
    ),
    pytest.param(
        one_probe("kind: http, url: '${odd'"),
        "4: engines[0].probes.p.url: '${odd': want ${NAME} or ${NAME:-default}, and $$ for a dollar sign",
        id="a variable that is not closed",
    ),
    pytest.param(
        one_probe("kind: memory, max: 150%"),
        "4: engines[0].probes.p.max: '150%': want more than 0% and at most 100%",
        id="more than all of the memory",
    ),
    pytest.param(
        "listen: 9710",
        "1: listen: '9710': want an address such as 127.0.0.1:9710 or unix:/run/sentinel/sentinel.sock",
        id="a port is no address",
    ),
    pytest.param(
        "control: 127.0.0.1:9711",
        "1: control: '127.0.0.1:9711': want unix:PATH, a socket such as unix:/run/sentinel/control.sock",
        id="commands over TCP",
    ),
    pytest.param(
        "listen: unix:/s\ncontrol: unix:/s",
        "2: control: is what listen: says; commands need a socket of their own",
        id="one socket for everyone and for commands",
    ),
    pytest.param(
        one_window("cron: '0 22 * sun', for: 2h"),
        "5: engines[0].maintenance[0].cron: '0 22 * sun': want five fields as of cron, such as '0 22 * * sun'",
        id="four fields of cron",
    ),
    pytest.param(
        one_window("cron: '0 22 * * 8', for: 2h"),
        "5: engines[0].maintenance[0].cron: '0 22 * * 8': bad day-of-week, "
        "want five fields as of cron, such as '0 22 * * sun'",
        id="an eighth day of the week",
    ),
    pytest.param(
        one_window("cron: '0 22 30 2 *', for: 2h"),
        "5: engines[0].maintenance[0].cron: '0 22 30 2 *': bad day-of-month, "
        "want five fields as of cron, such as '0 22 * * sun'",
        id="a day that never comes",
    ),
    pytest.param(
        one_window("cron: '0 22 * * sun', zone: Mars/Utopia, for: 2h"),
        "5: engines[0].maintenance[0].zone: 'Mars/Utopia': want a time zone such as Europe/Paris or UTC",
        id="a time zone that is not there",
    ),
    pytest.param(
        one_window("cron: '0 22 * * sun', for: 8d"),
        "5: engines[0].maintenance[0].for: '8d': want a duration such as 10m, at most 7d",
        id="a maintenance over a week long",
    ),
    pytest.param(
        one_window("cron: '* * * * *', for: 2m"),
        "5: engines[0].maintenance[0].for: never ends: it begins again before its 120s are over",
        id="a maintenance that never ends",
    ),
    pytest.param(
        one_receiver("kind: pager, url: 'http://h'"),
        "2: notify.r: no kind 'pager', want one of 'alertmanager', 'apprise', 'heartbeat'",
        id="a kind of receiver that is not there",
    ),
    pytest.param(
        one_receiver("url: 'http://h'"),
        "2: notify.r: kind is missing, want one of alertmanager, apprise, heartbeat",
        id="a receiver without a kind",
    ),
    pytest.param(
        one_receiver("kind: alertmanager, url: 'http://h', remind: 4h"),
        "2: notify.r.remind: unknown key, did you mean 'reminder'?",
        id="a setting that no receiver has",
    ),
    pytest.param(
        one_receiver("kind: alertmanager, url: 'http://h', resend: 100ms"),
        "2: notify.r.resend: '100ms': want a duration of at least 1s, such as 30s or 1m",
        id="alerts ten times a second",
    ),
    pytest.param(
        one_receiver("kind: alertmanager, url: 'http://h', labels: {engine: x}"),
        "2: notify.r.labels: engine is a label of Sentinel's own",
        id="a label that Sentinel sets",
    ),
    pytest.param(
        one_receiver("kind: alertmanager, url: 'http://h', labels: {a-b: x}"),
        "2: notify.r.labels: 'a-b' is not the name of a label",
        id="the name of a label",
    ),
    pytest.param(
        one_receiver("kind: alertmanager, url: 'http://h', states: [sick]"),
        "2: notify.r.states: want a list of unhealthy, unknown and degraded",
        id="a state that no engine is told in",
    ),
    pytest.param(
        one_receiver("kind: apprise, url: 'slck://s3cret/s3cret/s3cret'"),
        "2: notify.r.url: Apprise cannot read it, want a URL that Apprise knows, such as mailto://… or slack://…, "
        "mostly as file:PATH",
        id="a service that Apprise does not know, and the URL is not repeated",
    ),
    pytest.param(
        one_receiver("kind: apprise, url: 'json://h1', per_hour: 0"),
        "2: notify.r.per_hour: '0': want a number of messages from 1 to 1000",
        id="no message an hour",
    ),
    pytest.param(
        one_receiver("kind: heartbeat, url: 'https://h:x/s3cret'"),
        "2: notify.r.url: cannot be reached, want an http or https URL, mostly as file:PATH",
        id="a heartbeat's URL, which is not repeated",
    ),
    pytest.param(
        one_probe(f"kind: http, url: '{URL}', headers: {{'A B': c}}"),
        "4: engines[0].probes.p.headers: 'A B' is not the name of a header",
        id="a header's name",
    ),
    pytest.param(
        "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]",
        "5: e: expands to too many or too deeply nested values",
        id="a YAML bomb",
    ),
    pytest.param("a: &a [*a]", "1: a: expands to too many or too deeply nested values", id="an alias of itself"),
]


def fault_of(path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), environ or {})
    return str(caught.value)


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_gets_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(text)
    assert fault_of(path) == f"{path}:{message}"


def test_every_fault_is_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text("listn: x\nengines:\n  - name: e\n    fal: 3\n    probes:\n      p: {kind: htpp}\n")
    assert [fault.split(":")[1] for fault in fault_of(path).splitlines()] == ["1", "4", "6"]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: cannot read: No such file or directory"
    assert fault_of(tmp_path) == f"{tmp_path}: cannot read: Is a directory"
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    assert fault_of(tmp_path / "big.yaml") == f"{tmp_path}/big.yaml: larger than 1 MiB"
    (tmp_path / "latin.yaml").write_bytes(b"listen: \xe9\xe8\xff")
    assert fault_of(tmp_path / "latin.yaml").startswith(f"{tmp_path}/latin.yaml: not YAML: ")
    (tmp_path / "deep.yaml").write_text("[" * 100_000)
    assert fault_of(tmp_path / "deep.yaml") == f"{tmp_path}/deep.yaml: nested too deeply"


def test_secrets_come_from_files_and_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("Bearer s3cret\n")
    path = tmp_path / "sentinel.yaml"
    path.write_text(
        "engines:\n- name: e\n  probes:\n"
        "    a: {kind: http, url: 'http://u:pw@h/', headers: {Authorization: 'file:token'}}\n"
        "    b: {kind: http, url: 'http://h/?t=${TOKEN:-none}'}\n"
    )
    config = load_config(str(path), {"TOKEN": "x"})
    first, second = config.engines[0].probes
    assert first.settings.headers == Headers([("Authorization", "Bearer s3cret")])
    assert second.settings.url == "http://h/?t=x"
    monkeypatch.setenv("SENTINEL_CONFIG", str(path))
    assert config_command.main(["show"]) == 0
    shown = capsys.readouterr().out
    assert "s3cret" not in shown
    assert "pw" not in shown
    assert "url: http://***@h/" in shown


def test_a_secret_that_cannot_be_read_is_a_fault_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(one_probe(f"kind: http, url: '{URL}', headers: {{A: 'file:none'}}"))
    at = "engines[0].probes.p.headers.A"
    assert fault_of(path) == f"{path}:4: {at}: cannot read the secret {tmp_path}/none: No such file or directory"


def test_without_a_file_the_four_defaults_are_watched() -> None:
    config = load_config(None, {})
    (engine,) = config.engines
    assert (config.listen, engine.name, engine.start_period_s) == ("127.0.0.1:9710", "trading-engine", 30.0)
    told = {probe.name: (probe.kind, probe.policy.needs) for probe in engine.probes}
    assert told == {
        "health": ("http", ()),
        "process": ("process", ()),
        "memory": ("memory", ("process",)),
        "latency": ("latency", ("process",)),
    }
    by_name = {probe.name: probe.settings for probe in engine.probes}
    assert by_name["health"].url == "http://localhost:8080/health"
    assert (by_name["memory"].max, by_name["memory"].process) == (Share(ratio=0.9), "trading-engine")
    assert (by_name["latency"].url, float(by_name["latency"].max)) == ("http://localhost:9090/metrics", 0.001)


def test_the_environment_changes_the_defaults() -> None:
    config = load_config(
        None, {"SENTINEL_PROCESS": "matcher", "SENTINEL_MAX_P99": "2ms", "SENTINEL_LISTEN": "unix:/run/s.sock"}
    )
    (engine,) = config.engines
    by_name = {probe.name: probe.settings for probe in engine.probes}
    assert (config.listen, engine.name, by_name["memory"].process) == ("unix:/run/s.sock", "matcher", "matcher")
    assert float(by_name["latency"].max) == 0.002


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SENTINEL_MAX_P99": "fast"}, "SENTINEL_MAX_P99: 'fast': no number in front, want a duration such as"),
        ({"SENTINEL_HEALTH_URL": "x"}, "SENTINEL_HEALTH_URL: 'x': want a URL such as"),
        ({"SENTINEL_LISTEN": "x"}, "SENTINEL_LISTEN: 'x': want an address such as"),
        ({"SENTINEL_CONTROL": "x"}, "SENTINEL_CONTROL: 'x': want unix:PATH, a socket such as"),
    ],
)
def test_a_bad_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, environ)
    assert str(caught.value).startswith(message)


def test_the_contracts_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(
        """\
listen: 127.0.0.1:9710        # or unix:/run/sentinel/sentinel.sock
engines:
  - name: trading-engine
    interval: 1s              # of every probe, unless the probe says otherwise
    timeout: 800ms
    fall: 3
    rise: 2
    start_period: 30s
    probes:
      health:  {kind: http, url: "http://localhost:8080/health"}
      process: {kind: process, name: trading-engine}
      memory:  {kind: memory, max: 90%}
      latency: {kind: latency, url: "http://localhost:9090/metrics", metric: latency_p99, max: 1000us}
"""
    )
    assert load_config(str(path), {}) == load_config(None, {})


def test_a_probe_says_otherwise_than_its_engine(tmp_path: Path) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(
        "engines:\n- name: e\n  interval: 2s\n  fall: 5\n  probes:\n"
        f"    a: {{kind: http, url: '{URL}'}}\n"
        f"    b: {{kind: http, url: '{URL}', interval: 500ms, fall: 1, severity: warning, needs: [a]}}\n"
    )
    (engine,) = load_config(str(path), {}).engines
    a, b = (probe.policy for probe in engine.probes)
    assert a == Policy(2.0, 1.6, 5, 2, "critical", ())
    assert b == Policy(0.5, 0.4, 1, 2, "warning", ("a",))
    assert engine.probes[0].settings.url == Url(URL)


def test_what_show_prints_is_a_file_that_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in __import__("os").environ if name.startswith("SENTINEL_")]:
        monkeypatch.delenv(name)
    assert config_command.main(["show"]) == 0
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out)
    defaults = load_config(None, {})
    assert load_config(str(path), {}) == defaults.replace(engines=tuple(map(with_evidence, defaults.engines)))


def test_windows_and_the_control_socket_are_shown_as_they_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(
        "control: unix:/c\n" + one_window("cron: '0 22 * * sun', zone: Europe/Paris, for: 2h, reason: weekly")
    )
    before = load_config(str(path), {})
    assert before.engines[0].windows == (Window("0 22 * * sun", "Europe/Paris", 7200.0, "weekly"),)
    assert config_command.main(["show", str(path)]) == 0
    path.write_text(capsys.readouterr().out)
    assert load_config(str(path), {}) == before
    assert load_config(None, {"SENTINEL_CONTROL": "unix:/c"}).control == "unix:/c"


def test_receivers_are_shown_without_their_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sentinel.yaml"
    (tmp_path / "chat").write_text("slack://TokenA123/TokenB123/TokenC1234567890123456789\n")
    path.write_text(
        "notify:\n"
        "  am: {kind: alertmanager, url: 'http://u:pw@h:9093', headers: {X: s3cret}, labels: {team: t}}\n"
        "  chat: {kind: apprise, url: 'file:chat', states: [unhealthy], reminder: 0s}\n"
        "  beat: {kind: heartbeat, url: 'https://hc-ping.com/s3cret-uuid', every: 60s, fail: /fail}\n"
    )
    assert config_command.main(["show", str(path)]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["notify"]
    states = ["unhealthy", "unknown", "degraded"]
    assert shown == {
        "am": {
            "kind": "alertmanager",
            "url": "http://***@h:9093",
            "headers": {"X": "***"},
            "states": states,
            "resend": "60s",
            "labels": {"team": "t"},
        },
        "chat": {"kind": "apprise", "url": "slack://***", "states": ["unhealthy"], "reminder": "0s", "per_hour": 20},
        "beat": {"kind": "heartbeat", "url": "https://hc-ping.com/***", "every": "60s", "fail": "/fail"},
    }


def test_without_apprise_its_receivers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    path = tmp_path / "sentinel.yaml"
    path.write_text(one_receiver("kind: apprise, url: 'json://h'"))
    needs = "needs Apprise: pip install 'sentinel-engine-monitor[notify]'"
    assert fault_of(path) == f"{path}:2: notify.r.url: {needs}"
    assert load_config(str(path), {}, telling=False).notify[0].name == "r"  # a check tells nobody, and does not load it


def test_quantiles_are_shown_as_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sentinel.yaml"
    url = "kind: latency, url: 'http://h/metrics', metric: m"
    for written in ("{0.5: 200us, 0.99: 1ms}", "[0.5, 0.99]"):
        path.write_text(one_probe(f"{url}, quantiles: {written}"))
        before = load_config(str(path), {})
        assert config_command.main(["show", str(path)]) == 0
        path.write_text(capsys.readouterr().out)
        assert load_config(str(path), {}) == before


def test_the_schema_is_json_and_names_every_kind() -> None:
    text = json.dumps(schema())
    assert all(f'"{kind}_probe"' in text for kind in ("http", "process", "memory", "latency"))


def test_check_prints_every_fault_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text("listn: x\n")
    assert config_command.main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"sentinel: {path}:1: listn: unknown key, did you mean 'listen'?\n"
    path.write_text(one_probe(f"kind: http, url: '{URL}'"))
    assert config_command.main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: good; 1 engine, 1 probe\n"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "sentinel.yaml"
    path.write_bytes(data)
    with suppress(ConfigError):
        Source(str(path), {}).read()


@given(st.floats(1e-9, 1e6), st.integers(1, 1 << 50), st.integers(1, 10000))
def test_units_come_back_as_they_were_written(seconds: float, size: int, share: int) -> None:
    assert Seconds.parse(Seconds(seconds).text()) == pytest.approx(seconds, rel=1e-9)
    assert Bytes.parse(Bytes(size).text()) == size
    assert Share.parse(f"{share / 100}%") == Share.parse(Share.parse(f"{share / 100}%").text())
