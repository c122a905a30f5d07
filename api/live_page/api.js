// Client of the checkout's HTTP API, and the log that shows each request with its response.

import { forgetRequest, keepRequest } from "./memory.js";
import { allowed, clock, moment } from "./words.js";

const MOST_ENTRIES = 40;
const entries = document.getElementById("entries");

const PHRASES = {
  200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized",
  404: "Not Found", 409: "Conflict", 410: "Gone", 422: "Unprocessable Content", 503: "Service Unavailable",
};
// The response headers that the log shows.
const SHOWN_HEADERS = ["location", "idempotency-replayed", "retry-after", "content-type", "x-request-id"];

// Responses of the server after which the outcome is open. Any response that is not the server's own leaves it open, too.
const OPEN_CODES = ["outcome_unknown", "internal_error"];

/**
 * Call the API, and log it unless `quiet`.
 * @param {string} why explanation for the log
 * @param {string | null} key an Idempotency-Key
 * @param {string | null} keep the name under which the request is kept until its outcome is known, also if the page is reloaded
 * @param {number | null} patience milliseconds to wait for the response
 * @returns {Promise<{status: number, ok: boolean, known: boolean, body: any, replayed: boolean, retryAfter: number | null,
 *   sent: number, received: number}>} status 0: no response; retryAfter in seconds; sent and received by performance.now()
 */
export async function call(method, path, { body, why = "", key = null, keep = null, quiet = false, patience = null } = {}) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers = {};
  if (text !== undefined) headers["Content-Type"] = "application/json";
  if (key !== null) headers["Idempotency-Key"] = key;
  if (keep !== null) keepRequest(keep, { path, body, key });

  const sent = performance.now();
  let answer;
  try {
    const signal = patience === null ? undefined : AbortSignal.timeout(patience);
    const response = await fetch(path, { method, headers, body: text, cache: "no-store", signal });
    const received = performance.now();
    const wait = response.headers.get("Retry-After");
    answer = {
      status: response.status,
      ok: response.ok,
      body: parsed(await response.text()),
      replayed: response.headers.get("Idempotency-Replayed") === "true",
      headers: SHOWN_HEADERS.flatMap((name) => (response.headers.has(name) ? [[name, response.headers.get(name)]] : [])),
      retryAfter: /^\d+$/.test(wait) ? Number(wait) : null,
      received,
    };
  } catch {
    answer = { status: 0, ok: false, body: null, replayed: false, headers: [], retryAfter: null, received: performance.now() };
  }
  answer.sent = sent;
  answer.known = answer.ok
    ? answer.status === 204 || answer.body !== null
    : answer.body?.code !== undefined && !OPEN_CODES.includes(answer.body.code);
  answer.ok &&= answer.known; // a success that cannot be read
  if (keep !== null && answer.known) forgetRequest(keep);
  if (!quiet) record({ method, path, headers, text, why, answer, took: performance.now() - sent });
  return answer;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Title and explanation of an unsuccessful response to a request for a product. */
export function explain(answer, product) {
  if (!answer.known) {
    const title = answer.status === 0 ? "No response" : answer.body?.title ?? `HTTP ${answer.status}`;
    return [`${title}.`, "The request may or may not have taken effect. Press again: it takes effect once."];
  }
  const { code, title = `HTTP ${answer.status}`, detail = "" } = answer.body ?? {};
  const name = product.name.length > LONGEST_NAME ? `${product.name.slice(0, LONGEST_NAME)}…` : product.name;
  const named = detail.replace(new RegExp(`\\bproduct ${product.id}\\b`, "i"), () => name);
  return [`${title}.`, (EXPLANATIONS[code] ?? (() => named))(named, name, answer.body)];
}

const LONGEST_NAME = 60;
const EXPLANATIONS = {
  insufficient_stock: (detail) => `${detail} Nothing was reserved. Units that others hold may become available again.`,
  product_not_found: (_, name) => `${name} is not sold any more.`,
  hold_expired: (_, name) => `The hold has expired and its units of ${name} are available again. Reserve again.`,
  hold_released: (_, name) => `The hold on ${name} was released. Reserve again.`,
  hold_already_used: (_, name) => `This hold on ${name} has already become an order.`,
  hold_not_found: (_, name) => `The hold on ${name} does not exist.`,
  sale_not_started: (_, name, { starts_at }) => `${name} is on sale from ${moment(Date.parse(starts_at))} on. Nothing was reserved; this page opens by itself.`,
  sale_paused: (_, name) => `The sale of ${name} may go on at any moment. Nothing was reserved.`,
  sale_ended: (_, name, { ends_at }) => `${name} was on sale until ${moment(Date.parse(ends_at))}. Nothing was reserved.`,
  sale_cancelled: (_, name) => `${name} is not sold any more. Nothing was reserved.`,
  buyer_required: (_, name) => `${name} has a limit for each buyer, and this page cannot name one to this server.`,
  limit_reached: (_, name, { limit, taken, remaining }) => `At most ${limit} of ${name}${taken ? `: ${allowed({ taken, remaining })}` : ""}. Nothing was reserved.`,
  extension_refused: (_, name, { expires_at }) => `The hold on ${name} cannot be kept longer. It is yours until ${clock(Date.parse(expires_at))}.`,
  order_settled: (_, name) => `The order for ${name} is paid, and cannot be given back.`,
  order_not_found: (_, name) => `The order for ${name} does not exist.`,
  invalid_request: (detail) => `The request is invalid: ${detail}`,
  invalid_signature: () => "The webhook was not signed, so the server rejected it.",
  overloaded: () => "Too many requests are waiting. Nothing was done; try again.",
  busy: (_, name) => `${name} stayed locked. Nothing was done; try again.`,
  unavailable: () => "The database cannot be reached. Nothing was done; try again.",
};

function record({ method, path, headers, text, why, answer, took }) {
  document.getElementById("log-empty").hidden = true;
  for (const open of entries.querySelectorAll("details[open]")) open.open = false;
  const status = answer.status ? `${answer.status} ${PHRASES[answer.status] ?? ""}`.trim() : "no response";
  const details = element("details", { open: true }, [
    element("summary", {}, [
      element("span", { className: "method" }, [method]),
      element("span", { className: "path" }, [path]),
      element("span", { className: "status", dataset: { class: String(answer.status)[0] } }, [status]),
      element("span", { className: "took" }, [`${took.toFixed(0)} ms`]),
    ]),
    ...(why ? [element("p", { className: "why" }, [why])] : []),
    message("request", [`${method} ${path} HTTP/1.1`, ...lines(Object.entries(headers))], text && JSON.parse(text)),
    ...(answer.status ? [message("answer", [`HTTP/1.1 ${status}`, ...lines(answer.headers)], answer.body)] : []),
    copyButton("Copy as curl", curl(method, path, headers, text)),
  ]);
  entries.prepend(element("li", {}, [details]));
  while (entries.children.length > MOST_ENTRIES) entries.lastElementChild.remove();
}

function lines(headers) {
  return headers.map(([name, value]) => `${name.replace(/(^|-)[a-z]/g, (letter) => letter.toUpperCase()).replace("-Id", "-ID")}: ${value}`);
}

function message(side, head, body) {
  const text = head.join("\n") + (body ? `\n\n${JSON.stringify(body, null, 2)}` : "");
  return element("pre", { dataset: { side } }, [element("code", {}, [text])]);
}

function curl(method, path, headers, text) {
  const words = ["curl -i", ...(method === "GET" || text !== undefined ? [] : [`-X ${method}`]), quoted(location.origin + path)];
  for (const [name, value] of Object.entries(headers)) words.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (text !== undefined) words.push(`-d ${quoted(text)}`);
  return words.join(" ");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function copyButton(label, text) {
  const button = element("button", { type: "button", className: "copy", hidden: !navigator.clipboard }, [label]);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return button;
}

/** A new element; children are nodes, or strings that become text and never markup. */
export function element(name, { dataset = {}, ...properties } = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}
