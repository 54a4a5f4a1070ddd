"""The stand-in engine: it is what it says it is, each fault is a real one, and no request ends it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sentinel.demo.engine import BOUNDS, FAULTS
from tests.daemons import until
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SAMPLES_PER_VENUE = len(BOUNDS) + 1 + 2  # the buckets, +Inf, the sum and the count


@pytest.fixture(scope="module")
def _running() -> Iterator[Engine]:
    with Engine("--seed", "1", name=f"traded-{os.getpid()}") as running:
        yield running


@pytest.fixture
def engine(_running: Engine) -> Iterator[Engine]:
    """One engine for every test that leaves it alive."""
    yield _running
    _running.clear()


@pytest.fixture
def mortal() -> Iterator[Engine]:
    """An engine of its own, for a test that ends it."""
    with Engine(name=f"mortal-{os.getpid()}") as running:
        yield running


def get(url: str, method: str = "GET", accept: str = "*/*", timeout: float = 5) -> tuple[int, str, str]:
    """Status, content type and body."""
    request = urllib.request.Request(url, method=method, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers["Content-Type"], exc.read().decode()


def families(engine: Engine) -> dict[str, Any]:
    """The page as the reference parser reads it."""
    return {family.name: family for family in parse_text(get(engine.metrics_url)[2])}


def p99_us(engine: Engine) -> float:
    return float(families(engine)["latency_p99"].samples[0].value)


def orders_total(engine: Engine) -> float:
    return float(families(engine)["orders"].samples[0].value)


def on(engine: Engine) -> set[str]:
    """The faults that are switched on."""
    return {name for name, told in json.loads(get(f"{engine.control_url}/faults")[2]).items() if told["on"]}


def connect(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=5)


def exchange(url: str, sent: bytes) -> bytes:
    """All that the server says until it closes."""
    with connect(url) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def rss_bytes(engine: Engine) -> int:
    return int(Path(f"/proc/{engine.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def cpu_ticks(engine: Engine) -> int:
    fields = Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# --- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="needs pgrep, see tests/install-tools")
def test_pgrep_finds_it_by_its_exact_name(engine: Engine) -> None:
    found = subprocess.run(["pgrep", "-x", engine.name], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(engine.pid)] == [str(engine.process.pid)]


def test_it_is_named_trading_engine_unless_told_otherwise() -> None:
    with Engine() as engine:
        assert (engine.name, Path(f"/proc/{engine.pid}/comm").read_text()) == ("trading-engine", "trading-engine\n")


def test_it_is_small(mortal: Engine) -> None:
    assert rss_bytes(mortal) < 30_000_000  # 18 MB on Python 3.11; newer ones begin larger
    assert "libssl" not in Path(f"/proc/{mortal.pid}/maps").read_text()  # 4.6 MB


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_though_a_connection_hangs(mortal: Engine, number: int) -> None:
    mortal.fault("health-hang")
    with connect(mortal.health_url) as hung:
        hung.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        mortal.process.send_signal(number)
        assert mortal.process.wait(2) == 0


def test_a_taken_port_is_one_sentence_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [sys.executable, "-m", "sentinel.demo.engine", "--health-port", "0", "--metrics-port", str(port)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    told = f"stand-in: cannot listen on port {port} of 127.0.0.1: address already in use\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        pytest.param("--name", "sixteen-letters-", "--name 'sixteen-letters-': want 1 to 15 bytes", id="a long name"),
        pytest.param("--health-port", "65536", "'65536', want 0 to 65535", id="a port that cannot be"),
        pytest.param("--rate", "nan", "'nan', want 0 to 100000", id="a rate that is no number"),
        pytest.param("--memory-cap", "6GiB", "'6GiB', want 0 to 1048576 MiB", id="a size in another unit"),
        pytest.param("--fault", "gremlins", "invalid choice: 'gremlins'", id="an unknown fault"),
    ],
)
def test_a_bad_option_is_refused(option: str, value: str, told: str) -> None:
    words = [sys.executable, "-m", "sentinel.demo.engine", "--health-port", "0", "--metrics-port", "0", option, value]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr.splitlines()[-1]


def test_help_describes_every_fault() -> None:
    words = [sys.executable, "-m", "sentinel.demo.engine", "--help"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout
    assert [name for name, text in FAULTS.items() if f"  {name:<16} {text}\n" not in told] == []


def test_it_restarts_on_the_same_ports(mortal: Engine) -> None:
    before = (mortal.health_url, mortal.metrics_url)
    pid = mortal.pid
    mortal.restart()
    assert (mortal.health_url, mortal.metrics_url) == before
    assert mortal.pid != pid
    assert get(mortal.health_url)[0] == 200


# --- the pages ------------------------------------------------------------------------------------------------------


def test_health_is_ok(engine: Engine) -> None:
    status, kind, body = get(engine.health_url)
    assert (status, kind, json.loads(body)) == (200, "application/json", {"status": "ok"})


def test_the_page_parses_and_every_family_has_its_help_and_type(engine: Engine) -> None:
    status, kind, page = get(engine.metrics_url)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {family.name: family for family in parse_text(page)}
    assert {name: (family.type, len(family.samples)) for name, family in found.items()} == {
        "orders": ("counter", 1),
        "latency_p99": ("gauge", 1),
        "order_latency_seconds": ("histogram", 2 * SAMPLES_PER_VENUE),
        "order_latency_summary_seconds": ("summary", 4 + 2),
        "process_resident_memory_bytes": ("gauge", 1),
        "process_start_time_seconds": ("gauge", 1),
    }
    assert [name for name, family in found.items() if not family.documentation] == []
    assert "latency_p99" in found["latency_p99"].documentation  # what a naive grep stumbles over


def test_openmetrics_where_accept_asks_for_it(engine: Engine) -> None:
    status, kind, page = get(engine.metrics_url, accept=f"{OPENMETRICS}, text/plain;q=0.5")
    assert (status, kind) == (200, OPENMETRICS)
    assert page.endswith("\n# EOF\n")
    assert {family.name: family.type for family in parse_openmetrics(page)} == {
        name: family.type for name, family in families(engine).items()
    }


@pytest.mark.parametrize("series", [1, 2, 10_000])
def test_a_page_can_be_made_long(series: int) -> None:
    with Engine("--series", str(series), name=f"long-{os.getpid()}") as engine:
        bare = 1 + 1 + 2 * SAMPLES_PER_VENUE + 6 + 2
        for parse, accept in ((parse_text, "*/*"), (parse_openmetrics, OPENMETRICS)):
            found = [family.samples for family in parse(get(engine.metrics_url, accept=accept)[2])]
            samples = {(sample.name, *sorted(sample.labels.items())) for family in found for sample in family}
            assert len(samples) == sum(map(len, found)) == bare + series


def test_the_latencies_agree_and_are_within_the_budget(engine: Engine) -> None:
    until(lambda: orders_total(engine) > 500)
    found = families(engine)
    orders = found["orders"].samples[0].value
    gauge_s = found["latency_p99"].samples[0].value / 1e6
    assert 0.0004 < gauge_s < 0.001
    summary = {sample.labels.get("quantile", sample.name): sample.value for sample in found[SUMMARY].samples}
    assert summary["0.99"] == pytest.approx(gauge_s)
    assert summary["0.5"] < summary["0.9"] < summary["0.99"] <= summary["0.999"]
    counts = [each for each in found["order_latency_seconds"].samples if each.name.endswith("_count")]
    assert {each.labels["venue"] for each in counts} == {"X", "Y"}
    assert sum(each.value for each in counts) == summary[f"{SUMMARY}_count"] == orders
    sums = [each.value for each in found["order_latency_seconds"].samples if each.name.endswith("_sum")]
    assert sum(sums) == pytest.approx(summary[f"{SUMMARY}_sum"])
    buckets = [each for each in found["order_latency_seconds"].samples if each.labels.get("venue") == "X"]
    values = [each.value for each in buckets if each.name.endswith("_bucket")]
    assert values == sorted(values)


SUMMARY = "order_latency_summary_seconds"


# --- the faults -----------------------------------------------------------------------------------------------------


def test_faults_are_listed_with_what_they_do(engine: Engine) -> None:
    status, kind, body = get(f"{engine.control_url}/faults")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {name: {"on": False, "description": text} for name, text in FAULTS.items()}


def test_an_unknown_fault_is_404_and_names_the_known_ones(engine: Engine) -> None:
    for method in ("POST", "DELETE", "GET"):
        status, _, body = get(f"{engine.control_url}/faults/gremlins", method)
        assert (status, body) == (404, f"no fault 'gremlins', want one of {', '.join(FAULTS)}\n")


def test_faults_are_switched_one_by_one_and_all_off_at_once(engine: Engine) -> None:
    for name in ("slow", "metric-nan", "health-500"):
        engine.fault(name)
    assert on(engine) == {"slow", "metric-nan", "health-500"}
    assert get(f"{engine.control_url}/faults/slow", "DELETE")[0] == 200
    assert on(engine) == {"metric-nan", "health-500"}
    engine.clear()
    assert on(engine) == set()


def test_a_fault_for_a_while_ends_by_itself(engine: Engine) -> None:
    engine.fault("health-500", seconds=0.2)
    assert on(engine) == {"health-500"}
    until(lambda: on(engine) == set())


def test_a_fault_switched_on_again_for_good_outlives_its_while(engine: Engine) -> None:
    engine.fault("health-500", seconds=0.1)
    engine.fault("health-500")
    engine.fault("slow", seconds=0.2)
    until(lambda: "slow" not in on(engine))
    assert on(engine) == {"health-500"}


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "soon", ""])
def test_a_while_that_is_none_is_refused_and_nothing_is_switched(engine: Engine, seconds: str) -> None:
    status, _, body = get(f"{engine.control_url}/faults/slow?seconds={seconds}", "POST")
    assert (status, body) == (400, f"seconds {seconds!r}, want more than 0 and at most 86400\n")
    assert on(engine) == set()


def test_faults_can_be_on_from_the_start() -> None:
    with Engine("--fault", "health-500", "--fault", "slow", name=f"ill-{os.getpid()}") as engine:
        assert on(engine) == {"health-500", "slow"}


@pytest.mark.parametrize(("fault", "page"), [("health-500", "health_url"), ("metrics-500", "metrics_url")])
def test_a_500_is_of_its_own_page_only(engine: Engine, fault: str, page: str) -> None:
    engine.fault(fault)
    told = {name: get(getattr(engine, name))[0] for name in ("health_url", "metrics_url")}
    assert told == {"health_url": 200, "metrics_url": 200, page: 500}


@pytest.mark.parametrize(("fault", "page"), [("health-hang", "health_url"), ("metrics-hang", "metrics_url")])
def test_a_hung_page_is_never_answered_and_control_still_is(engine: Engine, fault: str, page: str) -> None:
    engine.fault(fault)
    with connect(getattr(engine, page)) as hung:
        hung.sendall(f"GET {urlsplit(getattr(engine, page)).path} HTTP/1.1\r\n\r\n".encode() * 3)
        assert on(engine) == {fault}
        engine.clear()
        assert get(getattr(engine, page))[0] == 200
        hung.setblocking(False)
        with pytest.raises(BlockingIOError):
            hung.recv(1)


def test_more_hung_connections_than_its_soft_limit_of_files_leave_control_answering() -> None:
    few = ("prlimit", "--nofile=128:", sys.executable)  # the soft limit only
    with Engine("--fault", "metrics-hang", name=f"hung-{os.getpid()}", python=few) as engine:
        with contextlib.ExitStack() as connections:
            for _ in range(300):
                connections.enter_context(connect(engine.metrics_url)).sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            until(lambda: len([*Path(f"/proc/{engine.pid}/fd").iterdir()]) > 300)
            assert on(engine) == {"metrics-hang"}


def test_a_slow_engine_is_ten_times_slower_and_recovers_within_its_window(engine: Engine) -> None:
    engine.fault("slow")
    until(lambda: p99_us(engine) > 4000)
    engine.clear()
    until(lambda: p99_us(engine) < 1000)


def test_memory_is_resident_up_to_the_cap_and_given_back_each_time() -> None:
    with Engine("--memory-cap", "8MiB", name=f"fat-{os.getpid()}") as engine:
        before = rss_bytes(engine)
        for _ in range(2):  # an allocator keeps what is freed from the second time on
            engine.fault("memory")
            until(lambda: rss_bytes(engine) > before + (6 << 20))
            orders = orders_total(engine)
            until(lambda orders=orders: orders_total(engine) > orders + 100)  # five batches more, each may grow
            assert rss_bytes(engine) < before + (9 << 20)
            told = families(engine)["process_resident_memory_bytes"].samples[0].value
            assert told == pytest.approx(rss_bytes(engine), rel=0.1)
            engine.clear()
            until(lambda: rss_bytes(engine) < before + (2 << 20))


def test_missing_metrics_are_gone_with_all_their_lines(engine: Engine) -> None:
    engine.fault("metric-missing")
    assert "latency" not in get(engine.metrics_url)[2]
    assert set(families(engine)) == {"orders", "process_resident_memory_bytes", "process_start_time_seconds"}


def test_metrics_that_are_not_a_number(engine: Engine) -> None:
    engine.fault("metric-nan")
    page = get(engine.metrics_url)[2]
    assert "\nlatency_p99 NaN\n" in page
    assert [line for line in page.splitlines() if line.startswith(f"{SUMMARY}{{") and not line.endswith("} NaN")] == []
    assert len([*parse_openmetrics(get(engine.metrics_url, accept=OPENMETRICS)[2])]) == 6


def test_a_cut_page_promises_more_than_it_sends(engine: Engine) -> None:
    engine.fault("metrics-cut")
    head, _, body = exchange(engine.metrics_url, b"GET /metrics HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    promised = int(head.partition(b"Content-Length: ")[2].split()[0])
    assert len(body) == promised // 2
    with pytest.raises(http.client.IncompleteRead):
        get(engine.metrics_url)


def test_an_endless_page_goes_on_while_others_are_served(engine: Engine) -> None:
    engine.fault("endless")
    with urllib.request.urlopen(engine.metrics_url, timeout=5) as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        for _ in range(64):
            assert answer.read(1 << 18) == b"x 1\n" * (1 << 16)
        engine.clear()
        assert len(families(engine)) == 6
        assert len(answer.read(1 << 18)) == 1 << 18


def test_an_endless_page_costs_nothing_while_nobody_reads_it(engine: Engine) -> None:
    engine.fault("endless")
    with contextlib.ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(connect(engine.metrics_url)).sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        quiet = 0
        seen = cpu_ticks(engine)
        deadline = time.monotonic() + 15
        while quiet < 20:  # 20 looks, 10 ms apart, with at most one tick between them: no loop turns
            assert time.monotonic() < deadline, "it is never quiet"
            time.sleep(0.01)
            ticks = cpu_ticks(engine)
            quiet, seen = (quiet + 1, seen) if ticks <= seen + 1 else (0, ticks)


def test_a_freeze_holds_everything_up_for_300_ms_once(engine: Engine) -> None:
    with connect(engine.health_url) as other:
        engine.fault("freeze")
        began = time.monotonic()
        other.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert other.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert 0.2 < time.monotonic() - began < 2
    assert on(engine) == set()


@pytest.fixture(scope="module")
def working() -> Iterator[Engine]:
    """An engine whose latencies are really what its orders took."""
    with Engine("--work", "200us", name=f"works-{os.getpid()}") as running:
        yield running


def test_an_order_that_waits_for_a_stopped_process_has_waited(working: Engine) -> None:
    os.kill(working.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(working.pid, signal.SIGCONT)
    until(lambda: p99_us(working) > 200_000)


@pytest.mark.parametrize("fault", ["cold-map", "reread"])
def test_a_mapped_file_is_read_from_the_disk(working: Engine, fault: str) -> None:
    before = major_faults(working)
    working.fault(fault)
    until(lambda: major_faults(working) > before + 1000)
    working.clear()


@pytest.mark.parametrize("fault", ["files", "deaf"])
def test_what_keeps_everybody_out_ends_by_itself(working: Engine, fault: str) -> None:
    working.fault(fault, 2.0)
    until(lambda: not answers(working), 2.0)
    until(lambda: answers(working))
    assert on(working) == set()


def answers(engine: Engine) -> bool:
    try:
        return get(engine.health_url, timeout=0.5)[0] == 200
    except OSError:
        return False


def major_faults(engine: Engine) -> int:
    return int(Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()[9])


@pytest.mark.parametrize(("fault", "status"), [("exit", 1), ("kill", -signal.SIGKILL)])
def test_a_fault_that_ends_it_is_answered_first(mortal: Engine, fault: str, status: int) -> None:
    mortal.fault(fault)
    assert mortal.process.wait(2) == status


# --- HTTP -----------------------------------------------------------------------------------------------------------


def test_a_connection_serves_many_requests_in_their_order(engine: Engine) -> None:
    post = b"POST /faults/slow HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET / HT\n"  # a body is no request
    said = exchange(
        engine.health_url,
        b"GET /health HTTP/1.1\r\n\r\n" + post + b"GET /nowhere HTTP/1.1\r\n\r\n"
        b"GET /health HTTP/1.1\r\nconnection: Close\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
    )
    heads = [part.partition(b"\r\n")[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert heads == [b"200 OK", b"200 OK", b"404 Not Found", b"200 OK"]
    assert said.count(b"Connection: close\r\n") == 1


def test_a_request_may_come_a_byte_at_a_time(engine: Engine) -> None:
    with connect(engine.health_url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /health HTTP/1.0\r\nHost: x\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert b"".join(iter(lambda: connection.recv(65536), b"")).endswith(b'\r\n\r\n{"status":"ok"}\n')


MALFORMED = [
    pytest.param(b"\r\n\r\n", id="nothing"),
    pytest.param(b"GET /health\r\n\r\n", id="no version"),
    pytest.param(b"GET /health HTTP/2\r\n\r\n", id="another version"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n", id="TLS"),
    pytest.param(b"GET http://[::1/health HTTP/1.1\r\n\r\n", id="a target that is not a path"),
    pytest.param(b"POST /faults/slow HTTP/1.1\r\nContent-Length: -1\r\n\r\n", id="a length below zero"),
    pytest.param(b"POST /faults/slow HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", id="a length of no digits"),
    pytest.param(b"POST /faults/slow HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", id="a length too long"),
    pytest.param(b"POST /faults/slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", id="a body in chunks"),
    pytest.param(b"GET /health HTTP/1.1\r\nX: ".ljust(65537, b"x"), id="a head without end"),
]


@pytest.mark.parametrize("sent", MALFORMED)
def test_a_malformed_request_is_400_and_the_end_of_its_connection(engine: Engine, sent: bytes) -> None:
    for url in (engine.health_url, engine.metrics_url):
        said = exchange(url, sent)
        assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close\r\n\r\nwant " in said or b"\r\nConnection: close\r\n\r\na head " in said
    assert (get(engine.health_url)[0], on(engine)) == (200, set())


@pytest.mark.parametrize("target", ["//[", "/health?%ff%00", "/faults/%00", "/\x7f\xff", "/faults/../health", "/%s%n"])
def test_a_strange_target_is_not_found_or_answered_and_harms_nothing(engine: Engine, target: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        sent = f"{method} {target} HTTP/1.1\r\nConnection: close\r\n\r\n".encode("latin-1")
        for url in (engine.health_url, engine.metrics_url):
            assert exchange(url, sent).split(b" ")[1] in (b"200", b"400", b"404", b"405")
    assert (get(engine.health_url)[0], on(engine)) == (200, set())


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/faults/slow"), ("POST", "/faults"), ("POST", "/health"), ("BREW", "/health")]
)
def test_another_method_is_405(engine: Engine, method: str, path: str) -> None:
    assert get(engine.control_url + path, method)[0] == 405
    assert on(engine) == set()


def test_who_asks_for_many_pages_and_reads_none_does_not_fill_its_memory() -> None:
    with Engine("--series", "10000", name=f"asked-{os.getpid()}") as engine, connect(engine.metrics_url) as greedy:
        before = rss_bytes(engine)
        greedy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 1000 + b"GET /metrics HTTP/1.0\r\n\r\n")  # 660 MB of pages
        assert get(engine.health_url)[0] == 200
        assert get(engine.metrics_url)[0] == 200
        assert rss_bytes(engine) < before + (16 << 20)
        assert sum(len(part) for part in iter(lambda: greedy.recv(1 << 20), b"")) > 600_000_000
