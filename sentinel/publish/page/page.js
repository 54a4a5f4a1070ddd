// The status page: what the daemon says once a second, and for how long it has not said anything.
//
// One rule above all: what is old must never look like now. Without news for three seconds every state is "unknown".

import { Charts, METRICS, Past } from "./charts.js";
import { find, keep, make, mark, write } from "./dom.js";
import { clock, lasted, moment, quantity } from "./format.js";

const WORST = ["unhealthy", "unknown", "starting", "degraded", "maintenance", "healthy"];
const STALE_S = 3; // news come every second: two that are lost are not silence yet
const AGAIN_MS = 1000;
const WHY_EVERY_S = 5;
const CHANGES_SHOWN = 100;

const asked = () => new URLSearchParams(location.search);
const kiosk = asked().has("kiosk");

const page = {
  picture: null, // the last one
  heardAt: 0, // when it came, in seconds of this page's clock
  delay: 0, // how late the news came, in seconds
  offset: Infinity, // the least that ever lay between the daemon's clock and ours: more is delay on the way
  connected: false,
  stream: null,
  streamOf: null, // the engine whose readings come with it
  engine: null, // the one that is shown
  past: new Past(),
  changes: new Map(),
  why: { engine: null, askedAt: -Infinity, document: null },
  unfolded: false,
};
const charts = new Charts(find("charts"));

const here = () => performance.now() / 1000;
const age = () => here() - page.heardAt + page.delay;
const live = () => page.connected && page.picture !== null && age() < STALE_S;
const daemonNow = () => (page.picture ? page.picture.time + here() - page.heardAt : Date.now() / 1000);

// --- news ------------------------------------------------------------------------------------------------------------

function connect() {
  page.stream?.close();
  page.streamOf = page.engine;
  const query = new URLSearchParams([["live", page.engine ?? ""], ...METRICS.map((name) => ["metric", name])]);
  const stream = new EventSource(`api/v1/events?${query}`);
  page.stream = stream;
  stream.addEventListener("open", () => {
    if (!page.connected) page.changes.clear(); // it may be another daemon: what the one before saw it does not know
    page.connected = true;
    page.offset = Infinity;
    if (page.engine === null) return; // the first picture tells which engines there are
    fetchChanges();
    fetchPast();
  });
  stream.addEventListener("picture", (event) => hear(JSON.parse(event.data)));
  stream.addEventListener("past", (event) => {
    const document_ = JSON.parse(event.data);
    if (document_.engine === page.engine) page.past.add(document_);
  });
  stream.addEventListener("change", (event) => {
    remember({ id: event.lastEventId, ...JSON.parse(event.data) });
    page.why.askedAt = -Infinity;
  });
  stream.addEventListener("error", () => {
    // The browser would try again by itself, but not after every kind of error.
    if (page.stream !== stream) return;
    stream.close();
    page.connected = false;
    render();
    setTimeout(() => page.stream === stream && connect(), AGAIN_MS);
  });
}

function hear(picture) {
  page.offset = Math.min(page.offset, here() - picture.at);
  page.delay = here() - picture.at - page.offset;
  page.heardAt = here();
  page.picture = picture;
  render();
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(4000) });
  if (!answer.ok) throw new Error(`${path}: status ${answer.status}`);
  return answer.json();
}

function remember(change) {
  page.changes.set(change.id, change);
}

async function fetchChanges() {
  try {
    const { changes } = await ask(`api/v1/changes?${new URLSearchParams({ engine: page.engine })}`);
    changes.forEach(remember);
    render();
  } catch {} // the stream's own error tells that the daemon is gone
}

async function fetchPast() {
  const engine = page.engine;
  try {
    const query = new URLSearchParams(METRICS.map((name) => ["metric", name]));
    const document_ = await ask(`api/v1/history/${encodeURIComponent(engine)}?${query}`);
    if (engine !== page.engine) return;
    page.past = new Past();
    page.past.add(document_);
    render();
  } catch {}
}

async function fetchWhy() {
  const engine = page.engine;
  if (page.why.engine === engine && here() - page.why.askedAt < WHY_EVERY_S) return;
  if (page.why.engine !== engine) page.why.document = null;
  Object.assign(page.why, { engine, askedAt: here() });
  let document_ = null;
  try {
    document_ = await ask(`api/v1/explain/${encodeURIComponent(engine)}`);
  } catch {}
  if (page.why.engine !== engine) return;
  page.why.document = document_;
  render();
}

// --- what is shown ---------------------------------------------------------------------------------------------------

function choose(engines) {
  const wanted = asked().get("engine");
  if (wanted !== null) return engines.some(({ name }) => name === wanted) ? wanted : null;
  const worst = engines[0];
  if (!worst) return null;
  // When all is well again the page stays where it was: who looks wants to see that it holds.
  if (worst.state === "healthy" && engines.some(({ name }) => name === page.engine)) return page.engine;
  return worst.name;
}

function select(engine) {
  if (engine === page.engine) return;
  page.engine = engine;
  page.past = new Past();
  charts.clear();
  if (engine !== null && page.streamOf !== engine) connect();
}

// Worst first; of the same state, the one that has been in it for longest.
function sorted(engines) {
  const rank = ({ state }) => WORST.indexOf(state);
  return [...engines].sort((one, other) => rank(one) - rank(other) || (one.state === "healthy" ? 0 : one.since - other.since));
}

function render() {
  const { picture } = page;
  const isLive = live();
  mark(document.documentElement, "data-live", isLive ? "yes" : "no");
  const engines = picture ? sorted(picture.engines) : [];
  if (picture) select(choose(engines));
  head(engines, isLive);
  if (document.hidden) return; // the title and the icon are all that is seen
  fleet(engines, isLive);
  const shown = engines.find(({ name }) => name === page.engine);
  mark(find("engine"), "hidden", shown ? false : "");
  if (shown) {
    detail(shown, isLive);
    if (isLive) fetchWhy();
  }
  write(find("version"), picture ? `Sentinel ${picture.version}` : "Sentinel");
}

const inWords = (state) => (state === "maintenance" ? "in maintenance" : state);
const stateOf = (thing, isLive) => (isLive ? thing.state : "unknown");
const wordOf = (thing, isLive) => (isLive ? thing.state : `not live, was ${thing.state}`);

function head(engines, isLive) {
  const ill = engines.filter(({ state }) => state !== "healthy");
  const worst = engines[0];
  const state = isLive ? (worst?.state ?? "unknown") : "unknown";
  let verdict = "Sentinel is not heard";
  if (isLive && !worst) verdict = "no engines are watched";
  else if (isLive && engines.length === 1) verdict = `${worst.name} is ${inWords(worst.state)}`;
  else if (isLive && ill.length && ill.length <= 2 && ill.at(-1).state === worst.state) {
    verdict = `${ill.map(({ name }) => name).join(" and ")} ${ill.length > 1 ? "are" : "is"} ${inWords(worst.state)}`;
  } else if (isLive && !ill.length) verdict = `all ${engines.length} engines are healthy`;
  else if (isLive) {
    const counts = WORST.map((name) => [engines.filter((one) => one.state === name).length, name]).filter(([count, name]) => count && name !== "healthy");
    verdict = `${counts.map(([count, name]) => `${count} ${inWords(name)}`).join(", ")} of ${engines.length} engines`;
  }
  mark(find("head"), "data-state", state);
  if (find("verdict").textContent !== verdict) write(find("said"), verdict);
  write(find("verdict"), verdict);
  const sign = { unhealthy: "✖", unknown: "?", starting: "▷", degraded: "▲", maintenance: "▬", healthy: "✔" }[state];
  const title = `${sign} ${isLive ? verdict : "NOT LIVE"} – Sentinel`;
  if (document.title !== title) document.title = title;
  mark(find("icon"), "href", `page/${state}.svg`);
  const silent = page.picture === null ? "no news yet" : `the last news is ${lasted(age())} old`;
  write(find("live"), isLive ? "live" : "not live");
  const wanted = asked().get("engine");
  let lost = "";
  if (!isLive) lost = `NOT LIVE: ${silent}. What stands below is not known to be true any more. Trying again every second.`;
  else if (page.picture.late) lost = `The daemon's own schedule is late: ${page.picture.late}.`;
  else if (wanted !== null && page.engine === null) lost = `There is no engine ${wanted} here.`;
  mark(find("lost"), "hidden", lost && (page.picture || here() > STALE_S) ? false : "");
  write(find("lost"), lost);
}

function fleet(engines, isLive) {
  const wanted = asked().get("engine");
  const several = engines.length > 1 || (wanted !== null && page.engine === null && engines.length > 0);
  mark(find("fleet"), "hidden", several ? false : "");
  mark(document.body, "data-several", several ? "" : false);
  mark(document.body, "data-many", engines.length > 12 && !kiosk ? "" : false); // so that twenty fit a small screen
  if (!several) return;
  keep(find("engines"), engines, ({ name }) => name, tile, (node, engine) => fillTile(node, engine, isLive));
  const well = engines.filter(({ state }) => state === "healthy").length;
  const fold = find("unfold");
  mark(fold, "hidden", well > 2 && well < engines.length ? false : "");
  mark(fold, "aria-expanded", page.unfolded);
  write(fold, page.unfolded ? "Fold the healthy engines" : `${well} healthy engines`);
  mark(find("engines"), "data-folded", fold.hidden || page.unfolded ? false : "");
}

function tile(engine) {
  const link = make("a", { href: linkTo(engine.name) },
    make("span", { class: "shape" }),
    make("span", { class: "name" }),
    make("span", { class: "word" }),
    make("span", { class: "told" }));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    render();
    find("engine").focus({ preventScroll: false });
  });
  return make("li", {}, link);
}

function linkTo(engine) {
  const query = asked();
  query.set("engine", engine);
  return `?${query}`;
}

function fillTile(node, engine, isLive) {
  const link = node.firstChild;
  const [shape, name, word, told] = link.children;
  mark(node, "data-state", engine.state);
  mark(shape, "data-state", stateOf(engine, isLive));
  mark(link, "aria-current", engine.name === page.engine ? "true" : false);
  write(name, engine.name);
  write(word, `${wordOf(engine, isLive)} ${lasted(daemonNow() - engine.since)}`);
  write(told, engine.causes?.[0] ?? engine.why[0] ?? engine.probes.filter(({ value }) => value !== undefined).map((probe) => `${probe.name} ${quantity(probe.value, probe.unit)}`).join(" · "));
}

function detail(engine, isLive) {
  const title = find("name");
  if (!title.firstChild) title.append(make("span", { class: "shape" }), make("span"), make("small"));
  const [shape, name, since] = title.children;
  mark(shape, "data-state", stateOf(engine, isLive));
  write(name, `${engine.name} ${isLive ? `is ${inWords(engine.state)}` : `is not known, it was ${inWords(engine.state)}`}`);
  write(since, ` for ${lasted(daemonNow() - engine.since)}, since ${moment(engine.since)}`);
  why(engine);
  keep(find("rows"), engine.probes, ({ name: probe }) => probe, row, (node, probe) => fillRow(node, probe, isLive));
  charts.draw(page.past, daemonNow());
  strip(engine, ...charts.span);
  timeline(engine);
}

// The likeliest cause stands on top and what it explains below it: at night nobody reads further than he must.
function why(engine) {
  const told = page.why.engine === engine.name ? page.why.document : null;
  const parts = [];
  const line = (key, kind, text) => parts.push({ key, kind, text });
  if (engine.maintenance) {
    const { until, reason } = engine.maintenance;
    line("maintenance", "sentence", `In maintenance until ${moment(Date.parse(until) / 1000)}${reason && `: ${reason}`}`);
  }
  if (!told) engine.why.forEach((sentence, nth) => line(`why ${nth}`, "sentence", sentence));
  else if (told.troubles.length || told.causes.length) {
    line("sentence", "sentence", told.sentence);
    told.causes.forEach((cause, nth) => {
      const said = nth === 0 && told.sentence.includes(cause.sentence);
      parts.push({ key: `cause ${nth} ${cause.rule}`, kind: "cause", text: said ? "" : `${nth + 1}. ${cause.sentence}`, figures: cause.figures });
    });
    told.troubles.forEach((trouble) => line(`trouble ${trouble.probe}`, "trouble", `${trouble.probe}, since ${moment(Date.parse(trouble.since) / 1000)}: ${trouble.sentence}`));
  }
  if (!parts.length) line("well", "sentence", engine.state === "healthy" ? "Every probe passes." : "No probe says why.");
  told?.unreadable.forEach(({ source, why: reason, remedy }) => line(`unreadable ${source}`, "quiet", `Not read: ${source}: ${reason}; ${remedy}`));
  if (told?.past && !told.causes.length) {
    const [from, until] = [told.past.from, told.past.until].map((when) => moment(Date.parse(when) / 1000));
    line("past", "quiet", `The trouble before, ${from} to ${until}: ${told.past.sentence}`);
  }
  keep(find("why"), parts, ({ key }) => key,
    ({ kind }) => make("div", { class: kind }, make("p"), make("ul")),
    (node, { text, figures = [] }) => {
      write(node.firstChild, text);
      keep(node.lastChild, figures, ({ name }) => name, () => make("li"), (item, figure) => write(item, figureText(figure)));
    });
}

function figureText({ name, value, unit, before, source }) {
  const now = quantity(value, unit);
  const changed = before === null ? now : `${quantity(before, unit)} → ${now}`;
  return `${name}: ${changed}${source ? ` (${source})` : ""}`;
}

function row() {
  return make("tr", {},
    make("td", {}, make("span", { class: "shape" }), make("span", { class: "word" }), make("small")),
    make("th", { scope: "row" }, make("span"), make("small")),
    make("td", {}, make("span"), make("span", { class: "bar", "aria-hidden": "true" }, make("i"))));
}

function fillRow(node, probe, isLive) {
  const [state, name, answer] = node.children;
  const [shape, word, since] = state.children;
  mark(node, "data-state", stateOf(probe, isLive));
  mark(shape, "data-state", stateOf(probe, isLive));
  write(word, isLive ? probe.state : `was ${probe.state}`);
  write(since, ` ${lasted(daemonNow() - probe.since)}`);
  write(name.firstChild, probe.name);
  write(name.lastChild, probe.severity ? ` ${probe.severity}` : "");
  const [text, bar] = answer.children;
  const known = probe.value !== undefined;
  mark(bar, "hidden", known ? false : "");
  if (known) {
    const share = probe.limit > 0 ? probe.value / probe.limit : 1;
    bar.firstChild.style.width = `${Math.min(100, share * 75)}%`; // the limit is at three quarters: CSS draws it there
    mark(bar, "data-over", share > 1 ? "" : false);
  }
  const told = probe.sentence ?? (known ? `${quantity(probe.value, probe.unit)}, limit ${quantity(probe.limit, probe.unit)}` : "no answer yet");
  const old = probe.time === undefined ? 0 : daemonNow() - probe.time;
  write(text, old > 5 || (!isLive && old) ? `${told}, ${lasted(old)} ago` : told);
}

// --- the changes of state --------------------------------------------------------------------------------------------

// The oldest first; those that came by the stream may have overtaken those that were asked for.
const changesOf = (engine) =>
  [...page.changes.values()].filter((change) => change.engine === engine.name).sort((one, other) => numberOf(one) - numberOf(other));
const numberOf = ({ id }) => Number(id.split("-").at(-1));

// The states of an engine between two moments, as a band: lower is better, and the words are in its label.
function strip(engine, from, until) {
  const parts = [{ state: engine.state, from: engine.since, until }];
  for (const change of changesOf(engine).filter(({ probe }) => !probe).reverse()) {
    const when = Date.parse(change.time) / 1000;
    if (when < parts[0].from - 0.5) parts.unshift({ state: change.state, from: when, until: parts[0].from });
  }
  const shown = parts.filter((part) => part.until > from);
  keep(find("strip"), shown, ({ from: began }) => began.toFixed(1), () => make("span"), (node, part) => {
    const left = Math.max(0, (part.from - from) / (until - from));
    mark(node, "data-state", part.state);
    mark(node, "title", `${part.state} from ${moment(part.from)}`);
    node.style.left = `${left * 100}%`;
    node.style.right = `${Math.max(0, 100 - ((part.until - from) / (until - from)) * 100)}%`;
  });
  mark(find("strip"), "aria-label", `State: ${shown.map((part) => `${part.state} from ${moment(part.from)}`).join(", ")}`);
}

function timeline(engine) {
  const told = changesOf(engine).reverse();
  keep(find("timeline"), told.slice(0, CHANGES_SHOWN), ({ id }) => id,
    (change) => make("li", change.probe ? {} : { class: "whole" },
      make("time", { datetime: change.time }, moment(Date.parse(change.time) / 1000)),
      make("span", { class: "shape", "data-state": change.state }),
      make("span", {}, `${change.probe ?? engine.name} ${change.before} → ${change.state}`),
      make("span", { class: "because" }, change.why)),
    () => {});
  mark(find("changes"), "hidden", told.length ? false : "");
}

addEventListener("popstate", render);
document.addEventListener("visibilitychange", render);
find("unfold").addEventListener("click", () => {
  page.unfolded = !page.unfolded;
  render();
});
mark(document.documentElement, "data-kiosk", kiosk ? "" : false);
setInterval(() => {
  if (!live() || here() - page.heardAt > 1.5) render();
}, 500);
connect();
render();
