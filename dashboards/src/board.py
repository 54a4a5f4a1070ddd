"""The frame of a board: its variables, annotations and links, its rows, and the JSON that Grafana reads.

Ids and places are given here, so that none is given twice. What stands in the rows is the boards' own.
"""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from grafana_foundation_sdk.builders import dashboard as parts
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from dashboards.src.panels import SOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder

    from dashboards.src.panels import Panel

TITLES = {
    "sentinel-fleet": "Sentinel / Fleet",
    "sentinel-engine": "Sentinel / Engine",
    "sentinel-self": "Sentinel / Sentinel itself",
}
_CHOSEN = "${datasource:queryparam}&${job:queryparam}"  # goes along to the next board; an engine may not be there


class Row(NamedTuple):
    """A row that folds; `folded` ones ask nothing until somebody opens them."""

    title: str
    panels: Sequence[Panel]
    folded: bool = False


# --- variables -----------------------------------------------------------------------------------------------------


def datasource() -> parts.DatasourceVariable:
    """Whichever Prometheus this Grafana has."""
    return parts.DatasourceVariable("datasource").label("Data source").type("prometheus")


def chosen(name: str, label: str, query: str, *, several: bool = True, regex: str = "") -> parts.QueryVariable:
    """A label's values to choose from: `several` of them, or all."""
    variable = parts.QueryVariable(name).label(label).query(query).datasource(SOURCE).multi(several)
    variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    if regex:
        variable.regex(regex)
    if several:
        everything = dashboard.VariableOption(text="All", value="$__all", selected=True)
        variable.include_all(True).all_value(".+").current(everything)
    return variable


JOB = chosen("job", "Job", "label_values(sentinel_build_info, job)")


# --- annotations ---------------------------------------------------------------------------------------------------


class _Moments(dashboard.AnnotationQuery):
    """What the SDK's annotation lacks: the values of the series are the times, in milliseconds, and have a text."""

    text = ""

    def to_json(self) -> dict[str, object]:
        times = {"useValueForTime": True, "step": "10s", "titleFormat": self.name, "textFormat": self.text}
        return {**super().to_json(), **times}


class Moments(parts.AnnotationQuery):
    """Moments that a metric names in seconds since 1970; `text` may have `{{label}}`."""

    def __init__(self, name: str, color: str, seconds: str, text: str) -> None:
        self._internal = _Moments(name, SOURCE, icon_color=color, expr=f"1000 * {seconds}", hide=False)
        self._internal.text = text


def marks(name: str, color: str, tags: list[str]) -> parts.AnnotationQuery:
    """What somebody told Grafana of, by the tags that it was told with."""
    grafana = dashboard.DataSourceRef(type_val="grafana", uid="-- Grafana --")
    target = parts.AnnotationTarget().type("tags").tags(tags).match_any(False).limit(100)
    return parts.AnnotationQuery().name(name).datasource(grafana).enable(True).icon_color(color).target(target)


# --- the board -----------------------------------------------------------------------------------------------------


def board(
    uid: str,
    description: str,
    variables: Sequence[Builder[dashboard.VariableModel]],
    annotations: Sequence[Builder[dashboard.AnnotationQuery]],
    rows: Sequence[Row],
) -> dashboard.Dashboard:
    """The whole board, links to the others included."""
    made = parts.Dashboard(TITLES[uid]).uid(uid).description(description).tags(["sentinel"])
    made.readonly().timezone("browser").time("now-1h", "now").refresh("10s")
    made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    made.variables([datasource(), *variables]).annotations([*annotations])
    for other, title in TITLES.items():
        if other != uid:
            made.link(parts.DashboardLink(title).url(f"/d/{other}?{_CHOSEN}").keep_time(True))
    for row in rows:
        _place(made, row)
    whole = made.build()
    ids = count(1)
    for panel in whole.panels or ():
        panel.id_val = next(ids)
        for inner in panel.panels if isinstance(panel, dashboard.RowPanel) else ():
            inner.id_val = next(ids)
    return whole


def _place(made: parts.Dashboard, row: Row) -> None:
    """Grafana keeps the panels of a folded row in it, those of an open one behind it."""
    head = parts.Row(row.title).collapsed(row.folded)
    if row.folded:
        for panel in row.panels:
            head.with_panel(panel)
    made.with_row(head)
    if not row.folded:
        for panel in row.panels:
            made.with_panel(panel)


def text(whole: dashboard.Dashboard) -> str:
    """As it stands in the file."""
    return json.dumps(whole, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
