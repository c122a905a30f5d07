// Stock over time: four stacked step areas in SVG, their text alternative, and a table of the same.

import { element } from "./api.js";
import { clock } from "./words.js";

const SHORTEST = 1000; // bounds of the time that the plot shows, in milliseconds
const LONGEST = 120_000;
const KINDS = ["available", "held", "awaiting", "paid"];
const NAMES = { available: "available", held: "held", awaiting: "awaiting payment", paid: "paid" };
const MARGIN = { right: 2, top: 8, bottom: 26 };
const SPACE = 12; // the least distance between labels, in pixels
const SVG = "http://www.w3.org/2000/svg";
const REFRESH = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;
const STEPS = [1, 2, 3, 5, 10, 15, 20, 30, 60].map((seconds) => seconds * 1000); // between labels of the time
const TABLE_ROWS = 20;

export class Plot {
  /** @param {() => number} now the server's time in milliseconds */
  constructor(now) {
    this.now = now;
    this.samples = []; // {t, available, held, awaiting, paid} by time; one with `gap` means that the stock is unknown from t on
    this.box = document.getElementById("plot");
    this.caption = document.getElementById("plot-caption");
    this.table = document.getElementById("plot-table");
    this.svg = svg("svg", { role: "img", "aria-labelledby": "plot-caption" });
    this.grid = svg("g", { "aria-hidden": "true" });
    // Each area reaches from the ground to its upper edge; the ones in front cover the lower part of those behind.
    this.areas = KINDS.map((kind) => svg("path", { class: `area ${kind}` }));
    this.cursor = svg("line", { class: "cursor", visibility: "hidden" });
    this.svg.append(this.grid, ...this.areas, this.cursor);
    this.readout = element("output", { hidden: true });
    this.readout.setAttribute("aria-hidden", "true");
    this.box.append(this.svg, this.readout);
    this.pointer = null;
    this.widths = new Map();
    this.left = 0; // where the areas begin: right of the labels of the units
    this.box.addEventListener("pointermove", (event) => this.point(event.clientX - this.box.getBoundingClientRect().left));
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.table.addEventListener("toggle", () => this.tabulate());
    new ResizeObserver(() => this.draw()).observe(this.box);
    setInterval(() => document.hidden || this.draw(), REFRESH);
    setInterval(() => this.describe(), 2000);
  }

  clear() {
    this.samples = [];
    this.draw();
    this.describe();
  }

  /** Add samples, except those that are known already. */
  add(samples) {
    const first = this.samples.length === 0;
    for (const sample of samples) {
      const before = this.samples.findLastIndex((known) => known.t <= sample.t);
      if (this.samples[before]?.t === sample.t && !this.samples[before].gap) continue;
      this.samples.splice(before + 1, 0, sample);
    }
    const start = this.now() - LONGEST;
    while (this.samples.length > 1 && this.samples[1].t < start) this.samples.shift();
    this.draw();
    this.tabulate();
    if (first) this.describe();
  }

  /** The stock is unknown until the next sample. */
  interrupt() {
    const last = this.samples.at(-1);
    if (last && !last.gap) this.samples.push({ gap: true, t: Math.max(this.now(), last.t) });
  }

  draw() {
    const width = this.box.clientWidth;
    const height = this.box.clientHeight;
    if (!width) return;
    const known = this.samples.filter((sample) => !sample.gap);
    const most = Math.max(1, ...known.map(total));
    const end = this.now();
    const span = this.span(end);
    const x = (t) => this.left + (width - this.left - MARGIN.right) * Math.min(1, Math.max(0, 1 - (end - t) / span));
    const y = (units) => MARGIN.top + (height - MARGIN.top - MARGIN.bottom) * (1 - units / most);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);

    this.drawGrid(width, height, most, end, x, y);
    const runs = this.runs(end);
    this.areas.forEach((area, index) => area.setAttribute("d", runs.map((run) => outline(run, index, x, y)).join("")));
    this.drawCursor(width, height, end, x);
  }

  /** All that is known, so that the areas fill the plot from the first sample on. */
  span(end) {
    return Math.min(LONGEST, Math.max(SHORTEST, end - (this.samples[0]?.t ?? end)));
  }

  /** The stretches of time in which stock is known, each as [from, until, sample] after [from, until, sample]. */
  runs(end) {
    const runs = [];
    let run = null;
    this.samples.forEach((sample, index) => {
      // A first sample of less than SHORTEST ago fills the plot, too.
      const from = index === 0 ? Math.min(sample.t, end - SHORTEST) : sample.t;
      const until = this.samples[index + 1]?.t ?? Math.max(end, sample.t);
      if (sample.gap) run = null;
      else if (run) run.push([from, until, sample]);
      else runs.push((run = [[from, until, sample]]));
    });
    return runs;
  }

  drawGrid(width, height, most, end, x, y) {
    const span = this.span(end);
    const key = `${width} ${height} ${most} ${span}`;
    if (this.drawn === key) return;
    this.drawn = key;
    const scale = [];
    for (let units = 0; units <= most; units += step(most)) scale.push(units);
    this.left = Math.max(...scale.map((units) => this.widthOf(String(units)))) + 8;
    const marks = [];
    for (const units of scale) {
      marks.push(svg("line", { class: "grid", x1: this.left, x2: width, y1: y(units), y2: y(units) }));
      marks.push(label(units, this.left - 8, y(units) + 4, "end"));
    }
    const baseline = height - 6;
    marks.push(label("now", width - MARGIN.right, baseline, "end"));
    let free = width - MARGIN.right - this.widthOf("now") - SPACE; // left of the labels so far
    const room = (width - this.left) / (this.widthOf("120 s ago") + SPACE); // for so many labels
    const apart = STEPS.find((ms) => span / ms <= Math.min(room, 6));
    for (let ago = apart; ago < span; ago += apart) {
      const at = x(end - ago);
      marks.push(svg("line", { class: "grid", x1: at, x2: at, y1: MARGIN.top, y2: y(0) + 5 }));
      const text = seconds(ago);
      const wide = this.widthOf(text);
      const from = Math.max(this.left, at - wide / 2);
      if (from + wide > free) continue;
      marks.push(label(text, from, baseline, "start"));
      free = from - SPACE;
    }
    this.grid.replaceChildren(...marks);
  }

  /** The width of a label in pixels. */
  widthOf(text) {
    let width = this.widths.get(text);
    if (width === undefined) {
      const probe = label(text, 0, 0, "start");
      this.svg.append(probe);
      width = probe.getComputedTextLength();
      probe.remove();
      this.widths.set(text, width);
    }
    return width;
  }

  point(at) {
    this.pointer = at;
    this.draw();
  }

  drawCursor(width, height, end, x) {
    const t = this.pointer === null ? NaN : end - this.span(end) * (1 - (this.pointer - this.left) / (width - this.left - MARGIN.right));
    const sample = t <= end ? this.samples.findLast((known) => known.t <= t) : undefined;
    const shown = Boolean(sample && !sample.gap);
    this.cursor.setAttribute("visibility", shown ? "visible" : "hidden");
    this.readout.hidden = !shown;
    if (!shown) return;
    for (const [name, value] of Object.entries({ x1: x(t), x2: x(t), y1: MARGIN.top, y2: height - MARGIN.bottom })) this.cursor.setAttribute(name, value);
    this.readout.textContent = [clock(t), ...KINDS.map((kind) => `${sample[kind]} ${NAMES[kind]}`)].join("\n");
    const left = x(t) + 10;
    const room = this.readout.offsetWidth;
    this.readout.style.left = `${left + room > width ? x(t) - room - 10 : left}px`;
  }

  /** Update the text alternative; rarely, so that a screen reader can finish it. */
  describe() {
    const known = this.samples.filter((sample) => !sample.gap);
    if (known.length === 0) return;
    const [first, last] = [known[0], known.at(-1)];
    const parts = KINDS.map((kind) => `${NAMES[kind]} ${first[kind] === last[kind] ? last[kind] : `from ${first[kind]} to ${last[kind]}`}`);
    const text = `Stock over the last ${Math.round(this.span(this.now()) / 1000)} seconds: ${parts.join(", ")}.`;
    if (this.caption.textContent !== text) this.caption.textContent = text;
  }

  tabulate() {
    if (!this.table.open) return;
    const newest = this.samples.filter((sample) => !sample.gap).slice(-TABLE_ROWS).reverse();
    const rows = newest.map((sample) => {
      const head = element("th", { scope: "row" }, [clock(sample.t)]);
      return element("tr", {}, [head, ...KINDS.map((kind) => element("td", {}, [String(sample[kind])]))]);
    });
    this.table.querySelector("tbody").replaceChildren(...rows);
  }
}

/** A path along the upper edge of the area of KINDS[index], and back along the ground. */
function outline(run, index, x, y) {
  const height = (sample) => KINDS.slice(index).reduce((sum, kind) => sum + sample[kind], 0);
  const edge = run.map(([from, until, sample]) => `V${y(height(sample)).toFixed(1)}H${x(until).toFixed(1)}`);
  return `M${x(run[0][0]).toFixed(1)},${y(0).toFixed(1)}${edge.join("")}V${y(0).toFixed(1)}Z`;
}

function total(sample) {
  return sample.available + sample.held + sample.awaiting + sample.paid;
}

/** A round distance between grid lines, of which there are 3 to 6. */
function step(most) {
  const rough = most / 5;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
}

function seconds(ago) {
  return ago % 60_000 ? `${ago / 1000} s ago` : `${ago / 60_000} min ago`;
}

function label(text, x, y, anchor) {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

function svg(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
