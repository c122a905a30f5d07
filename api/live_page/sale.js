// The terms of a product's sale, and what this buyer may have of it. The page learns them from responses, from the stream
// and from refusals, and asks again when an instant of the sale has come: whether it is open is the server's word.

import { call } from "./api.js";
import { buyerName } from "./memory.js";
import { SaleView } from "./sale_view.js";

const TICK = 200; // milliseconds
const LONGEST_UNASKED = 60_000;
const RETRY = 1000;
const SOONEST = 20;
const PATIENCE = 5000; // a request from before the machine has slept may never be answered
const STATUSES = { sale_not_started: "scheduled", sale_paused: "paused", sale_ended: "ended", sale_cancelled: "cancelled" };

export class Sale {
  /** @param {ServerClock} clock @param {() => void} changed called when the terms or the allowance have changed */
  constructor(clock, changed) {
    this.clock = clock;
    this.changed = changed;
    this.view = new SaleView();
    this.product = null;
    this.allowancesAsked = 0;
    this.tick();
  }

  /** @param {object} product a response's */
  follow(product) {
    this.product = product;
    this.terms = null;
    this.at = 0; // the database's time of the terms
    this.allowance = null; // {taken, remaining}, if there is a limit
    this.isNamed = null; // whether the server takes the buyer's name from this page; null: not known yet
    this.wasOpen = null; // at the last notification
    this.closedUntil = -Infinity; // as a refusal demands, by performance.now()
    this.asking = null;
    this.learn(product, Date.parse(product.now), Date.parse(product.now));
  }

  get isOpen() {
    return this.terms?.sale_status === "open" && performance.now() >= this.closedUntil; // guard: page-opens-by-status
  }

  /** How many units the buyer may reserve; null: no limit. */
  get most() {
    return this.allowance?.remaining ?? null;
  }

  /** @param {number} at the database's time of these terms @param {number} now what it is by now, at least */
  learn({ sale_status, starts_at, ends_at, max_per_buyer }, at, now) {
    if (at < this.at) return; // guard: page-newest-terms
    const before = this.terms;
    this.at = at;
    this.terms = { sale_status, starts_at, ends_at, max_per_buyer };
    const next = { scheduled: starts_at, open: ends_at, paused: ends_at }[sale_status];
    const left = Math.min(LONGEST_UNASKED, next ? Date.parse(next) - now : Infinity); // guard: page-asks-at-instant
    const here = performance.now();
    this.askAt = here < this.closedUntil ? this.closedUntil : here + Math.max(SOONEST, left);
    const wasOpen = this.wasOpen;
    this.wasOpen = this.isOpen;
    if (JSON.stringify(before) === JSON.stringify(this.terms) && wasOpen === this.wasOpen) return;
    this.resumed = before?.sale_status === "paused" && sale_status === "open";
    if (before?.max_per_buyer !== max_per_buyer) this.askAllowance();
    this.notify(before);
  }

  /** A sample of the stream. */
  sampled(sample) {
    const at = Date.parse(sample.at);
    this.clock.addLowerBound(at);
    this.learn(sample, at, Math.max(at, this.clock.now()));
  }

  /** Learn from the refusal of a hold. */
  refused({ body, retryAfter }) {
    if (body?.code === "limit_reached" || body?.code === "buyer_required") return this.ask();
    const sale_status = STATUSES[body?.code];
    if (!sale_status) return;
    if (retryAfter !== null) this.closedUntil = performance.now() + retryAfter * 1000; // guard: page-retry-after
    const { starts_at = this.terms.starts_at, ends_at = this.terms.ends_at } = body;
    this.learn({ ...this.terms, sale_status, starts_at, ends_at }, this.at, this.clock.now());
    if (retryAfter === null) this.ask();
  }

  /** The page is visible again, or its clock has jumped. */
  wake() {
    if (this.product) this.ask();
  }

  /** Read the terms, and what the buyer may have. */
  ask() {
    this.askAt = Infinity;
    this.asking ??= this.read(this.product).finally(() => (this.asking = null));
    return this.asking;
  }

  async read(product) {
    const answer = await call("GET", `/api/products/${product.id}`, { quiet: true, patience: PATIENCE });
    if (this.product !== product) return;
    if (!answer.ok) {
      this.askAt = performance.now() + Math.max(RETRY, (answer.retryAfter ?? 0) * 1000);
      return;
    }
    const now = Date.parse(answer.body.now);
    this.clock.addSample(now, answer.sent, answer.received);
    const { sale_status, max_per_buyer } = this.terms;
    this.learn(answer.body, now, now);
    // At the start all pages ask at once; learn() asks where the limit is another one.
    if (sale_status !== "scheduled" && max_per_buyer === this.terms.max_per_buyer) await this.askAllowance();
  }

  /** Read what the buyer may have, if there is a limit. */
  async askAllowance() {
    const { product } = this;
    if (this.terms.max_per_buyer === null) {
      this.allowance = null;
      return;
    }
    const number = ++this.allowancesAsked;
    const path = `/api/products/${product.id}/allowance?buyer=${encodeURIComponent(buyerName())}`;
    const { ok, known, body } = await call("GET", path, { quiet: true, patience: PATIENCE });
    if (number !== this.allowancesAsked || this.product !== product || !known) return;
    this.isNamed = ok;
    this.allowance = ok && body.remaining !== null ? { taken: body.taken, remaining: body.remaining } : null;
    this.notify(this.terms);
  }

  /** The name to reserve under: of this browser if there is a limit and the server takes it. */
  async buyer() {
    if (this.terms.max_per_buyer === null) return null;
    if (this.isNamed === null) await this.askAllowance();
    return this.isNamed ? buyerName() : null;
  }

  notify(before) {
    this.show();
    this.changed(this.terms, before);
  }

  show() {
    this.view.show(this, this.clock.now());
  }

  tick() {
    if (this.product && !document.hidden) {
      if (performance.now() >= this.askAt) this.ask();
      this.show();
    }
    setTimeout(() => this.tick(), this.product ? Math.min(TICK, Math.max(SOONEST, this.askAt - performance.now())) : TICK);
  }
}
