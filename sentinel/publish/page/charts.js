// The last ten minutes as lines against their limits. uPlot draws; this says what, and says the same in words.

import { keep, make, mark, write } from "./dom.js";
import { clock, duration, quantity, size } from "./format.js";

const SPAN_S = 600;
const SHORTEST_S = 60; // of a daemon that began a moment ago
const STALE_S = 15; // a probe that is asked every few seconds is not silent between two answers
const LATENCY = "sentinel_engine_latency_seconds";
const BUDGET = "sentinel_engine_latency_budget_seconds";
const USED = "sentinel_engine_memory_used_bytes";
const LIMIT = "sentinel_engine_memory_limit_bytes";
const MOST = "sentinel_engine_memory_max_ratio";

export const METRICS = [LATENCY, BUDGET, USED, LIMIT, MOST];

// What was read of one engine: by probe, times and a column for each series beside them.
export class Past {
  probes = new Map();

  add(document_) {
    for (const [name, { times, series }] of Object.entries(document_.probes)) {
      const kept = this.probes.get(name) ?? { times: [], series: {} };
      this.probes.set(name, kept);
      const last = kept.times.at(-1) ?? 0;
      times.forEach((time, row) => {
        if (time <= last) return;
        // What was not asked for a while is a gap and not a line.
        if (kept.times.length > 1 && time - kept.times.at(-1) > 3 * step(kept.times)) push(kept, kept.times.at(-1) + 0.001, {}, 0);
        push(kept, time, series, row);
      });
      const old = kept.times.findIndex((time) => time >= kept.times.at(-1) - SPAN_S - 5);
      for (const column of [kept.times, ...Object.values(kept.series)]) column.splice(0, old);
    }
  }
}

const step = (times) => Math.max(1, Math.min(times.at(-1) - times.at(-2), times[1] - times[0]));

function push(kept, time, series, row) {
  for (const name of Object.keys(series)) kept.series[name] ??= kept.times.map(() => null);
  for (const [name, column] of Object.entries(kept.series)) column.push(series[name]?.[row] ?? null);
  kept.times.push(time);
}

function quantileOf(name) {
  const found = /quantile="([^"]*)"/.exec(name);
  return found ? `p${Number((Number(found[1]) * 100).toPrecision(10))}` : "";
}

// The value of now: none, if the newest answer has none or there was no answer for a while.
const last = ({ times, values }, now) => (now - times.at(-1) < STALE_S ? (values.at(-1) ?? null) : null);
const HEIGHT = 170;
const most = (column) => column.reduce((top, value) => (value !== null && value > top ? value : top), 0);

// The charts of an engine: a probe with latencies, or with memory, has one. What to read first stands first.
function wanted(past) {
  const found = [];
  for (const [probe, { times, series }] of past.probes) {
    const names = Object.keys(series);
    const line = (label, values, limit = false) => ({ label, values, limit, times });
    const latencies = names.filter((name) => name.startsWith(`${LATENCY}{`));
    if (latencies.length) {
      const lines = latencies.map((name) => line(quantileOf(name), series[name].map((v) => (v > 0 ? v : null))));
      const budgets = Map.groupBy(names.filter((name) => name.startsWith(`${BUDGET}{`)), (name) => series[name].at(-1));
      for (const same of budgets.values()) {
        lines.push(line(budgets.size > 1 ? `budget of ${same.map(quantileOf).join(", ")}` : "budget", series[same[0]], true));
      }
      found.unshift({ probe, title: "against the budget", times, lines, unit: "seconds", log: true });
    }
    if (series[USED]) {
      const lines = [line("used", series[USED]), line("limit", series[LIMIT], true)];
      if (series[MOST]) lines.push(line("alert at", series[MOST].map((ratio, at) => ratio && ratio * series[LIMIT][at]), true));
      found.push({ probe, title: "against the limit", times, lines, unit: "bytes", log: false });
    }
  }
  return found;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The p99, or the only line, is what is looked at; the others tell themselves apart by their dashes too.
function look(lines) {
  const values = lines.filter((line) => !line.limit);
  const main = values.find((line) => line.label === "p99") ?? values[0];
  const others = values.filter((line) => line !== main);
  return lines.map((line) => {
    if (line.limit) return { stroke: colour("--limit"), width: 2, dash: line === lines.find(({ limit }) => limit) ? [8, 5] : [2, 4] };
    if (line === main) return { stroke: colour("--line-main"), width: 2.5, dash: [] };
    const odd = others.indexOf(line) % 2;
    return { stroke: colour(`--line-${odd + 1}`), width: 1.5, dash: odd ? [2, 3] : [] };
  });
}

function options(chart, width, height, range) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const y = chart.log
    ? { distr: 3, log: 10, range: (_, low, high) => (low === null ? [1e-4, 1e-2] : uPlot.rangeLog(low * 0.8, high * 1.2, 10, false)) }
    : { range: (_, low, high) => [0, (high ?? 1) * 1.08] };
  const write_ = chart.log ? duration : size;
  const values = { ...axis, size: 64, values: (_, splits) => splits.map((split) => (split === null ? "" : write_(split))) };
  if (!chart.log) values.incrs = Array.from({ length: 50 }, (_, power) => 2 ** power);
  return {
    width,
    height,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true, range }, y },
    padding: [8, 16, 0, 0],
    axes: [{ ...axis, size: 28, space: 90, values: (_, splits) => splits.map(clock) }, values],
    series: [{}, ...look(chart.lines).map((line) => ({ ...line, points: { show: false } }))],
  };
}

export class Charts {
  constructor(parent) {
    this.parent = parent;
    this.drawn = new Map();
    this.sized = new ResizeObserver(() => this.resize());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.clear());
  }

  clear() {
    for (const one of this.drawn.values()) one.plot.destroy();
    this.drawn.clear();
    this.sized.disconnect();
    this.parent.replaceChildren();
  }

  resize() {
    for (const { plot, canvas } of this.drawn.values()) {
      if (canvas.clientWidth && canvas.clientWidth !== plot.width) plot.setSize({ width: canvas.clientWidth, height: plot.height });
    }
  }

  // From when to when: the last ten minutes, or less of a daemon that began just now.
  range(past, now) {
    const firsts = [...past.probes.values()].map(({ times }) => times[0] ?? now);
    return [Math.max(now - SPAN_S, Math.min(now - SHORTEST_S, ...firsts)), now];
  }

  draw(past, now) {
    this.now = now;
    this.span = this.range(past, now);
    const charts = wanted(past);
    const key = (chart) => `${chart.probe} ${chart.unit} ${chart.lines.map((line) => line.label)}`;
    const keys = new Set(charts.map(key));
    for (const [old, one] of this.drawn) {
      if (!keys.has(old)) {
        one.plot.destroy();
        this.drawn.delete(old);
      }
    }
    keep(this.parent, charts, key, (chart) => this.figure(chart), (figure, chart) => {
      figure.chart = chart;
    });
    for (const figure of this.parent.children) {
      const { chart } = figure;
      const canvas = figure.querySelector(".plot");
      const data = [chart.times, ...chart.lines.map((line) => line.values)];
      const one = this.drawn.get(key(chart));
      if (one) one.plot.setData(data);
      else {
        const plot = new uPlot(options(chart, canvas.clientWidth || 600, HEIGHT, () => this.span), data, canvas);
        plot.hooks.setCursor = [() => this.legend(figure, plot)];
        this.drawn.set(key(chart), { plot, canvas });
        this.sized.observe(canvas);
      }
      this.legend(figure, this.drawn.get(key(chart)).plot);
    }
  }

  figure(chart) {
    const caption = make("figcaption", {}, make("b", {}, chart.probe), make("span", {}, chart.title), make("span", { class: "keys" }));
    return make("figure", {}, caption, make("div", { class: "plot", role: "img" }));
  }

  // The values under the pointer, or of now; and in words what a chart shows.
  legend(figure, plot) {
    const { chart } = figure;
    const at = plot.cursor.idx ?? null;
    const style = look(chart.lines);
    const text = (amount) => (amount === null || amount === undefined ? "no value" : quantity(amount, chart.unit));
    const items = chart.lines.map((line, nth) => ({ ...line, style: style[nth] }));
    keep(figure.querySelector(".keys"), items, (line) => line.label,
      () => make("span", { class: "key" }, make("i"), make("span")),
      (node, line) => {
        const { dash, width, stroke } = line.style;
        node.firstChild.style.borderTop = `${Math.round(width)}px ${["solid", "dotted", "dashed"][dash.length && (dash[0] > 2 ? 2 : 1)]} ${stroke}`;
        write(node.lastChild, `${line.label} ${text(at === null ? last(line, this.now) : line.values[at])}`);
      });
    const told = chart.lines.map((line) => `${line.label} now ${text(last(line, this.now))}${line.limit ? "" : `, at most ${text(most(line.values) || null)}`}`);
    mark(figure.querySelector(".plot"), "aria-label", `${chart.probe} over the last ten minutes: ${told.join("; ")}`);
  }
}
