"""Panels of the kinds that the dashboards are made of, over grafana-foundation-sdk's builders."""

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    MatcherConfig,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableHide,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
# The states of a run (robustbert_run_state) and their colours.
STATES = {
    "queued": "#8e8e8e",
    "preparing": "#fade2a",
    "starting": "#fade2a",
    "running": "#56a64b",
    "restarting": "#ff780a",
    "stopping": "#ff780a",
    "finished": "#3274d9",
    "failed": "#e02f44",
    "stopped": "#8e8e8e",
    "interrupted": "#e02f44",
}
ACTIVITIES = {
    "training": "#56a64b",
    "lost": "#e02f44",
    "checkpointing": "#8f3bb8",
    "evaluating": "#3274d9",
    "starting": "#fade2a",
    "waiting": "#8e8e8e",
}
PARTS = {
    "forward_backward": "#3274d9",
    "collectives": "#8f3bb8",
    "optimizer": "#56a64b",
    "data_wait": "#e02f44",
    "other": "#8e8e8e",
}


def query(expr: str, legend: str = "", ref: str = "A", is_now: bool = False) -> prometheus.Dataquery:
    """A PromQL expression; is_now: its value at the end of the time range, as rows of a table."""
    built = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref)
    return built.instant().format(PromQueryFormat.TABLE) if is_now else built.range()


def curves(title: str, *queries, unit: str = "short", width: int = 8, height: int = 8, about: str = "", is_log: bool = False,
           stacked: dict[str, str] | None = None, is_from_zero: bool = False) -> timeseries.Panel:  # fmt: skip
    """Lines over time. stacked: the colour of each series, which are put on one another."""
    panel = _placed(timeseries.Panel(), title, queries, width, height, about).unit(unit).line_width(1).show_points(common.VisibilityMode.AUTO)
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    panel.legend(legend.show_legend(True).calcs([]))
    panel.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    if is_log:
        panel.scale_distribution(common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    if is_from_zero:
        panel.min(0)
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(70).line_width(0).min(0)
        panel.overrides([_coloured(name, colour) for name, colour in stacked.items()])
    return panel


def value(title: str, expr: str, unit: str = "short", steps: list[tuple[float | None, str]] | None = None, about: str = "",
          width: int = 3, decimals: int | None = None) -> stat.Panel:  # fmt: skip
    """The newest value, large. steps: (from this value on, colour), the first of them from None."""
    panel = _placed(stat.Panel(), title, (query(expr),), width, 4, about).unit(unit)
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"])).color_mode(common.BigValueColorMode.VALUE)
    panel.graph_mode(common.BigValueGraphMode.NONE).thresholds(_thresholds(steps or [(None, BLUE)]))
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def states(title: str, *queries, width: int = 24, height: int = 6, about: str = "", names: dict[float, tuple[str, str]] | None = None):
    """What was when, as coloured bars. names: value -> (word, colour)."""
    panel = _placed(statetimeline.Panel(), title, queries, width, height, about).show_value(common.VisibilityMode.NEVER)
    panel.merge_values(True).fill_opacity(80).line_width(0)
    if names:
        words = {f"{number:g}": ValueMappingResult(text=word, color=colour) for number, (word, colour) in names.items()}
        panel.mappings([ValueMap(options=words)])
    return panel


def rows_heatmap(title: str, *queries, unit: str = "s", width: int = 12, height: int = 10, about: str = "") -> heatmap.Panel:
    """One row a series, its value as colour."""
    panel = _placed(heatmap.Panel(), title, queries, width, height, about).calculate(False)
    panel.unit(unit).cell_values(heatmap.CellValues().unit(unit)).show_legend()
    return panel.color(heatmap.HeatmapColorOptions().scheme("Turbo").steps(64))


def rows_table(title: str, *queries, renamed: dict[str, str], hidden: tuple[str, ...] = (), units: dict[str, str] | None = None,
               width: int = 24, height: int = 8, about: str = "", link: tuple[str, str] | None = None) -> table.Panel:  # fmt: skip
    """Instant queries side by side, joined by their labels. renamed: column -> heading, in the order of the columns."""
    panel = _placed(table.Panel(), title, queries, width, height, about).show_header(True)
    always_hidden = ("Time", "__name__", "job", "instance", "role", *hidden)
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    organize = {
        "excludeByName": dict.fromkeys(always_hidden, True),
        "renameByName": renamed,
        "indexByName": {column: place for place, column in enumerate(renamed)},
    }
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=organize))
    for heading, unit in (units or {}).items():
        panel.override_by_name(heading, [DynamicConfigValue(id_val="unit", value=unit)])
    if link:
        heading, url = link
        panel.override_by_name(heading, [DynamicConfigValue(id_val="links", value=[{"title": "show this run", "url": url}])])
    panel.no_value("none")
    return panel


def row(title: str) -> dashboard_builders.Row:
    return dashboard_builders.Row(title)


def dashboard(title: str, uid: str, about: str, variables: list, parts: list, hours: int):
    """A whole dashboard, for the SDK's encoder: parts are rows and panels in their order, each panel numbered."""
    built = dashboard_builders.Dashboard(title).uid(uid).description(about).tags(["robustbert"]).editable().refresh("30s")
    built.time(f"now-{hours}h", "now").timezone("browser").variables([_source_variable(), *variables])
    links = dashboard_builders.DashboardLink("robustbert").type(DashboardLinkType.DASHBOARDS).tags(["robustbert"])
    built.links([links.as_dropdown(False).include_vars(False).keep_time(True)])
    for part in parts:
        built.with_row(part) if isinstance(part, dashboard_builders.Row) else built.with_panel(part)
    whole = built.build()
    for number, panel in enumerate(whole.panels, 1):
        panel.id_val = number
    for variable in whole.templating.list_val:
        variable.auto = variable.auto_min = variable.auto_count = None  # of variables that are intervals only
    return whole


def query_variable(name: str, label: str, expr: str, is_multi: bool = False) -> dashboard_builders.QueryVariable:
    """A variable whose values Prometheus knows; all of them at first where several may be chosen."""
    variable = dashboard_builders.QueryVariable(name).label(label).datasource(SOURCE).query({"query": expr, "refId": name})
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.multi(True).include_all(True).all_value(".*") if is_multi else variable.multi(False).include_all(False)


def _source_variable() -> dashboard_builders.DatasourceVariable:
    return dashboard_builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus").hide(VariableHide.DONT_HIDE)


def _placed(panel, title: str, queries, width: int, height: int, about: str):
    panel.title(title).datasource(SOURCE).span(width).height(height)
    if about:
        panel.description(about)
    for number, one in enumerate(queries):
        one.ref_id(chr(ord("A") + number))
        panel.with_target(one)
    return panel


def _thresholds(steps: list[tuple[float | None, str]]) -> dashboard_builders.ThresholdsConfig:
    made = [Threshold(value=start, color=colour) for start, colour in steps]
    return dashboard_builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def _coloured(series: str, colour: str):
    fixed = {"mode": "fixed", "fixedColor": colour}
    override = dashboard_builders.DashboardFieldConfigSourceOverrides().matcher(MatcherConfig(id_val="byName", options=series))
    return override.properties([DynamicConfigValue(id_val="color", value=fixed)])
