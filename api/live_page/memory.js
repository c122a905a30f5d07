// What the browser remembers across reloads and tabs: the hold and the order of a product's checkout, and the requests
// whose outcome is unknown. The state of both is always the server's.

import { browser, tab } from "./storage.js";

const LONGEST_UNANSWERED = 15 * 60_000; // milliseconds; what is older is not repeated

/** Keep a request under a name until its outcome is known, so that it can be repeated with its key. */
export function keepRequest(name, request) {
  browser.set(`unanswered ${name}`, { ...request, at: Date.now() });
}

export function forgetRequest(name) {
  browser.set(`unanswered ${name}`, null);
}

/**
 * The request that was kept under a name because its outcome is unknown. To repeat it with its key is safe.
 * @returns {{path: string, body: any, key: string | null, at: number} | null}
 */
export function unanswered(name) {
  const kept = browser.get(`unanswered ${name}`);
  if (kept?.body && Math.abs(Date.now() - kept.at) < LONGEST_UNANSWERED) return kept;
  forgetRequest(name);
  return null;
}

/** A random text of 128 bits. (crypto.randomUUID only exists over HTTPS and on localhost.) */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The name by which the server knows this browser's buyer, where it takes names from its callers. */
export function buyerName() {
  const known = browser.get("buyer");
  if (typeof known === "string") return known;
  const name = `page_${randomKey()}`;
  browser.set("buyer", name);
  return name;
}

/** The key for a request: a new one, or that of the same request whose response never came. */
export function keyFor(name, path, body) {
  const lost = unanswered(name);
  return lost?.path === path && JSON.stringify(lost.body) === JSON.stringify(body) ? lost.key : randomKey(); // guard: page-same-key
}

/** A payment event for the order: the one whose response never came, or a new one. */
export function eventFor(order, status) {
  const lost = unanswered(`payment ${order.order_id}`)?.body;
  if (lost?.status === status && lost.amount === order.amount && lost.currency === order.currency) return lost;
  return { idempotency_key: `page_${randomKey()}`, order_id: order.order_id, status, amount: order.amount, currency: order.currency };
}

/** The last order id that this tab has seen. Order ids are sequential. */
export const lastOrder = {
  get: () => Number(tab.get("last order")),
  set: (orderId) => tab.set("last order", orderId),
};

/** The checkout of one product, shared by all tabs of the browser. */
export class CheckoutMemory {
  /** @param {() => void} changed called when another tab has changed it */
  constructor(productId, changed) {
    this.place = `checkout ${productId}`;
    this.known = null; // the text that was read or written last
    this.ends = new AbortController();
    // A null key: all has been deleted.
    const heard = ({ key }) => (key === null || key === this.place) && changed();
    addEventListener("storage", heard, { signal: this.ends.signal });
  }

  /** Stop listening to other tabs. */
  close() {
    this.ends.abort();
  }

  /** Whether another tab has changed it since it was read or written here. */
  get stale() {
    return browser.text(this.place) !== this.known;
  }

  /** The id of the hold, if there is one. */
  read() {
    this.known = browser.text(this.place);
    return browser.get(this.place)?.hold_id;
  }

  /** Other tabs follow: they show the same hold, its end, and what became of its order. */
  write(hold, order) {
    browser.set(this.place, hold && { hold_id: hold.hold_id, expires_at: hold.expires_at, order_status: order?.status });
    this.known = browser.text(this.place);
  }

  /** Have it read again when the page wakes. */
  doubt() {
    this.known = null;
  }
}
