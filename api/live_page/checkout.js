// One buyer's checkout: a hold, its order, its payment. The state is always the server's; the page only
// remembers the ids of its hold and its order, for all tabs of the browser, and requests without an answer.

import { call, explain, randomKey, unanswered } from "./api.js";
import { clock } from "./plot.js";
import { browser, tab } from "./storage.js";

const STEPS = ["reserve", "order", "pay", "done"];
const REASONS = {
  payment_failed: "The payment failed",
  payment_cancelled: "The payment was cancelled",
  payment_overdue: "The payment was overdue",
};
const $ = (id) => document.getElementById(id);

export class Checkout {
  /** @param {() => number} now the server's time in milliseconds */
  constructor(now) {
    this.now = now;
    this.product = null;
    this.busy = false;
    this.outdated = false; // the browser remembers something else than is shown
    this.reset();
    const on = (id, act) => $(id).addEventListener("click", () => this.alone(act));
    $("reserve-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.alone(() => this.reserve());
    });
    $("fewer").addEventListener("click", () => this.changeQuantity(-1));
    $("more").addEventListener("click", () => this.changeQuantity(+1));
    on("do-order", () => this.order());
    on("do-early", () => this.orderPaidEarly());
    on("do-release", () => this.release());
    on("do-lapse", () => this.letLapse());
    on("do-pay", () => this.pay("success"));
    on("do-twice", () => this.payTwice());
    on("do-fail", () => this.pay("failed"));
    on("do-cancel", () => this.pay("cancelled"));
    on("do-repeat", () => this.repeat());
    on("do-more", () => this.pay("success"));
    on("do-again", () => this.startAgain());
    setInterval(() => this.tick(), 200);
    // Another tab has changed it; key null: all has been deleted.
    addEventListener("storage", ({ key }) => (key === null || key === this.place) && this.refresh());
  }

  /** Where the browser remembers the checkout of the product. */
  get place() {
    return `checkout ${this.product?.id}`;
  }

  reset() {
    this.hold = null;
    this.held = 0; // duration of the hold in milliseconds, for its meter
    this.bought = null; // the order
    this.webhook = null; // the last one that was accepted
    this.lapsing = false;
    this.watching = false;
  }

  show(product) {
    if (this.product?.id === product.id) return;
    this.product = product;
    this.reset();
    this.say("");
    this.step("reserve");
    this.refresh();
  }

  /** The page is visible again: other tabs and the server may have gone on. */
  wake() {
    if (!this.product) return;
    if (browser.text(this.place) !== this.kept) this.refresh();
    else if (this.visible === "pay") this.watchOrder();
  }

  /** Restore the checkout, now or after the action in progress. */
  refresh() {
    if (this.busy) this.outdated = true;
    else this.alone(() => this.restore());
  }

  /** Restore the browser's hold or order of the product, and repeat a request whose answer never came. */
  async restore() {
    const { product } = this;
    const lost = unanswered(`hold ${product.id}`);
    if (lost) {
      $("qty").value = lost.body.qty;
      return this.placeHold(lost.body, "The response to this request never came: the same again, with the same key.");
    }
    this.kept = browser.text(this.place);
    const { hold_id } = browser.get(this.place) ?? {};
    const { ok, status, body } = hold_id ? await call("GET", `/api/holds/${hold_id}`, { quiet: true }) : { ok: false };
    if (this.product !== product) return;
    if (!ok) {
      if (hold_id ? status === 404 : this.hold) this.startAgain();
      else if (hold_id) this.kept = null; // the next wake() tries again
      return;
    }
    if (this.hold?.hold_id !== hold_id) {
      this.reset();
      this.step("reserve");
      this.say("");
    }
    this.setHold(body);
    if (body.order) {
      if (!(await this.askOrder(body.order.order_id)) || this.product !== product) return;
      this.showOrder();
      const lostEvent = unanswered(`payment ${body.order.order_id}`)?.body;
      if (lostEvent && this.event(this.bought, lostEvent.status).idempotency_key === lostEvent.idempotency_key) {
        await this.pay(lostEvent.status);
      }
    } else if (body.status === "active") {
      this.step("order");
      if (unanswered(`order ${product.id}`)?.body.hold_id === hold_id) await this.order();
    } else this.startAgain();
  }

  /** Ignore a second press while the first is in progress. */
  async alone(act) {
    if (this.busy || !this.product) return;
    this.busy = true;
    document.body.setAttribute("aria-busy", "true");
    try {
      await act();
    } finally {
      this.busy = false;
      document.body.removeAttribute("aria-busy");
      if (this.outdated) {
        this.outdated = false;
        this.refresh();
      }
    }
  }

  changeQuantity(by) {
    const qty = Number($("qty").value) || 0;
    $("qty").value = Math.max(1, qty + by);
  }

  async reserve() {
    const text = $("qty").value.trim();
    // Text that is not a number is sent as it is: the server's response explains the error.
    const qty = text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
    const body = { product_id: this.product.id, qty };
    const lost = unanswered(`hold ${this.product.id}`);
    if (lost && JSON.stringify(lost.body) !== JSON.stringify(body)) {
      // It may have reserved units: reserve no further ones before that is known.
      const answer = await this.placeHold(lost.body, "First the request whose response never came, with the same key.");
      if (answer.ok || !answer.known) return;
    }
    await this.placeHold(body, "Reserve units for a while.");
  }

  async placeHold(body, why) {
    const { product } = this;
    const answer = await this.post(`hold ${product.id}`, "/api/holds", body, why);
    const hold = answer.body;
    if (this.product !== product) {
      if (answer.ok) browser.set(`checkout ${product.id}`, { hold_id: hold.hold_id });
      return answer;
    }
    if (!answer.ok) this.refused(answer);
    else if (hold.order) {
      this.setHold(hold);
      if (await this.askOrder(hold.order.order_id)) this.showOrder();
    } else if (hold.status === "active") {
      this.setHold(hold);
      this.keep();
      this.step("order");
      this.say("good", `Reserved ${units(hold.qty)}.`, `Yours until ${clock(Date.parse(hold.expires_at))}.`);
    } else {
      // A replay shows the hold as it is now.
      this.startAgain();
      this.say("bad", `Hold ${hold.status}.`, `It had ${units(hold.qty)}. Reserve again.`);
    }
    return answer;
  }

  setHold(hold) {
    this.hold = hold;
    this.held = Math.max(this.held, Date.parse(hold.expires_at) - this.now());
    this.announced = null;
  }

  async order() {
    const answer = await this.post(`order ${this.product.id}`, "/api/orders", { hold_id: this.hold.hold_id }, "The hold becomes an order.");
    if (!answer.ok) return this.lostHold(answer);
    await this.setOrder(answer.body);
    this.showOrder();
    if (answer.body.status === "pending_payment") {
      this.say("good", `Order ${answer.body.order_id}.`, `It awaits ${answer.body.amount} ${answer.body.currency}.`);
    }
  }

  /** Send the payment before its order: the server stores the webhook, and applies it when the order is created. */
  async orderPaidEarly() {
    let last = Number(tab.get("last order"));
    if (!last) {
      // Order ids are sequential: a trial order, cancelled at once, shows the current one.
      const trial = await this.post(`trial hold ${this.product.id}`, "/api/holds", { product_id: this.product.id, qty: 1 }, "To find the current order id: a trial hold…");
      if (!trial.ok) return this.refused(trial);
      const order = await this.post(`trial order ${this.product.id}`, "/api/orders", { hold_id: trial.body.hold_id }, "…which becomes a trial order…");
      if (!order.ok) return this.refused(order);
      const given = await this.send(this.event(order.body, "cancelled"), "…whose payment is cancelled: its unit is available again.");
      if (!given.ok) return this.webhookRefused(given, null);
      last = order.body.order_id;
    }
    const next = last + 1;
    const amount = ((Math.round(Number(this.product.price) * 1000) * this.hold.qty) / 1000).toFixed((this.product.price.split(".")[1] ?? "").length);
    const expected = { order_id: next, amount, currency: this.product.currency };
    const early = await this.send(this.event(expected, "success"), `The payment of order ${next}, which does not exist yet: stored.`);
    if (!early.ok) return this.webhookRefused(early, null);
    const answer = await this.post(`order ${this.product.id}`, "/api/orders", { hold_id: this.hold.hold_id }, "Now the order. The stored webhook is applied as it is created.");
    if (!answer.ok) return this.lostHold(answer);
    await this.setOrder(answer.body);
    this.showOrder();
    if (answer.body.status === "paid") this.say("good", `Order ${next} was paid as it was created.`, "The webhook had come first.");
    else this.say("bad", "Another buyer was faster.", `Order ${next} belongs to another buyer; yours is ${answer.body.order_id}.`);
  }

  async release() {
    const { hold_id, qty } = this.hold;
    const answer = await call("DELETE", `/api/holds/${hold_id}`, { why: "Release the hold." });
    if (!answer.ok) return this.lostHold(answer);
    this.startAgain();
    this.say("good", `Released ${units(qty)}.`, "They are back on sale.");
  }

  letLapse() {
    this.lapsing = !this.lapsing;
    $("do-lapse").setAttribute("aria-pressed", String(this.lapsing));
    if (this.lapsing) this.say("", "Waiting for the hold to lapse.", "Then this page tries to order with it all the same.");
    else this.say("", "Not waiting any more.", "");
  }

  /** The hold should have expired; the server decides. */
  async lapse() {
    const { hold_id, qty } = this.hold;
    const answer = await call("GET", `/api/holds/${hold_id}`, { why: "The hold should have expired: ask the server.", quiet: true });
    if (!answer.ok || answer.body.status === "active") return;
    if (this.lapsing) await this.post(`order ${this.product.id}`, "/api/orders", { hold_id }, "An order with a hold that has lapsed: refused.");
    else await call("GET", `/api/holds/${hold_id}`, { why: "The hold should have expired: ask the server." });
    this.startAgain();
    this.say("bad", "Hold expired.", `${qty === 1 ? "Its unit is" : `All its ${qty} units are`} available again since that instant.`);
  }

  async pay(status) {
    const why = { success: "The provider reports a successful payment.", failed: "The provider reports a failure.", cancelled: "The provider reports that the buyer cancelled." };
    const answer = await this.send(this.event(this.bought, status), why[status]);
    if (!answer.ok) return this.webhookRefused(answer, this.bought.order_id, status);
    await this.settled(answer);
  }

  async payTwice() {
    const event = this.event(this.bought, "success");
    const first = await this.send(event, "The provider reports the payment…");
    if (!first.ok) return this.webhookRefused(first, this.bought.order_id, "success", "--times 2");
    const second = await this.send(event, "…and reports it again, with the same key: a replay, with no second effect.");
    await this.settled(second.ok ? second : first);
  }

  async repeat() {
    const answer = await this.send(this.webhook, "The same webhook once more: a replay, answered as before.");
    if (!answer.ok) return this.refused(answer);
    await this.settled(answer);
  }

  /** A payment event for the order: the one whose response never came, or a new one. */
  event(order, status) {
    const lost = unanswered(`payment ${order.order_id}`)?.body;
    if (lost?.status === status && lost.amount === order.amount && lost.currency === order.currency) return lost;
    return { idempotency_key: `page_${randomKey()}`, order_id: order.order_id, status, amount: order.amount, currency: order.currency };
  }

  async send(event, why) {
    const answer = await call("POST", "/api/payments/webhook", { body: event, why, keep: `payment ${event.order_id}` });
    if (answer.ok) this.webhook = event;
    return answer;
  }

  async settled(answer) {
    await this.askOrder(this.bought.order_id);
    this.showOrder();
    const { result } = answer.body;
    const order = this.bought;
    if (answer.replayed) this.say("good", "The replay changed nothing.", `The response is the recorded result (Idempotency-Replayed: true). Order ${order.order_id} is ${order.status}, once.`);
    else if (result === "refund_due") this.say("bad", "Refund due.", `Order ${order.order_id} is ${order.status === "paid" ? "paid already" : "cancelled"}, so this payment is recorded as a refund due.`);
    else if (result === "amount_mismatch") this.say("bad", "The amount differs from the order’s.", "The order is unchanged; the webhook is recorded.");
    else if (order.status === "paid") this.say("good", `Order ${order.order_id} is paid.`, "");
    else if (order.status === "cancelled") this.say("bad", `${REASONS[order.cancel_reason]}.`, "Its units are back on sale.");
  }

  /** A webhook was refused. If it has no valid signature, show how to send it. orderId null: for the next order. */
  webhookRefused(answer, orderId, status, more = "") {
    this.refused(answer);
    if (answer.body?.code !== "invalid_signature") return;
    const which = orderId === null ? "--early" : `--order ${orderId} --status ${status}`;
    const where = ["127.0.0.1:8000", "localhost:8000"].includes(location.host) ? "" : `--url ${location.origin}`;
    const words = [".venv/bin/flashsale webhook send", which, more, where];
    $("signed-command").textContent = words.filter(Boolean).join(" ");
    $("signed-next").textContent = orderId === null ? "Then press Order." : "This page shows it when it has arrived.";
    $("signed").hidden = false;
    this.watching = orderId !== null;
  }

  async setOrder(order) {
    this.bought = order;
    tab.set("last order", order.order_id);
    await this.askOrder(order.order_id);
  }

  async askOrder(orderId) {
    const { ok, body } = await call("GET", `/api/orders/${orderId}?hold_id=${this.hold.hold_id}`, { quiet: true });
    if (ok) {
      this.bought = body;
      this.keep();
    }
    return ok;
  }

  showOrder() {
    const order = this.bought;
    if (order.status === "pending_payment") {
      $("pay-title").textContent = `Order ${order.order_id}: ${order.amount} ${order.currency}`;
      return this.step("pay");
    }
    const paid = order.status === "paid";
    $("done-title").textContent = paid ? `Order ${order.order_id} is paid` : `Order ${order.order_id} is cancelled`;
    $("done-what").textContent = paid
      ? `${units(order.qty)} for ${order.amount} ${order.currency}.`
      : `${REASONS[order.cancel_reason]}. ${units(order.qty)} went back on sale.`;
    $("do-repeat").hidden = this.webhook?.order_id !== order.order_id;
    $("do-more").textContent = paid ? "Pay a second time" : "Pay after all";
    $("done-hint").textContent = paid
      ? "A second payment with another key is a refund due."
      : order.cancel_reason === "payment_cancelled"
        ? "An order that the buyer cancelled stays cancelled: a later payment is a refund due."
        : "A late payment takes its units again if there are any; otherwise it is a refund due.";
    this.step("done");
  }

  startAgain() {
    this.reset();
    this.keep();
    $("do-lapse").setAttribute("aria-pressed", "false");
    this.step("reserve");
    this.say("");
  }

  /** The hold cannot be ordered any more. */
  lostHold(answer) {
    const gone = ["hold_expired", "hold_released", "hold_not_found"].includes(answer.body?.code);
    if (gone) this.startAgain();
    this.refused(answer);
  }

  tick() {
    if (this.visible === "order") {
      const left = Date.parse(this.hold.expires_at) - this.now();
      this.showClock("hold", left, this.held, `left to order ${units(this.hold.qty)}`);
      if (left <= 0) this.alone(() => this.lapse());
    } else if (this.visible === "pay") {
      const due = Date.parse(this.bought.payment_due_at);
      const left = due - this.now();
      this.showClock("due", left, due - Date.parse(this.bought.created_at), "left to pay");
      if (left <= 0) this.watchOrder();
    }
    if (this.watching && this.bought && Date.now() - (this.asked ?? 0) > 1000) this.watchOrder();
  }

  /** The order can change without this page: it becomes overdue, or another client sends the webhook. */
  watchOrder() {
    this.asked = Date.now();
    this.alone(async () => {
      const before = this.bought.status;
      if (!(await this.askOrder(this.bought.order_id)) || this.bought.status === before) return;
      this.watching = false;
      this.showOrder();
      if (this.bought.status === "paid") this.say("good", `Order ${this.bought.order_id} is paid.`, "");
      else this.say("bad", `${REASONS[this.bought.cancel_reason]}.`, "Its units are back on sale.");
    });
  }

  showClock(name, left, whole, what) {
    const seconds = Math.max(0, Math.ceil(left / 1000));
    const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if ($(`${name}-left`).textContent !== text) $(`${name}-left`).textContent = text;
    $(`${name}-what`).textContent = what;
    $(`${name}-left`).parentElement.classList.toggle("short", seconds <= 15);
    $(`${name}-meter`).style.transform = `scaleX(${Math.min(1, Math.max(0, left / whole)).toFixed(3)})`;
    // Screen readers announce 30 and 10 seconds only.
    const mark = seconds <= 10 ? 10 : seconds <= 30 ? 30 : null;
    if (mark && this.announced !== `${name} ${mark}` && seconds > mark - 2 && !this.lapsing) {
      this.announced = `${name} ${mark}`;
      this.say("", `${seconds} seconds left.`, "");
    }
  }

  step(name) {
    const shown = $(this.visible ?? "reserve");
    const moved = name !== this.visible && shown.contains(document.activeElement);
    this.visible = name;
    for (const each of STEPS) $(each).hidden = each !== name;
    for (const item of document.querySelectorAll(".steps li")) {
      const at = STEPS.indexOf(item.dataset.step) - STEPS.indexOf(name);
      item.toggleAttribute("data-past", at < 0);
      if (at === 0) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    if (name !== "pay") this.watching = false;
    $("signed").hidden = true;
    this.tick();
    // The focused button is hidden: move the focus to the new step.
    if (moved) $(name).querySelector("h3").focus({ preventScroll: true });
  }

  /** Other tabs follow: they show the same hold, and what became of its order. */
  keep() {
    browser.set(this.place, this.hold && { hold_id: this.hold.hold_id, order_status: this.bought?.status });
    this.kept = browser.text(this.place);
  }

  /** Send a request with an idempotency key; after a response that never came, with the same one. */
  post(name, path, body, why) {
    const lost = unanswered(name);
    const isSame = lost?.path === path && JSON.stringify(lost.body) === JSON.stringify(body);
    return call("POST", path, { body, why, keep: name, key: isSame ? lost.key : randomKey() });
  }

  refused(answer) {
    const { id, name } = this.product;
    const [title, text] = explain(answer);
    this.say("bad", title, text.replace(new RegExp(`[Pp]roduct ${id}\\b|^The product\\b`, "g"), () => name));
  }

  say(tone, title = "", text = "") {
    const message = $("message");
    message.dataset.tone = tone;
    const bold = document.createElement("b");
    bold.textContent = title;
    message.replaceChildren(...(title ? [bold, ` ${text}`] : []));
  }
}

function units(count) {
  return count === 1 ? "1 unit" : `${count} units`;
}
