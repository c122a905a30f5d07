// One buyer's checkout: a hold, its order, its payment. The state is always the server's; what is shown of it is in
// checkout_view.js, what the browser remembers of it in memory.js.

import { call, explain } from "./api.js";
import { CheckoutView, units } from "./checkout_view.js";
import { CheckoutMemory, eventFor, keyFor, lastOrder, unanswered } from "./memory.js";
import { clock } from "./plot.js";

export class Checkout {
  /** @param {() => number} now the server's time in milliseconds */
  constructor(now) {
    this.now = now;
    this.view = new CheckoutView();
    this.product = null;
    this.memory = null;
    this.work = null; // the promise of what is in progress
    this.pressed = false; // whether a press is
    this.outdated = false; // the browser remembers something else than is shown
    this.reset();
    this.view.listen((button, act) => this.press(button, act), {
      "do-reserve": () => this.reserve(),
      "do-order": () => this.order(),
      "do-early": () => this.orderPaidEarly(),
      "do-release": () => this.release(),
      "do-lapse": () => this.letLapse(),
      "do-pay": () => this.pay("success"),
      "do-twice": () => this.payTwice(),
      "do-fail": () => this.pay("failed"),
      "do-cancel": () => this.pay("cancelled"),
      "do-repeat": () => this.repeat(),
      "do-more": () => this.pay("success"),
      "do-again": () => this.startAgain(),
    });
    setInterval(() => this.tick(), 200);
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
    this.memory?.close();
    this.memory = new CheckoutMemory(product.id, () => this.refresh());
    this.reset();
    this.view.say("");
    this.step("reserve");
    this.refresh();
  }

  /** The page is visible again: other tabs and the server may have gone on. */
  wake() {
    if (!this.product) return;
    if (this.memory.stale) this.refresh();
    else if (this.view.visible === "pay") this.watchOrder();
  }

  /** Restore the checkout, now or after the action in progress. */
  refresh() {
    if (this.work) this.outdated = true;
    else this.alone(() => this.restore());
  }

  /** Restore the browser's hold or order of the product, and repeat a request whose answer never came. */
  async restore() {
    this.view.busy();
    try {
      await this.restoreHold();
    } finally {
      if (!this.pressed) this.view.idle();
    }
  }

  async restoreHold() {
    const { product, memory } = this;
    const lost = unanswered(`hold ${product.id}`);
    if (lost) {
      this.view.quantity = lost.body.qty;
      return this.placeHold(lost.body, "The response to this request never came: the same again, with the same key.");
    }
    const hold_id = memory.read();
    const { ok, status, body } = hold_id ? await call("GET", `/api/holds/${hold_id}`, { quiet: true }) : { ok: false };
    if (this.product !== product) return;
    if (!ok) {
      if (hold_id ? status === 404 : this.hold) this.startAgain();
      else if (hold_id) memory.doubt(); // the next wake() tries again
      return;
    }
    if (this.hold?.hold_id !== hold_id) {
      this.reset();
      this.step("reserve");
      this.view.say("");
    }
    this.setHold(body);
    if (body.order) {
      if (!(await this.askOrder(body.order.order_id)) || this.product !== product) return;
      this.showOrder();
      const lostEvent = unanswered(`payment ${body.order.order_id}`)?.body;
      if (lostEvent && eventFor(this.bought, lostEvent.status).idempotency_key === lostEvent.idempotency_key) {
        await this.pay(lostEvent.status);
      }
    } else if (body.status === "active") {
      this.step("order");
      if (unanswered(`order ${product.id}`)?.body.hold_id === hold_id) await this.order();
    } else this.startAgain();
  }

  /** Act on a press, and show that until the responses have come. A second press meanwhile is ignored. */
  async press(button, act) {
    if (this.pressed || !this.product) return;
    const { product } = this;
    const { visible } = this.view;
    this.pressed = true;
    this.view.busy(button);
    try {
      while (this.work) await this.work; // what the page asks by itself
      if (this.product === product && this.view.visible === visible) await this.alone(act);
    } finally {
      this.pressed = false;
      this.view.idle();
    }
  }

  /** Act, unless something is in progress. */
  async alone(act) {
    if (this.work || !this.product) return;
    const acting = (async () => act())();
    this.work = acting.catch(() => {});
    try {
      await acting;
    } finally {
      this.work = null;
      if (this.outdated) {
        this.outdated = false;
        this.refresh();
      }
    }
  }

  async reserve() {
    const body = { product_id: this.product.id, qty: this.view.quantity };
    const lost = unanswered(`hold ${this.product.id}`);
    if (lost && JSON.stringify(lost.body) !== JSON.stringify(body)) {
      // It may have reserved units: reserve no further ones before that is known.
      const answer = await this.placeHold(lost.body, "First the request whose response never came, with the same key.");
      if (answer.ok || !answer.known) return;
    }
    await this.placeHold(body, "Reserve units for a while.");
  }

  async placeHold(body, why) {
    const { product, memory } = this;
    const answer = await this.post(`hold ${product.id}`, "/api/holds", body, why);
    const hold = answer.body;
    if (this.product !== product) {
      if (answer.ok) memory.write(hold);
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
      this.view.say("good", `Reserved ${units(hold.qty)}.`, `Yours until ${clock(Date.parse(hold.expires_at))}.`);
    } else {
      // A replay shows the hold as it is now.
      this.startAgain();
      this.view.say("bad", `Hold ${hold.status}.`, `It had ${units(hold.qty)}. Reserve again.`);
    }
    return answer;
  }

  setHold(hold) {
    this.hold = hold;
    this.held = Math.max(this.held, Date.parse(hold.expires_at) - this.now());
    this.view.announced = null;
  }

  async order() {
    const answer = await this.post(`order ${this.product.id}`, "/api/orders", { hold_id: this.hold.hold_id }, "The hold becomes an order.");
    if (!answer.ok) return this.lostHold(answer);
    await this.setOrder(answer.body);
    this.showOrder();
    if (answer.body.status === "pending_payment") {
      this.view.say("good", `Order ${answer.body.order_id}.`, `It awaits ${answer.body.amount} ${answer.body.currency}.`);
    }
  }

  /** Send the payment before its order: the server stores the webhook, and applies it when the order is created. */
  async orderPaidEarly() {
    let last = lastOrder.get();
    if (!last) {
      // Order ids are sequential: a trial order, cancelled at once, shows the current one.
      const trial = await this.post(`trial hold ${this.product.id}`, "/api/holds", { product_id: this.product.id, qty: 1 }, "To find the current order id: a trial hold…");
      if (!trial.ok) return this.refused(trial);
      const order = await this.post(`trial order ${this.product.id}`, "/api/orders", { hold_id: trial.body.hold_id }, "…which becomes a trial order…");
      if (!order.ok) return this.refused(order);
      const given = await this.send(eventFor(order.body, "cancelled"), "…whose payment is cancelled: its unit is available again.");
      if (!given.ok) return this.webhookRefused(given, null);
      last = order.body.order_id;
    }
    const next = last + 1;
    const amount = ((Math.round(Number(this.product.price) * 1000) * this.hold.qty) / 1000).toFixed((this.product.price.split(".")[1] ?? "").length);
    const expected = { order_id: next, amount, currency: this.product.currency };
    const early = await this.send(eventFor(expected, "success"), `The payment of order ${next}, which does not exist yet: stored.`);
    if (!early.ok) return this.webhookRefused(early, null);
    const answer = await this.post(`order ${this.product.id}`, "/api/orders", { hold_id: this.hold.hold_id }, "Now the order. The stored webhook is applied as it is created.");
    if (!answer.ok) return this.lostHold(answer);
    await this.setOrder(answer.body);
    this.showOrder();
    if (answer.body.status === "paid") this.view.say("good", `Order ${next} was paid as it was created.`, "The webhook had come first.");
    else this.view.say("bad", "Another buyer was faster.", `Order ${next} belongs to another buyer; yours is ${answer.body.order_id}.`);
  }

  async release() {
    const { hold_id, qty } = this.hold;
    const answer = await call("DELETE", `/api/holds/${hold_id}`, { why: "Release the hold." });
    if (!answer.ok) return this.lostHold(answer);
    this.startAgain();
    this.view.say("good", `Released ${units(qty)}.`, "They are back on sale.");
  }

  letLapse() {
    this.lapsing = !this.lapsing;
    this.view.lapsing(this.lapsing);
    if (this.lapsing) this.view.say("", "Waiting for the hold to lapse.", "Then this page tries to order with it all the same.");
    else this.view.say("", "Not waiting any more.");
  }

  /** The hold should have expired; the server decides. */
  async lapse() {
    const { hold_id, qty } = this.hold;
    const answer = await call("GET", `/api/holds/${hold_id}`, { why: "The hold should have expired: ask the server.", quiet: true });
    if (!answer.ok || answer.body.status === "active") return;
    if (this.lapsing) await this.post(`order ${this.product.id}`, "/api/orders", { hold_id }, "An order with a hold that has lapsed: refused.");
    else await call("GET", `/api/holds/${hold_id}`, { why: "The hold should have expired: ask the server." });
    this.startAgain();
    this.view.say("bad", "Hold expired.", `${qty === 1 ? "Its unit is" : `All its ${qty} units are`} available again since that instant.`);
  }

  async pay(status) {
    const why = { success: "The provider reports a successful payment.", failed: "The provider reports a failure.", cancelled: "The provider reports that the buyer cancelled." };
    const answer = await this.send(eventFor(this.bought, status), why[status]);
    if (!answer.ok) return this.webhookRefused(answer, this.bought.order_id, status);
    await this.settled(answer);
  }

  async payTwice() {
    const event = eventFor(this.bought, "success");
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
    if (answer.replayed) this.view.say("good", "The replay changed nothing.", `The response is the recorded result (Idempotency-Replayed: true). Order ${order.order_id} is ${order.status}, once.`);
    else if (result === "refund_due") this.view.say("bad", "Refund due.", `Order ${order.order_id} is ${order.status === "paid" ? "paid already" : "cancelled"}, so this payment is recorded as a refund due.`);
    else if (result === "amount_mismatch") this.view.say("bad", "The amount differs from the order’s.", "The order is unchanged; the webhook is recorded.");
    else this.view.sayOrder(order);
  }

  /** A webhook was refused. If it has no valid signature, show how to send it. orderId null: for the next order. */
  webhookRefused(answer, orderId, status, more = "") {
    this.refused(answer);
    if (answer.body?.code !== "invalid_signature") return;
    this.view.signedCommand(orderId, status, more);
    this.watching = orderId !== null;
  }

  async setOrder(order) {
    this.bought = order;
    lastOrder.set(order.order_id);
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
    if (order.status !== "pending_payment") this.watching = false;
    this.view.order(order, this.webhook?.order_id === order.order_id);
    this.tick();
  }

  startAgain() {
    this.reset();
    this.keep();
    this.view.lapsing(false);
    this.step("reserve");
    this.view.say("");
  }

  /** The hold cannot be ordered any more. */
  lostHold(answer) {
    const gone = ["hold_expired", "hold_released", "hold_not_found"].includes(answer.body?.code);
    if (gone) this.startAgain();
    this.refused(answer);
  }

  tick() {
    if (this.view.visible === "order") {
      const left = Date.parse(this.hold.expires_at) - this.now();
      this.view.clock("hold", left, this.held, `left to order ${units(this.hold.qty)}`, !this.lapsing);
      if (left <= 0) this.alone(() => this.lapse());
    } else if (this.view.visible === "pay") {
      const due = Date.parse(this.bought.payment_due_at);
      const left = due - this.now();
      this.view.clock("due", left, due - Date.parse(this.bought.created_at), "left to pay", true);
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
      this.view.sayOrder(this.bought);
    });
  }

  step(name) {
    this.watching = false;
    this.view.step(name);
    this.tick();
  }

  /** Other tabs follow: they show the same hold, and what became of its order. */
  keep() {
    this.memory.write(this.hold, this.bought);
  }

  /** Send a request with an idempotency key; after a response that never came, with the same one. */
  post(name, path, body, why) {
    return call("POST", path, { body, why, keep: name, key: keyFor(name, path, body) });
  }

  refused(answer) {
    this.view.say("bad", ...explain(answer, this.product));
  }
}
