"""The panels that the boards are made of, on the Grafana Foundation SDK.

One function a kind of panel, so that each has a datasource by variable, a unit, limits, and a description that says
what to do. It must never know a metric: what is shown is the boards' own.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import common as shapes
from grafana_foundation_sdk.builders import dashboard as parts
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard, heatmap
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.src.queries import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder

    Panel = Builder[dashboard.Panel]

Kind = TypeVar("Kind")
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")


class Query(NamedTuple):
    """What is asked, and what its series are called: `{{label}}` is the value of a label."""

    expr: str
    legend: str = ""


class Says(NamedTuple):
    """A panel's description: what it shows, what to do when it looks bad, and the runbook that says more.

    `rules` are those of `sentinel explain` that look at the same figures.
    """

    shows: str
    bad: str
    runbook: str
    engine: str = "ENGINE"
    rules: tuple[str, ...] = ()

    def text(self) -> str:
        here = f", here {' or '.join(f'`{rule}`' for rule in self.rules)}" if self.rules else ""
        return (
            f"{self.shows}\n\n**When it looks bad:** {self.bad} "
            f"`sentinel explain {self.engine}` names the cause{here}; "
            f"the runbook is `alerts/runbooks/{self.runbook}.md`."
        )


# --- limits: where good ends ---------------------------------------------------------------------------------------

Steps = tuple[tuple[float | None, str], ...]  # from the value on, the first from minus infinity

RECENT: Steps = ((None, "blue"), (300, "green"))  # neither is bad: blue is what changed in the last five minutes
PUBLISHED: Steps = ((None, "green"),)  # the limit is a series of the panel itself, named "… limit" or "… budget"


def rising(warn: float, bad: float) -> Steps:
    """The more the worse."""
    return ((None, "green"), (warn, "yellow"), (bad, "red"))


def falling(bad: float, warn: float) -> Steps:
    """The less the worse: bad below the first, good from the second on."""
    return ((None, "red"), (bad, "yellow"), (warn, "green"))


def over(limit: float) -> Steps:
    """Bad from here on."""
    return ((None, "green"), (limit, "red"))


def under(limit: float) -> Steps:
    """Bad below."""
    return ((None, "red"), (limit, "green"))


def _thresholds(steps: Steps) -> parts.ThresholdsConfig:
    made = [dashboard.Threshold(value, color) for value, color in steps]
    return parts.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def words(meaning: Mapping[float, tuple[str, str]]) -> list[dashboard.ValueMapping]:
    """A word and a colour in the place of a number."""
    options = {
        f"{value:g}": dashboard.ValueMappingResult(text, color, None, index)
        for index, (value, (text, color)) in enumerate(meaning.items())
    }
    return [dashboard.ValueMap(options)]


ANSWERS = words({0: ("failing", "red"), 1: ("passing", "green")})
STATE_WORDS = words({place: (name, color) for place, (name, color) in enumerate(STATES.items())})


# --- panels --------------------------------------------------------------------------------------------------------


def lines(
    title: str, unit: str, limits: Steps, says: Says, *queries: Query, width: int = 8, bars: bool = False, **more: Any
) -> timeseries.Panel:
    """Values over time; dashed where good ends."""
    panel = timeseries.Panel().height(8).line_width(1).fill_opacity(60 if bars else 8)
    panel.draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
    panel.show_points(common.VisibilityMode.NEVER).min(0)
    panel.color_scheme(parts.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.thresholds_style(shapes.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    panel.tooltip(shapes.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    legend = shapes.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(common.LegendDisplayMode.LIST).calcs(["lastNotNull", "max"]))
    if limits == PUBLISHED:
        dashed = {"color": {"mode": "fixed", "fixedColor": "red"}, "custom.fillOpacity": 0}
        dashed["custom.lineStyle"] = {"fill": "dash", "dash": [8, 8]}
        panel.override_by_regexp("/(limit|budget)$/", _properties(dashed))
    return _finished(panel, title, unit, limits, says, queries, width, **more)


def number(
    title: str, unit: str, limits: Steps, says: Says, query: Query, *, width: int = 4, **more: Any
) -> stat.Panel:
    """One figure of now, on the colour of where it lies."""
    panel = stat.Panel().height(4).color_mode(common.BigValueColorMode.BACKGROUND)
    panel.graph_mode(common.BigValueGraphMode.NONE)
    panel.reduce_options(shapes.ReduceDataOptions().calcs(["lastNotNull"]))
    return _finished(panel, title, unit, limits, says, (query,), width, now=True, **more)


def timeline(
    title: str, says: Says, *queries: Query, meaning: Any = STATE_WORDS, height: int = 5, **more: Any
) -> Panel:
    """States over time, by their words and colours."""
    panel = statetimeline.Panel().height(height).mappings(meaning).show_value(common.VisibilityMode.AUTO)
    panel.merge_values(True).row_height(0.8).line_width(0).fill_opacity(80)
    panel.legend(shapes.VizLegendOptions().show_legend(False))
    return _finished(panel, title, "short", PUBLISHED, says, queries, 24, **more)


def buckets(title: str, unit: str, says: Says, query: Query, *, width: int = 12) -> Panel:
    """A histogram over time: the darker, the more."""
    panel = heatmaps.Panel().height(8).calculate(False).cell_gap(1)
    panel.y_axis(heatmaps.YAxisConfig().unit(unit)).cell_values(heatmaps.CellValues().unit("cps"))
    scheme = heatmaps.HeatmapColorOptions().mode(heatmap.HeatmapColorMode.SCHEME).scheme("Oranges")
    panel.color(scheme.steps(64).reverse(False)).filter_values(heatmaps.FilterValueRange().le(1e-9)).show_y_histogram()
    return _finished(panel, title, unit, PUBLISHED, says, (query,), width, shape=PromQueryFormat.HEATMAP)


class Column(NamedTuple):
    """A column of a table: a query's value, or a label, its own query's where it has one. `look` is more of it."""

    title: str
    expr: str = ""
    unit: str = ""
    limits: Steps = ()
    label: str = ""
    look: Mapping[str, object] = {}

    def properties(self) -> list[dashboard.DynamicConfigValue]:
        found: dict[str, object] = {}
        if self.unit:
            found["unit"] = self.unit
        if self.limits:
            found["thresholds"] = _thresholds(self.limits).build()
            found["custom.cellOptions"] = {"type": "color-text"}
        return _properties({**found, **self.look})


def rows(title: str, says: Says, columns: Sequence[Column], *, width: int, sort: str = "", **more: Any) -> Panel:
    """A table with one row for each set of labels."""
    panel = table.Panel().height(9).filterable(True)
    if sort:
        panel.sort_by([shapes.TableSortByFieldState().display_name(sort).desc(True)])
    asked = [column for column in columns if column.expr]
    # As Grafana names the values of several queries, and of one.
    values = [f"Value #{letter}" for letter in string.ascii_uppercase] if len(asked) > 1 else ["Value"]
    value_of = {column.title: value for column, value in zip(asked, values, strict=False)}
    sources = {column.label or value_of[column.title]: column.title for column in columns}
    hidden = ["Time", *(value_of[column.title] for column in asked if column.label)]
    panel.with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    arranged = {
        "excludeByName": dict.fromkeys(hidden, True),
        "renameByName": sources,
        "indexByName": {source: place for place, source in enumerate(sources)},
    }
    panel.with_transformation(dashboard.DataTransformerConfig("organize", options=arranged))
    for column in columns:
        if properties := column.properties():
            panel.override_by_name(column.title, properties)
    queries = [Query(column.expr) for column in asked]
    return _finished(
        panel, title, "short", PUBLISHED, says, queries, width, now=True, shape=PromQueryFormat.TABLE, **more
    )


def _properties(of: Mapping[str, object]) -> list[dashboard.DynamicConfigValue]:
    return [dashboard.DynamicConfigValue(name, value) for name, value in of.items()]


def _finished(
    panel: Kind,
    title: str,
    unit: str,
    limits: Steps,
    says: Says,
    queries: Sequence[Query],
    width: int,
    *,
    now: bool = False,
    shape: PromQueryFormat = PromQueryFormat.TIME_SERIES,
    meaning: Any = None,
    decimals: int | None = None,
    most: float | None = None,
    none: str = "not known",
) -> Kind:
    """What every kind of panel has. `now` asks for the last value alone; `none` is said where there is none."""
    any_panel: Any = panel  # the SDK's builders have these methods all, and no type in common
    any_panel.title(title).span(width).unit(unit).thresholds(_thresholds(limits)).datasource(SOURCE)
    any_panel.description(says.text()).no_value(none)
    for letter, query in zip(string.ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter).format(shape).datasource(SOURCE)
        target = target.instant() if now else target.range()
        any_panel.with_target(target.legend_format(query.legend) if query.legend else target)
    if meaning is not None:
        any_panel.mappings(meaning)
    if decimals is not None:
        any_panel.decimals(decimals)
    if most is not None:
        any_panel.max(most)
    return panel
