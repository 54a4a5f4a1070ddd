"""The boards: the JSON is what the code makes, it keeps the usual rules, and a real Prometheus answers every query.

No Grafana can be had from the registries that the tests install from, so what it does with a board before it asks is
done here: the variables are filled in, in its order and by its rules for one, several and all.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.src import BOARDS
from dashboards.src.board import TITLES, text
from dashboards.src.queries import STATES
from sentinel.causes import RULES
from sentinel.model import ENGINE_STATES
from tests.cgroups import Group, mounted
from tests.daemons import Daemon, until
from tests.engines import Engine
from tests.prometheus import Prometheus
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = Path(__file__).parent.parent / "dashboards"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}

each_board = pytest.mark.parametrize("board", FILES.values(), ids=FILES)


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """All that are no row, those in folded rows too."""
    inner = (panel.get("panels", ()) for panel in board["panels"])
    return [panel for panel in itertools.chain(board["panels"], *inner) if panel["type"] != "row"]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def annotations(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that ask Prometheus; what somebody told Grafana itself is no query."""
    return [note for note in board["annotations"]["list"] if note["datasource"]["type"] != "grafana"]


def queries(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]] + [
        note["expr"] for note in annotations(board)
    ]


# --- the files -----------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_code_makes() -> None:
    made = {board.uid: text(board) for board in BOARDS}
    assert {path.stem: path.read_text() for path in FOLDER.glob("*.json")} == made, "run `make dashboards`"


@each_board
def test_the_sdk_reads_a_file_back_as_it_is(board: dict[str, Any]) -> None:
    """Its classes are made from Grafana's own schema: what they do not know is lost on the way."""
    again = json.loads(text(Dashboard.from_json(json.loads(json.dumps(board)))))
    for note in board["annotations"]["list"]:  # that part the SDK lacks: see dashboards/src/board.py
        for name in ("useValueForTime", "step", "titleFormat", "textFormat"):
            note.pop(name, None)
    assert again == board


def test_the_states_are_those_of_the_daemon() -> None:
    assert sorted(STATES) == sorted(ENGINE_STATES)


def test_the_evidence_has_the_order_of_explain() -> None:
    told = "\n".join(panel["description"] for panel in panels(FILES["sentinel-engine"]))
    rules = re.findall(r"`(\w+)`", "".join(re.findall(r" names the cause, here (.+);", told)))
    assert rules == [rule.word for rule in RULES]


def test_the_provider_is_one_that_grafana_loads() -> None:
    """grafana.com/docs: /administration/provisioning/#dashboards."""
    provider = yaml.safe_load((FOLDER / "provisioning/dashboards/sentinel.yaml").read_text())
    (told,) = provider["providers"]
    assert (provider["apiVersion"], told["type"]) == (1, "file")
    assert told["options"]["path"] == "/var/lib/grafana/dashboards/sentinel"
    assert told["name"]
    assert told["folder"]
    assert not [*(FOLDER / "provisioning").rglob("*.json")]  # nothing there is read as a board


# --- the rules -----------------------------------------------------------------------------------------------------


@each_board
def test_a_board_is_whole(board: dict[str, Any]) -> None:
    assert board["schemaVersion"] == 41  # Grafana 11.6; later ones bring it up themselves
    assert "id" not in board  # Grafana's own, another in each
    assert not board["editable"]
    assert board["tags"] == ["sentinel"]
    assert board["title"] == TITLES[board["uid"]]
    assert board["refresh"]
    linked = {re.match(r"/d/([\w-]+)\?", link["url"])[1] for link in board["links"]}  # type: ignore[index]
    assert linked == TITLES.keys() - {board["uid"]}
    assert all(link["keepTime"] for link in board["links"])
    ids = [panel["id"] for panel in [*panels(board), *(row for row in board["panels"] if row["type"] == "row")]]
    assert len(ids) == len(set(ids))
    assert board["panels"][0]["type"] == "row"  # each panel can be folded away


def test_uids_are_unique_and_those_that_alerts_link_to() -> None:
    assert FILES.keys() == TITLES.keys() == {board["uid"] for board in FILES.values()}
    assert FILES.keys() == {"sentinel-fleet", "sentinel-engine", "sentinel-self"}


@each_board
def test_the_variables_are_as_usual(board: dict[str, Any]) -> None:
    found = variables(board)
    assert next(iter(found)) == "datasource"
    assert (found["datasource"]["type"], found["datasource"]["query"]) == ("datasource", "prometheus")
    assert "engine" in found
    assert ("quantile" in found) == (board["uid"] != "sentinel-self")
    for name in ("job", "instance"):
        assert (found[name]["multi"], found[name]["includeAll"], found[name]["allValue"]) == (True, True, ".+")
    for name, variable in found.items():
        assert variable["label"]
        if name != "datasource":
            assert variable["refresh"] == 2  # on a change of the time range: an engine may be newer than the page
            assert variable["datasource"]["uid"] == "${datasource}"
        used = [*queries(board), *(other["query"] for other in found.values()), board["links"][0]["url"]]
        assert any(re.search(rf"\$\{{?{name}\b", one) for one in [*used, json.dumps(board["panels"])])


@each_board
def test_every_panel_says_what_it_is_and_what_to_do(board: dict[str, Any]) -> None:
    for panel in panels(board):
        where = panel["title"]
        assert panel["title"], panel["id"]
        assert "**When it looks bad:** " in panel["description"], where
        assert re.search(r"`sentinel explain (\$engine|ENGINE)`", panel["description"]), where
        assert re.search(r"the runbook is `alerts/runbooks/\w+\.md`", panel["description"]), where
    titles = [(panel["title"], panel["type"]) for panel in panels(board)]
    assert len(titles) == len(set(titles))


@each_board
def test_every_panel_asks_the_chosen_datasource(board: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(board):
        assert panel["targets"], panel["title"]
        assert panel["datasource"] == chosen, panel["title"]
        assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])
        names = [target["refId"] for target in panel["targets"]]
        assert len(names) == len(set(names)), panel["title"]
    assert [note["datasource"] for note in annotations(board)] == [chosen] * len(annotations(board))


@each_board
def test_every_panel_has_a_unit_and_an_end_of_good(board: dict[str, Any]) -> None:
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        if panel["type"] in ("heatmap", "table"):  # the first has no thresholds in Grafana, the second one a column
            columns = [part["id"] for one in panel["fieldConfig"]["overrides"] for part in one["properties"]]
            assert panel["type"] == "heatmap" or {"thresholds", "mappings"} & {*columns}, panel["title"]
            continue
        drawn = [target.get("legendFormat", "") for target in panel["targets"]]
        limits = [name for name in drawn if re.search(r"(limit|budget)$", name)]
        dashed = any(one["matcher"]["options"] == "/(limit|budget)$/" for one in panel["fieldConfig"]["overrides"])
        stepped = len(defaults["thresholds"]["steps"]) > 1 or "mappings" in defaults
        assert stepped != bool(limits), panel["title"]  # a limit of ours, or the one that is published
        assert dashed == bool(limits), panel["title"]


SELECTOR = re.compile(r"([a-z_:$}{]+)\{([^{}]*)\}")
RATED = re.compile(r"\b(rate|irate|increase|delta|deriv)\(([^()]*)\[([^\]]+)\]\)")
WINDOWED = re.compile(r"\b(\w+_over_time)\([^()]*\[([^\]]+)\]\)")


def bare(query: str) -> list[str]:
    """Series without matchers: names that are no function, no keyword and no label."""
    rest = re.sub(r"\{[^{}]*\}|\[[^\]]*\]|\b(by|on|group_right) \([^()]*\)", "{", query.replace("${histogram}", ""))
    return [name for name in re.findall(r"\b[a-z_]\w*\b(?! ?[({])", rest) if name not in ("or", "bool")]


@each_board
def test_every_query_keeps_to_what_is_chosen(board: dict[str, Any]) -> None:
    engine = 'engine="$engine"' if board["uid"] == "sentinel-engine" else 'engine=~"$engine"'
    for query in queries(board):
        selectors = SELECTOR.findall(query.replace("${histogram}", "HISTOGRAM".lower()))
        assert selectors, query
        for metric, inside in selectors:
            matchers = inside.split(",")
            if metric == "histogram_bucket":  # the engine's own job publishes it, so it has another job and instance
                assert matchers == [engine]
                continue
            assert {'job=~"$job"', 'instance=~"$instance"'} <= {*matchers}, query
            about_all = metric.startswith(("process_", "sentinel_schedule_", "sentinel_build_", "sentinel_config_"))
            assert about_all or engine in matchers or "count" in metric, query
        assert not bare(query), query


@each_board
def test_every_counter_is_rated_over_the_interval_of_grafana(board: dict[str, Any]) -> None:
    instant = {target["expr"] for panel in panels(board) for target in panel["targets"] if target.get("instant")}
    for query in queries(board):
        for _, _, window in RATED.findall(query):
            assert window == ("$__range" if query in instant and "increase" in query else "$__rate_interval"), query
        for _, window in WINDOWED.findall(query):
            assert window == "$__interval", query
        assert query.count("[") == len(RATED.findall(query)) + len(WINDOWED.findall(query)), query
        for metric in re.findall(r"\b\w+_total\b|\b\w+_(?:bucket|count)\b(?=\{)", query):
            assert re.search(rf"\b(rate|increase)\({re.escape(metric)}\{{", query.replace("${histogram}", "")), query


@each_board
def test_no_panel_lies_over_another(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in [*panels(board), *(row for row in board["panels"] if row["type"] == "row")]:
        at = panel["gridPos"]
        assert at["w"] > 0
        assert at["h"] > 0
        assert at["x"] + at["w"] <= 24
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]


# --- what a real Prometheus says -----------------------------------------------------------------------------------

CONFIG = """\
listen: 127.0.0.1:0
engines:
  - name: trading-engine
    interval: 500ms
    timeout: 400ms
    start_period: 1s
    probes:
      health:  {kind: http, url: "%(health)s"}
      process: {kind: process, name: "%(name)s"}
      memory:  {kind: memory, max: 90%%}
      latency: {kind: latency, url: "%(metrics)s", metric: order_latency_seconds, window: 2s,
                quantiles: {0.5: 700us, 0.99: 1ms, 0.999: 2ms}}
  - name: gone-engine
    start_period: 0s
    probes:
      process: {kind: process, name: never-started}
"""
SCRAPES = """\
global: {scrape_interval: 1s}
scrape_configs:
  - {job_name: sentinel, static_configs: [{targets: ['%(daemon)s']}]}
  - {job_name: engines, static_configs: [{targets: ['%(engine)s'], labels: {engine: trading-engine}}]}
"""


class Scene(NamedTuple):
    """A Prometheus that has seen an engine get slow, grow and be killed, from when to when; `grew` is in between."""

    prometheus: Prometheus
    began: float
    grew: float
    ended: float

    def seconds(self) -> int:
        return math.ceil(self.ended - self.began)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("boards")
    with Group("cpu") as group, Engine("--rate", "400", name="board-engine") as engine:
        group.limit_cpu(0.5)
        group.add(engine.pid)
        told = {"health": engine.health_url, "metrics": engine.metrics_url, "name": engine.name}
        with Daemon(folder, CONFIG % told) as daemon:
            targets = {"daemon": daemon.url.removeprefix("http://"), "engine": engine.metrics_url.split("/")[2]}
            with Prometheus(folder, SCRAPES % targets) as prometheus:
                began = time.time()

                def seen(query: str) -> None:
                    until(lambda: prometheus.api("query", query=query)["result"], 60)

                seen('sentinel_engine_state{engine="trading-engine",state="healthy"} == 1')
                engine.fault("memory", 25)
                engine.fault("slow", 4)
                seen('sentinel_probe_failures_total{reason="over_budget"}')
                seen("sentinel_engine_memory_seconds_to_limit")
                grew = time.time()
                engine.kill()
                seen('sentinel_engine_cause{engine="trading-engine"}')
                engine.start()
                group.add(engine.pid)
                seen("count_over_time(sentinel_engine_down_seconds[30s]) > 2 and sentinel_engine_restarts_total > 0")
                seen('sentinel_engine_state{engine="trading-engine",state="healthy"} == 1')
                seen('sentinel_engine_state{engine="gone-engine",state="unhealthy"} == 1')
                yield Scene(prometheus, began, grew, time.time())


def asked(prometheus: Prometheus, query: str) -> list[str]:
    """What Grafana's `label_values(SELECTOR, LABEL)` asks for."""
    selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
    found: list[str] = prometheus.api(f"label/{label}/values", match=selector)
    return found


def filled(query: str, values: dict[str, str], scene: Scene) -> str:
    """With a scrape interval of 1 s and a point a second, which makes `$__rate_interval` four scrapes."""
    known = {**values, "__interval": "1s", "__rate_interval": "4s", "__range": f"{scene.seconds()}s"}
    return re.sub(r"\$\{?(\w+)\}?", lambda name: known[name[1]], query)


def choices(board: dict[str, Any], scene: Scene) -> Iterator[dict[str, str]]:
    """The values that the board begins with; each other histogram; and several, each by its name, for all."""
    found = {name: variable for name, variable in variables(board).items() if name != "datasource"}
    options: dict[str, list[str]] = {}

    def values(name: str, alone: dict[str, int], by_name: bool) -> str:
        if not found[name]["multi"]:
            return options[name][alone.get(name, 0)]
        named = (re.escape(one).replace("\\", r"\\") for one in options[name])  # within a string of PromQL
        return f"({'|'.join(named)})" if by_name else found[name]["allValue"]

    def choice(alone: dict[str, int], by_name: bool) -> dict[str, str]:
        chosen: dict[str, str] = {}
        for name, variable in found.items():
            options[name] = asked(scene.prometheus, filled(variable["query"], chosen, scene))
            if pattern := variable.get("regex"):
                matches = (re.fullmatch(pattern.strip("/"), one) for one in options[name])
                options[name] = [match[1] for match in matches if match]
            assert options[name], f"{name} has no value: {variable['query']}"
            chosen[name] = values(name, alone, by_name)
            if name == "engine" and not variable["multi"]:
                chosen[name] = "trading-engine"
        return chosen

    yield choice({}, False)
    yield choice({}, True)
    for place in range(1, len(options.get("histogram", ()))):
        yield choice({"histogram": place}, False)


def numbers(result: Iterable[dict[str, Any]]) -> list[float]:
    samples = itertools.chain.from_iterable(series.get("values") or [series["value"]] for series in result)
    return [number for number in (float(value) for _, value in samples) if math.isfinite(number)]


def answer(scene: Scene, query: str, instant: bool) -> list[dict[str, Any]]:
    """What a panel has at the end of the scene, or had while the engine grew: it is asked for the last value only."""
    found: list[dict[str, Any]] = []
    if not instant:
        found = scene.prometheus.api("query_range", query=query, start=scene.began, end=scene.ended, step=1)["result"]
    for at in (scene.ended, scene.grew) if instant else ():
        found = found or scene.prometheus.api("query", query=query, time=at)["result"]
    return found


def without_data(board: dict[str, Any], scene: Scene) -> Iterator[str]:
    targets = [(note["name"], note["expr"], False) for note in annotations(board)]
    for panel in panels(board):
        targets += [(panel["title"], target["expr"], target["instant"]) for target in panel["targets"]]
    for values in choices(board, scene):
        for title, query, instant in targets:
            asking = filled(query, values, scene)
            if not numbers(answer(scene, asking, instant)):
                yield f"{board['uid']}: {title}: {asking}"
            # And each series in it by itself: what is missing on one side of an `or` is seen by nobody else.
            for selector in re.findall(r"[a-z_]+\{[^{}]*\}", asking):
                if not answer(scene, f"count_over_time({selector}[{scene.seconds()}s])", True):
                    yield f"{board['uid']}: {title}: nothing publishes {selector}"


needs_group = pytest.mark.skipif(mounted("cpu") is None, reason="needs a cpu cgroup that can be written, as root")


@needs("prometheus")
@needs_group
def test_every_query_has_data(scene: Scene) -> None:
    missing = {one for board in FILES.values() for one in without_data(board, scene)}
    assert not missing, "\n".join(sorted(missing))


@needs("prometheus")
@needs_group
def test_the_state_that_is_drawn_is_the_worst(scene: Scene) -> None:
    query = next(one for one in queries(FILES["sentinel-fleet"]) if "max_over_time(sentinel_engine_state" in one)
    chosen = {"job": ".+", "instance": ".+", "engine": ".+"}
    drawn = {series["metric"]["engine"]: series for series in answer(scene, filled(query, chosen, scene), False)}
    seen = {name: {[*STATES][int(place)] for place in numbers([series])} for name, series in drawn.items()}
    assert {"healthy", "unhealthy"} <= seen["trading-engine"]
    assert "unhealthy" in seen["gone-engine"]
    assert "healthy" not in seen["gone-engine"]
