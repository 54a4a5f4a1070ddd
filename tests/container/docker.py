"""A Docker Engine of the tests' own, started by hand, and what is asked of it through the `docker` command.

Its data, socket and sessions lie in one folder, so it meets no other engine on the machine. No registry is reached:
the base image is a Debian made with `debootstrap`, the wheels come through this machine's pip, and both are kept in
the user's cache under a name that is made of what is in them.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.daemons import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = (
    *("python3", "python3-venv", "binutils"),  # what the Dockerfile asks of its base, and what it would fetch
    *("curl", "procps", "bc"),  # of the script that the check replaces
    *("wget", "prometheus", "prometheus-alertmanager"),  # as in the images of those
)
BASE, SENTINEL, POD = "sentinel-tests/base:1", "sentinel-tests/sentinel:1", "sentinel-tests/pod:1"
PROGRAMS = ("dockerd", "docker", "debootstrap", "prometheus")
# No network but loopback, and all that an engine and its sidecar can do without.
LOCKED = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
STAND_IN = ("python3", "-m", "sentinel.demo.engine")
# As PID 1 of a namespace: waits for SIGTERM, and lets the kernel reap what is handed to it.
_PAUSE = (
    "import signal as s; s.signal(s.SIGCHLD, s.SIG_IGN); "
    "s.pthread_sigmask(s.SIG_BLOCK, [s.SIGTERM]); s.sigwait([s.SIGTERM])"
)


class Docker:
    """`with Docker() as docker:` an engine without any image; `docker("ps")` runs a command and gives what it prints.

    `under` is the folder of a control group in which the engine itself runs; its containers have groups of their own.
    """

    def __init__(self, under: Path | None = None) -> None:
        self._under = under
        self._closing = ExitStack()
        self._index = ""
        self._folder = Path(tempfile.mkdtemp(prefix="sentinel-docker-", dir="/var/tmp"))  # not a tmpfs: overlay2
        self.socket = self._folder / "docker.sock"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),  # where command-line plugins may lie
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_BUILDKIT": "0",  # the builder inside the engine: BuildKit's needs one more plugin
        }

    def __enter__(self) -> Self:
        words = ["dockerd", f"--host=unix://{self.socket}", f"--data-root={self._folder}/data"]
        words += [f"--exec-root={self._folder}/exec", f"--pidfile={self._folder}/pid"]
        words += ["--iptables=false", "--bridge=none"]
        if self._under:
            words = ["sh", "-c", f'echo $$ > "{self._under}/cgroup.procs" && exec "$@"', "sh", *words]
        self._log = (self._folder / "log").open("wb")
        self.process = subprocess.Popen(words, stdout=self._log, stderr=self._log)
        try:
            until(lambda: self.process.poll() is not None or self._answers(), 60)
            assert self.process.poll() is None, (self._folder / "log").read_text()[-2000:]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        try:
            if self.process.poll() is None:
                if names := self("ps", "--all", "--quiet").split():
                    self("rm", "--force", "--volumes", *names)
                self("network", "prune", "--force")
        finally:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self._log.close()
            for bound in filter(os.path.ismount, self._folder.glob("exec/netns/*")):  # the host's is left behind
                subprocess.run(["umount", "--lazy", str(bound)], check=True)
            shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        words = ["docker", "version"]
        return subprocess.run(words, env=self.environ, capture_output=True, check=False).returncode == 0

    def __call__(self, *words: str, environ: Mapping[str, str] | None = None) -> str:
        done = self.tried(*words, environ=environ)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}{done.stdout[-2000:]}"
        return done.stdout.strip()

    def tried(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """As a call, for what may fail."""
        env = {**self.environ, **(environ or {})}
        words = ("docker", *words)  # 300 s: a whole build; an exec in a container that ends meanwhile may never return
        return subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)

    @contextmanager
    def run(self, *words: str) -> Iterator[str]:
        """A container in the background, removed at the end; gives its id."""
        name = self("run", "--detach", *words)
        try:
            yield name
        finally:
            self("rm", "--force", "--volumes", name)

    def inspect(self, name: str) -> Any:
        return self.inspect_all(name)[0]

    @contextmanager
    def following(self, *words: str) -> Iterator[Iterator[str]]:
        """What a command goes on printing, line by line; it is ended by the engine's end at the latest."""
        process = subprocess.Popen(["docker", *words], env=self.environ, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()

    def inspect_all(self, *names: str) -> Any:
        return json.loads(self("inspect", *names))

    def health(self, name: str) -> str:
        """`starting`, `healthy` or `unhealthy`."""
        return str(self.inspect(name)["State"]["Health"]["Status"])

    def get(self, name: str, url: str, *options: str) -> str:
        """What curl brings inside of the container, whatever the status."""
        return self("exec", name, "curl", "-s", "--max-time", "5", *options, url)

    def fault(self, name: str, fault: str, method: str = "POST") -> None:
        self.get(name, f"http://127.0.0.1:8080/faults/{fault}", "-X", method)

    def log(self, name: str) -> list[dict[str, Any]]:
        """What a daemon wrote on standard output; each line must be JSON."""
        return [json.loads(line) for line in self("logs", name).splitlines()]

    def load(self) -> None:
        """The images: base, Sentinel, and the owner of a pod's namespaces."""
        self("import", "--change", 'CMD ["python3"]', str(base_archive()), BASE)
        self.build(SENTINEL)
        pod = json.dumps(["python3", "-c", _PAUSE])
        self.build(POD, dockerfile=f"FROM {BASE}\nUSER 65535:65535\nCMD {pod}\n")

    def build(self, tag: str, *options: str, dockerfile: str = "") -> None:
        """Builds from the project's folder, or a Dockerfile without context."""
        if dockerfile:
            words = ["docker", "build", "--tag", tag, "-"]
            subprocess.run(words, env=self.environ, input=dockerfile, check=True, capture_output=True, text=True)
            return
        if not self._index:  # one for all builds: with another address none of their steps were the same
            self._index = self._closing.enter_context(index())
        arguments = ["--build-arg", f"BASE={BASE}", "--build-arg", f"PIP_INDEX_URL={self._index}"]
        self("build", "--network", "host", *arguments, *options, "--tag", tag, ".")


def healthcheck(interval_s: float, retries: int, command: str) -> tuple[str, ...]:
    """The options of `docker run` for what a Dockerfile's HEALTHCHECK says."""
    times = (f"--health-interval={interval_s}s", "--health-timeout=3s", f"--health-retries={retries}")
    return (*times, "--health-start-period=30s", f"--health-cmd={command}")


def cached(name: str, *parts: object) -> Path:
    """A place in the user's cache for what is made of these parts alone."""
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sentinel-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{key}"


def base_archive() -> Path:
    """A Debian with Python, as an archive; made once."""
    path = cached("base.tar", SUITE, PACKAGES)
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = f"{folder}/root"
        words = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root]
        _run(*words)
        for unused in ("var/cache/apt", "usr/share/doc", "usr/share/fonts", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(f"{root}/{unused}")
        _run("tar", "-C", root, "-cf", f"{path}.new", ".")
    Path(f"{path}.new").rename(path)
    return path


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@functools.cache
def wheels() -> Path:
    """Every wheel that building and installing Sentinel takes, in a folder for each project; made once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    path = cached("wheels", PYTHON, os.uname().machine, wanted)
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--dest={folder}/all"]
        _run(*words, f"--python-version={PYTHON}", "--implementation=cp", *wanted)
        for wheel in Path(folder, "all").glob("*.whl"):
            name = re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
            Path(folder, "index", name).mkdir(parents=True, exist_ok=True)
            wheel.rename(Path(folder, "index", name, wheel.name))
        Path(folder, "index").rename(path)
    return path


@contextmanager
def index() -> Iterator[str]:
    """The wheels as a package index on loopback: PEP 503 asks for no more than lists of links."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # the name is the library's
            pass

    handler = functools.partial(Quiet, directory=str(wheels()))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
