"""`sentinel run`: the daemon. A composition root: it wires schedule, fetch, probes, board and publishers, and logs.

One event loop, one writer: every answer goes through `_run_probe`, every reader gets a snapshot from `picture`.
It must never let one probe's fault reach another, and never start with half a configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import os
import signal
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from loguru import logger

from sentinel.board import Snapshot, changes, fresh, settle, step
from sentinel.config import load_config
from sentinel.explainer import Explainer
from sentinel.fetch.ends import Ends
from sentinel.fetch.loop import Fetcher
from sentinel.history import History
from sentinel.maintenance import Calendar
from sentinel.model import FindProcesses, Observation, Tally
from sentinel.probes import load
from sentinel.publish.control import commands
from sentinel.publish.doors import Doors
from sentinel.publish.events import Events
from sentinel.publish.log import log_change, start_log
from sentinel.publish.notify import Notifier
from sentinel.publish.picture import change as change_shape
from sentinel.publish.picture import engine_line, with_cause
from sentinel.publish.web import application
from sentinel.schedule import Schedule
from sentinel.spec import shared, with_evidence
from sentinel.units import duration
from sentinel.yaml_source import ConfigError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from sentinel.board import EngineRecord
    from sentinel.config import Config
    from sentinel.explain import Explanation
    from sentinel.model import EngineSpec, ProbeSpec
    from sentinel.schedule import Key


def main(argv: Sequence[str]) -> int:
    """0 after SIGTERM or SIGINT, 1 on a bad configuration."""
    parser = argparse.ArgumentParser(prog="sentinel run", description="Watch engines and publish their health.")
    parser.add_argument("--config", metavar="FILE", default=os.environ.get("SENTINEL_CONFIG") or None)
    args = parser.parse_args(argv)
    start_log()
    try:
        config = load_config(args.config, os.environ)
        asyncio.run(Daemon(config, args.config).run())
    except ConfigError as exc:
        for fault in exc.faults:
            sys.stderr.write(f"sentinel: {fault}\n")
        return 1
    return 0


class Daemon:
    """The one writer. `config_path` is what a SIGHUP reads again; None for the defaults and the environment."""

    def __init__(self, config: Config, config_path: str | None) -> None:
        self._config = config
        self._path = config_path
        self._version = version("sentinel-engine-monitor")
        self._records: dict[str, EngineRecord] = {}
        self._specs: dict[str, EngineSpec] = {}
        self._plan: dict[Key, tuple[ProbeSpec, tuple[Any, ...]]] = {}
        self._broken: set[Key] = set()
        self._said: set[tuple[str, str, str]] = set()
        self._told_rule: dict[str, str] = {}
        self._lag = Tally()
        self._reloaded = True
        self._history = History()
        self._explainer = Explainer(self._history, _clock)
        self._events = Events(self.picture, self._history)
        self._ends = Ends(self._ended)
        self._fetch = Fetcher(self._ends.status)
        self._schedule = Schedule(self._run_probe)
        self._running: dict[Key, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calendar = Calendar()
        self._notifier = Notifier(self._describe, lambda: self._late_probe(time.monotonic()), self._say)
        served = {
            "listen": application(self.picture, self._events, self._history),
            "control": commands(self.picture, self._order),
        }
        self._doors = Doors(served)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises ConfigError where it cannot listen."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        async with self._doors, self._fetch:
            self._adopt(self._config)
            await self._listen(self._config)
            loop.add_signal_handler(signal.SIGHUP, lambda: self._keep_task(self._reload()))
            self._schedule.start()
            ticking = asyncio.create_task(self._schedule.keep_time(self._tick))
            gc.freeze()  # what is loaded by now stays; collections need not walk it every time
            await stop.wait()
            self._schedule.stop()
            self._ends.close()
            self._notifier.close()
            ticking.cancel()
            self._events.close()
        logger.info("stopped")

    def picture(self) -> Snapshot:
        """The snapshot of now; what time alone changed is noticed, and told, on the way."""
        now, unix = time.monotonic(), time.time()
        for name, spec in self._specs.items():
            record = self._records[name]
            maintenance = self._calendar.of(spec, now, unix)
            if maintenance != record.maintenance:
                record = record.replace(maintenance=maintenance)
            self._keep(spec, settle(spec, record, now))
        engines = tuple((spec, self._records[name]) for name, spec in self._specs.items())
        explained = {name: self._explainer.of(name) for name in self._specs}
        late, deliveries = self._late_probe(now), self._notifier.deliveries()
        return Snapshot(now, unix, self._version, engines, self._lag, self._reloaded, late, explained, deliveries)

    async def _run_probe(self, key: Key, waited_s: tuple[float, ...]) -> None:
        """One run by the schedule; where an event runs the probe already, after that."""
        self._lag = self._lag.add(waited_s[0])
        async with self._running.setdefault(key, asyncio.Lock()):
            await self._ask(key, waited_s)

    def _ended(self, key: Key) -> None:
        """A process of the engine ended: its probe is asked now and not at its next beat."""

        async def ask() -> None:
            async with self._running[key]:
                if key in self._plan:
                    await self._ask(key, (0.0,))

        self._keep_task(ask())

    def _keep_task(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that nobody waits for; the loop itself holds tasks weakly only."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, key: Key, waited_s: tuple[float, ...]) -> None:
        engine, name = key
        probe, asks = self._plan[key]
        began = time.monotonic()
        memory = self._records[engine].probes[name].memory
        try:
            brought = await asyncio.gather(*(self._fetch(ask, probe.policy.timeout_s) for ask in asks))
            answers = tuple(answer.replace(waited_s=waited_s) for answer in brought)
            seen, memory = load(probe.kind).read(probe.settings, answers, memory)
            if undeclared := {reading.metric for reading in seen.readings} - _declared(probe.kind):
                raise ValueError(f"METRICS of kind {probe.kind} lacks {', '.join(sorted(undeclared))}")
            for ask, answer in zip(asks, answers, strict=True):
                if isinstance(ask, FindProcesses):
                    self._ends.hold(key, answer.value or ())
            self._broken.discard(key)
        except Exception as exc:  # noqa: BLE001  # a bug in one probe must not end the watch over the others
            if key not in self._broken:
                logger.bind(engine=engine, probe=name).exception("the probe itself failed, please report this")
            self._broken.add(key)
            now = time.monotonic()
            seen = Observation(now, now - began, None, f"the probe itself failed ({type(exc).__name__})", "probe_error")
        if self._plan.get(key, (None,))[0] is not probe:
            return  # a reload came in between: the answer is to a question that nobody asks any more
        spec = self._specs[engine]
        self._history.add(key, seen)
        now = time.monotonic()
        self._keep(spec, step(spec, self._records[engine], name, seen, now, memory))
        self._explain(spec, now)
        self._say_once(key, seen)

    def _keep(self, spec: EngineSpec, record: EngineRecord) -> None:
        """The one place where a record is replaced, and so where changes are told."""
        before = self._records[spec.name]
        if record is before:
            return
        self._records[spec.name] = record
        for change in changes(spec, before, record):
            told = change
            if not change.probe:  # that it is not well, and why, is told in one line
                found = self._explained(spec, time.monotonic())
                told = change.replace(why=with_cause(change.why, found))
                self._told_rule[spec.name] = found.rule if found else ""
            log_change(told)
            self._events.tell(change_shape(told, time.time()))
            if not change.probe:
                self._notifier.hear(spec.name, record.state)

    def _explain(self, spec: EngineSpec, now: float) -> None:
        """Looks for causes after an answer, and logs the likeliest when that is another one."""
        found = self._explained(spec, now)
        rule = found.rule if found else ""
        if found and found.believed and rule and rule != self._told_rule.get(spec.name):
            logger.bind(engine=spec.name, rule=rule).warning("{}: {}", spec.name, found.sentence)
        self._told_rule[spec.name] = rule

    def _explained(self, spec: EngineSpec, now: float) -> Explanation | None:
        """What explains the engine's trouble, after another look."""
        try:
            self._explainer.update(spec, self._records[spec.name], now)
        except Exception:  # noqa: BLE001  # a bug in a rule must hide no change of state
            if (spec.name, "explain") not in self._broken:
                logger.bind(engine=spec.name).exception("the explanation itself failed, please report this")
            self._broken.add((spec.name, "explain"))
        return self._explainer.of(spec.name)[0]

    def _describe(self, engine: str) -> str:
        """`trading-engine is unhealthy (why; likeliest cause)`, as everywhere."""
        return engine_line(self._specs[engine], self._records[engine], self._explainer.of(engine)[0])

    def _say(self, level: str, receiver: str, sentence: str) -> None:
        logger.bind(receiver=receiver).log(level, "notify {}: {}", receiver, sentence)

    def _say_once(self, key: Key, seen: Observation) -> None:
        """What a probe assumed or could not read is said once, not with every answer."""
        for what, told in seen.details:
            if what not in ("assumed", "unreadable"):
                continue
            once = (*key, str(getattr(told, "source", told)))  # its path has the pid in it, and so changes
            if once not in self._said:
                self._said.add(once)
                logger.bind(engine=key[0], probe=key[1]).warning("{}/{} {}: {}", *key, what, told)

    def _tick(self) -> None:
        self._events.show(self.picture())

    def _late_probe(self, now: float) -> str:
        for key, (probe, _) in self._plan.items():
            silent_s = self._schedule.silent_s(key, now)
            if silent_s > probe.policy.stale_after_s:
                return f"the schedule is late: {'/'.join(key)} was last started {duration(silent_s)} ago"
        return ""

    def _adopt(self, config: Config) -> None:
        """Watches what this configuration says; probes that did not change keep their states and counters."""
        now = time.monotonic()
        specs, records, plan = {}, {}, {}
        for spec in map(with_evidence, config.engines):
            old, old_record = self._specs.get(spec.name), self._records.get(spec.name)
            kept = tuple(probe.name for probe in spec.probes if old is not None and probe in old.probes)
            specs[spec.name] = spec
            records[spec.name] = fresh(spec, now, old_record, kept)
            asks = {probe.name: load(probe.kind).asks(probe.settings) for probe in spec.probes}
            really = shared(ask for several in asks.values() for ask in several)
            for probe in spec.probes:
                plan[spec.name, probe.name] = (probe, tuple(really[ask] for ask in asks[probe.name]))
        for gone in self._plan.keys() - plan.keys():
            self._ends.hold(gone, ())
        self._history.keep(plan)
        self._explainer.keep(specs)
        self._calendar.keep(specs)
        self._specs, self._records, self._plan, self._config = specs, records, plan, config
        self._notifier.set(config.notify, {name: record.state for name, record in records.items()})
        self._schedule.set({key: probe.policy.interval_s for key, (probe, _) in plan.items()})

    def _order(self, engine: str, lasts_s: float | None, reason: str) -> None:
        """A command: maintenance begins for that long, or ends."""
        now, unix = time.monotonic(), time.time()
        if lasts_s is None:
            self._calendar.end(engine, unix)
        else:
            self._calendar.start(engine, lasts_s, reason, now, unix)
        what = "ended" if lasts_s is None else f"begun for {duration(lasts_s)}"
        logger.bind(engine=engine, why=reason).info("{} maintenance {} by command", engine, what)

    async def _listen(self, config: Config) -> None:
        """Listens where the configuration says. Raises ConfigError."""
        doors = {"listen": str(config.listen), **({} if config.control is None else {"control": str(config.control)})}
        await self._doors.open(doors)
        watched = ", ".join(spec.name for spec in config.engines)
        where = self._doors.where("listen")
        logger.bind(engines=len(config.engines)).info("watching {}; listening on {}", watched, where)

    async def _reload(self) -> None:
        """SIGHUP: all of the new configuration or all of the old one."""
        try:
            config = load_config(self._path, os.environ)
            if (config.listen, config.control) != (self._config.listen, self._config.control):
                await self._listen(config)
        except ConfigError as exc:
            self._reloaded = False
            for fault in exc.faults:
                logger.error("not reloaded, the old configuration goes on: {}", fault)
            return
        self._adopt(config)
        self._reloaded = True
        logger.info("reloaded, watching {}", ", ".join(self._specs))


@functools.cache
def _declared(kind: str) -> set[str]:
    """What a kind may publish; a metric that nobody declared would break the page for all."""
    return {metric.name for metric in load(kind).METRICS}


def _clock(moment: float) -> str:
    """A moment of the monotonic clock as a time of day in UTC."""
    return datetime.fromtimestamp(time.time() - (time.monotonic() - moment), UTC).strftime("%H:%M:%SZ")
