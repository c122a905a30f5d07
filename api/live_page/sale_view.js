// What the page says of a sale's terms: when it starts and ends, its pause, and the limit for each buyer.

import { allowed, countdown, moment } from "./words.js";

const $ = (id) => document.getElementById(id);

export class SaleView {
  /** @param {Sale} sale @param {number} now the database's time */
  show({ terms, allowance, isNamed, resumed }, now) {
    const starts = Date.parse(terms.starts_at);
    const counts = terms.sale_status === "scheduled";
    $("opening").hidden = !counts;
    if (counts) set("opens-in", countdown(starts - now));
    const status = STATUS[terms.sale_status](terms, now, resumed);
    const limit = terms.max_per_buyer === null ? "" : limitText(terms.max_per_buyer, allowance, isNamed);
    set("sale-status", status);
    set("sale-limit", limit);
    $("terms").dataset.status = terms.sale_status;
    $("terms").hidden = !status && !limit;
  }
}

const STATUS = {
  scheduled: ({ starts_at }, now) => `The sale starts at ${moment(Date.parse(starts_at), now)}. This page opens by itself.`,
  open: ({ starts_at, ends_at }, now, resumed) =>
    ends_at ? `On sale until ${moment(Date.parse(ends_at), now)}.` : resumed ? "The sale goes on." : starts_at ? "On sale." : "",
  paused: () => "The sale is paused and may go on at any moment. Holds and orders are not affected.",
  ended: ({ ends_at }, now) => `The sale ended at ${moment(Date.parse(ends_at), now)}. What is held can still be ordered, and an order be paid.`,
  cancelled: () => "The sale was cancelled. What was paid is paid back.",
};

function limitText(limit, allowance, isNamed) {
  const text = `At most ${limit} for each buyer`;
  if (isNamed === false) return `${text}. This server takes the buyer from a token, which this page does not have.`;
  if (!allowance) return `${text}.`;
  return `${text}: ${allowed(allowance)}.`;
}

function set(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}
