"""Captures the /metrics pages of real servers into tests/data/pages: `python tests/capture_pages.py [NAME ...]`.

The servers are those that Debian packages (see tests/install-tools); each runs on loopback for a few seconds, is
asked a little, and ends. The pages are kept in the repository, so the tests need none of the servers.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = Path(__file__).parent / "data" / "pages"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
FORMATS = {
    "text": "text/plain;version=0.0.4",
    "openmetrics": "application/openmetrics-text;version=1.0.0",
    "protobuf": PROTOBUF,
}
# What each server is started with, and what is asked of it first so that its latencies are not all empty.
# {port} and {other} are free ports, {dir} an empty folder.
SERVERS: dict[str, tuple[str, str]] = {
    "prometheus": (
        "prometheus --config.file={dir}/prometheus.yml --storage.tsdb.path={dir} --web.listen-address=127.0.0.1:{port}"
        " --enable-feature=native-histograms",
        "/api/v1/query?query=up",
    ),
    "alertmanager": (
        "prometheus-alertmanager --config.file={dir}/alertmanager.yml --storage.path={dir}"
        " --web.listen-address=127.0.0.1:{port} --cluster.listen-address=",
        "/api/v2/status",
    ),
    "node_exporter": (  # without the collectors that name the host's disks, networks and kernel
        "prometheus-node-exporter --web.listen-address=127.0.0.1:{port} --collector.disable-defaults --collector.cpu"
        " --collector.meminfo --collector.loadavg --collector.stat --collector.vmstat --collector.netstat",
        "/metrics",
    ),
    "blackbox_exporter": (
        "prometheus-blackbox-exporter --config.file={dir}/blackbox.yml --web.listen-address=127.0.0.1:{port}",
        "/probe?target=127.0.0.1:{port}&module=http_2xx",
    ),
    "etcd": (
        "etcd --data-dir={dir}/etcd --listen-client-urls=http://127.0.0.1:{port}"
        " --advertise-client-urls=http://127.0.0.1:{port} --listen-peer-urls=http://127.0.0.1:{other}",
        "/version",
    ),
    "process_exporter": (
        "prometheus-process-exporter -procnames=prometheus,python3 -web.listen-address=127.0.0.1:{port}",
        "/metrics",
    ),
    "redis_exporter": (
        "prometheus-redis-exporter -web.listen-address=127.0.0.1:{port} -redis.addr=redis://127.0.0.1:{other}",
        "/metrics",
    ),
}
_FILES = {
    "prometheus.yml": "scrape_configs:\n- job_name: self\n  scrape_interval: 1s\n"
    "  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n",
    "alertmanager.yml": "route: {{receiver: none}}\nreceivers: [{{name: none}}]\n",
    "blackbox.yml": "modules: {{http_2xx: {{prober: http}}}}\n",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(name: str, settle_s: float = 3.0) -> Iterator[str]:
    """The URL of one of the servers while it runs."""
    command, ask = SERVERS[name]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        places = {"port": free_port(), "other": free_port(), "dir": folder}
        for file, text in _FILES.items():
            (Path(folder) / file).write_text(text.format(**places))
        url = f"http://127.0.0.1:{places['port']}"
        if name == "redis_exporter":
            ends.enter_context(_process(f"redis-server --port {places['other']} --save '' --dir {folder}".split()))
        ends.enter_context(_process([word.format(**places) for word in command.split()]))
        deadline = time.monotonic() + 20
        while True:
            try:
                get(url + ask.format(**places), "*/*")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        time.sleep(settle_s)
        yield url


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def get(url: str, accept: str) -> tuple[str, bytes]:
    """The content type and the body."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Accept": accept}), timeout=5) as response:
        return response.headers["Content-Type"], response.read()


def main(names: list[str]) -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in names or SERVERS:
        with running(name) as url:
            for format_, accept in FORMATS.items():
                content_type, body = get(url + "/metrics", accept)
                if content_type.startswith(accept.partition(";")[0]):
                    (PAGES / f"{name}.{format_}").write_bytes(body)
                    print(f"{name}.{format_}: {len(body)} bytes, {content_type}")


if __name__ == "__main__":
    main(sys.argv[1:])
