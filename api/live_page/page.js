// The page: the choice of the product, its stock from the server's stream, and the parts that show it.

import { call, element } from "./api.js";
import { Checkout } from "./checkout.js";
import { Plot } from "./plot.js";
import { Sale } from "./sale.js";
import { ServerClock } from "./server_clock.js";

const RATE_WINDOW = 10_000;
const RETRY = 3000;
const LONG_NAME = 60; // characters; a longer one is set in smaller type
const SLEPT = 10_000; // between two ticks that are a second apart: the machine has slept
const $ = (id) => document.getElementById(id);

const clock = new ServerClock();
const plot = new Plot(() => clock.now());
const sale = new Sale(clock, (terms, before) => checkout.termsChanged(terms, before));
const checkout = new Checkout(clock, sale);
let product = null;
let stream = null;
let newest = null;

async function start() {
  const { ok, body, sent, received } = await call("GET", "/api/products?limit=1000", { quiet: true });
  if (!ok) {
    connection("away", "No response, trying again…");
    setTimeout(start, RETRY);
    return;
  }
  const wanted = new URLSearchParams(location.search).get("product");
  if (body.length) clock.addSample(Date.parse(body[0].now), sent, received);
  const found = body.find(({ id }) => String(id) === wanted) ?? (wanted === null ? body[0] : await unlisted(wanted));
  $("product").replaceChildren(...body.map(({ id, name }) => element("option", { value: id }, [`${id}. ${name}`])));
  $("product-choice").hidden = body.length < 2 && Boolean(found);
  if (found) choose(found);
  else {
    $("product").selectedIndex = -1;
    $("product-name").textContent = body.length ? `Product ${wanted} does not exist` : "Nothing is on sale yet";
    connection("idle", body.length ? "Choose a product" : "Trying again…");
    if (!body.length) setTimeout(start, RETRY);
  }
  $("product").onchange = () => {
    const chosen = body.find(({ id }) => String(id) === $("product").value);
    history.pushState(null, "", `?product=${chosen.id}`);
    choose(chosen);
  };
}

/** A product that is not in the list is sold as any other to buyers who know its id. */
async function unlisted(wanted) {
  const { ok, body } = await call("GET", `/api/products/${encodeURIComponent(wanted)}`, { quiet: true });
  return ok ? body : undefined;
}

function choose(chosen) {
  product = chosen;
  newest = null;
  $("product").value = chosen.id;
  document.title = `${chosen.name} · Flash sale`;
  $("product-name").textContent = chosen.name;
  $("product-name").classList.toggle("long", chosen.name.length > LONG_NAME);
  $("price").textContent = `${chosen.price} ${chosen.currency} each`;
  $("stream-command").textContent = `curl -N ${location.origin}/api/products/${chosen.id}/live`;
  plot.clear();
  sale.follow(chosen);
  checkout.show(chosen);
  subscribe();
}

/** Without its stream, a page leaves one of the browser's six connections to this server to others. */
function unsubscribe() {
  if (!stream) return;
  stream.close();
  stream = null;
  plot.interrupt();
  connection("idle", "Paused");
}

/** The page is visible again. */
function wake() {
  if (product && !stream) subscribe();
  sale.wake();
  checkout.wake();
}

function subscribe() {
  stream?.close();
  stream = null;
  if (document.hidden) return;
  connection("connecting", "Connecting…");
  const mine = (stream = new EventSource(`/api/products/${product.id}/live`));
  mine.addEventListener("history", ({ data }) => plot.add(JSON.parse(data).map(sampleOf)));
  mine.addEventListener("stock", ({ data }) => {
    const sample = sampleOf(JSON.parse(data));
    sale.sampled(JSON.parse(data));
    connection("live", "Live");
    show(sample);
  });
  mine.addEventListener("unavailable", ({ data }) => {
    plot.interrupt();
    connection("away", `${JSON.parse(data).title}, trying again…`);
  });
  mine.addEventListener("error", () => {
    if (mine !== stream) return;
    plot.interrupt();
    connection("away", "Not live, trying again…");
    // A browser reconnects by itself after a broken stream, but not after an error response.
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => mine === stream && subscribe(), RETRY);
  });
}

function sampleOf({ at, available, held, awaiting, paid }) {
  return { t: Date.parse(at), available, held, awaiting, paid };
}

function show(sample) {
  if (newest && newest.available > 0 && sample.available === 0) announce("Sold out, for now.");
  if (newest && newest.available === 0 && sample.available > 0) announce(`${sample.available} available again.`);
  newest = sample;
  plot.add([sample]);
  const total = sample.available + sample.held + sample.awaiting + sample.paid;
  $("available").textContent = sample.available;
  $("of-total").textContent = `of ${total} available`;
  for (const kind of ["available", "held", "awaiting", "paid"]) $(`units-${kind}`).textContent = sample[kind];
  rates();
}

/** Announce important changes to screen readers. */
function announce(text) {
  $("connection-message").textContent = text;
}

/** Units a second, over RATE_WINDOW. */
function rates() {
  let taken = 0;
  let paid = 0;
  const since = clock.now() - RATE_WINDOW;
  plot.samples.forEach((sample, index) => {
    const before = plot.samples[index - 1];
    if (!before || before.gap || sample.gap || sample.t < since) return;
    taken += Math.max(0, before.available - sample.available);
    paid += Math.max(0, sample.paid - before.paid);
  });
  $("rate-taken").textContent = perSecond(taken);
  $("rate-paid").textContent = perSecond(paid);
}

function perSecond(units) {
  const rate = (units * 1000) / RATE_WINDOW;
  return `${rate >= 10 || rate === 0 ? rate.toFixed(0) : rate.toFixed(1)}/s`;
}

function connection(state, text) {
  if ($("connection").textContent === text) return;
  $("connection").dataset.state = state;
  $("connection").textContent = text;
}

let ticked = Date.now();
setInterval(() => {
  if (newest) rates();
  if (clock.isDoubtful) { // guard: page-after-sleep
    clock.doubt();
    sale.wake();
  }
  // A connection from before does not break by itself: its end never arrived.
  if (Date.now() - ticked > SLEPT && stream) subscribe();
  ticked = Date.now();
}, 1000);
addEventListener("online", () => stream && subscribe());
document.addEventListener("visibilitychange", () => (document.hidden ? unsubscribe() : wake()));
// Into the back/forward cache and out of it.
addEventListener("pagehide", unsubscribe);
addEventListener("pageshow", ({ persisted }) => persisted && wake());
addEventListener("popstate", start);
start();
