// One buyer's checkout: a hold, its order, its payment. The state is always the server's; what is shown of it is in
// checkout_view.js, what the browser remembers of it in memory.js, and what a payment provider does in provider.js.

import { call, explain } from "./api.js";
import { CheckoutView } from "./checkout_view.js";
import { CheckoutMemory, eventFor, keyFor, lastOrder, unanswered } from "./memory.js";
import { Provider } from "./provider.js";
import { clock, units } from "./words.js";

const LITTLE_TIME = 30_000; // milliseconds in which a hold can be extended before it expires

export class Checkout {
  /** @param {ServerClock} clock @param {Sale} sale */
  constructor(clock, sale) {
    this.clock = clock;
    this.sale = sale;
    this.view = new CheckoutView();
    this.provider = new Provider(this);
    this.product = null;
    this.memory = null;
    this.work = null; // the promise of what is in progress
    this.pressed = false; // whether a press is
    this.outdated = false; // the browser remembers something else than is shown
    this.reset();
    this.view.listen((button, act) => this.press(button, act), {
      "do-reserve": () => this.reserve(),
      "do-order": () => this.order(),
      "do-early": () => this.provider.payEarly(),
      "do-extend": () => this.extend(),
      "do-release": () => this.release(),
      "do-lapse": () => this.letLapse(),
      "do-pay": () => this.provider.report("success"),
      "do-abandon": () => this.abandon(),
      "do-twice": () => this.provider.payTwice(),
      "do-decline": () => this.provider.report("declined"),
      "do-fail": () => this.provider.report("failed"),
      "do-cancel": () => this.provider.report("cancelled"),
      "do-repeat": () => this.provider.repeat(),
      "do-more": () => this.provider.report("success"),
      "do-again": () => this.startAgain(),
    });
    setInterval(() => this.tick(), 200);
  }

  reset() {
    this.hold = null;
    this.held = 0; // duration of the hold in milliseconds, for its meter
    this.bought = null; // the order
    this.provider.webhook = null;
    this.isFinal = false; // the hold cannot be extended any more
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
    this.offer();
    this.refresh();
  }

  /** The terms of the sale have changed, or what the buyer may have. */
  termsChanged(terms, before) {
    if (this.product?.id !== this.sale.product.id) return; // show() follows
    this.offer();
    // Holds and orders of a cancelled sale are the shop's again.
    if (before && before.sale_status !== terms.sale_status && terms.sale_status === "cancelled") this.refresh();
  }

  /** Bound what can be reserved; a request whose response never came can be repeated whatever the terms are by now. */
  offer() {
    const isLost = unanswered(`hold ${this.product.id}`) !== null;
    this.view.offer(isLost || this.sale.isOpen, isLost ? null : this.sale.most); // guard: page-repeats-lost
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
    const shown = this.view.visible;
    if (body.order) {
      const before = this.bought?.status;
      if (!(await this.askOrder(body.order.order_id)) || this.product !== product) return;
      this.showOrder();
      if (before && before !== this.bought.status) this.view.sayOrder(this.bought);
      const lostEvent = unanswered(`payment ${body.order.order_id}`)?.body;
      if (lostEvent && eventFor(this.bought, lostEvent.status).idempotency_key === lostEvent.idempotency_key) {
        await this.provider.report(lostEvent.status);
      }
    } else if (body.status === "active") {
      this.step("order");
      if (unanswered(`order ${product.id}`)?.body.hold_id === hold_id) await this.order();
    } else {
      this.startAgain();
      if (shown === "order") this.view.say("bad", `Hold ${body.status}.`, "Its units are not yours any more.");
    }
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
      this.offer();
      if (this.outdated) {
        this.outdated = false;
        this.refresh();
      }
    }
  }

  async reserve() {
    const body = await this.wanted(this.view.quantity);
    const lost = unanswered(`hold ${this.product.id}`);
    if (lost && JSON.stringify(lost.body) !== JSON.stringify(body)) {
      // It may have reserved units: reserve no further ones before that is known.
      const answer = await this.placeHold(lost.body, "First the request whose response never came, with the same key.");
      if (answer.ok || !answer.known) return;
    }
    await this.placeHold(body, "Reserve units for a while.");
  }

  /** The request for a hold. */
  async wanted(qty) {
    const buyer = await this.sale.buyer();
    return { product_id: this.product.id, qty, ...(buyer && { buyer }) };
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
    this.held = Math.max(this.held, Date.parse(hold.expires_at) - this.clock.now());
    this.view.announced = null;
  }

  async order() {
    const order = await this.placeOrder("The hold becomes an order.");
    if (order?.status === "pending_payment") this.view.say("good", `Order ${order.order_id}.`, `It awaits ${order.amount} ${order.currency}.`);
  }

  /** @returns {Promise<object | undefined>} the order as it was created */
  async placeOrder(why) {
    const answer = await this.post(`order ${this.product.id}`, "/api/orders", { hold_id: this.hold.hold_id }, why);
    if (!answer.ok) return this.lostHold(answer);
    this.bought = answer.body;
    lastOrder.set(answer.body.order_id);
    await this.askOrder(answer.body.order_id);
    this.showOrder();
    return answer.body;
  }

  /** Extend the hold beyond the end that the page has seen: a repetition does not extend it twice. */
  async extend() {
    const { hold_id, expires_at } = this.hold;
    const answer = await call("POST", `/api/holds/${hold_id}/extension`, { body: { expires_at }, why: "Keep the hold longer than until the end that this page has seen." });
    if (answer.ok) {
      this.setHold(answer.body);
      this.keep();
      this.tick();
      return this.view.say("good", "Extended.", `Yours until ${clock(Date.parse(answer.body.expires_at))}.`);
    }
    if (answer.body?.code === "extension_refused") {
      this.isFinal = true;
      this.setHold({ ...this.hold, expires_at: answer.body.expires_at });
      this.tick();
    } else if (answer.body?.code === "hold_already_used") this.refresh();
    this.lostHold(answer);
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

  /** The hold should have expired; the server decides, as another client may have extended it. */
  async lapse() {
    const { hold_id, qty } = this.hold;
    const answer = await call("GET", `/api/holds/${hold_id}`, { why: "The hold should have expired: ask the server.", quiet: true });
    if (answer.body?.status === "active") this.setHold(answer.body); // guard: page-hold-goes-on
    if (!answer.ok || answer.body.status === "active") return;
    if (this.lapsing) await this.post(`order ${this.product.id}`, "/api/orders", { hold_id }, "An order with a hold that has lapsed: refused.");
    else await call("GET", `/api/holds/${hold_id}`, { why: "The hold should have expired: ask the server." });
    this.startAgain();
    this.view.say("bad", "Hold expired.", `${qty === 1 ? "Its unit is" : `All its ${qty} units are`} available again since that instant.`);
  }

  /** Give the pending order back. */
  async abandon() {
    const { order_id } = this.bought;
    const answer = await call("DELETE", `/api/orders/${order_id}?hold_id=${this.hold.hold_id}`, { why: "Give the order back: its units are available at once." });
    const isPaid = answer.body?.code === "order_settled";
    if (!answer.ok && !isPaid) return this.refused(answer);
    await this.askOrder(order_id);
    this.showOrder();
    if (isPaid) this.refused(answer);
    else this.view.sayOrder(this.bought);
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
    this.view.order(order, this.provider.webhook?.order_id === order.order_id);
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
      const left = Date.parse(this.hold.expires_at) - this.clock.now();
      this.view.clock("hold", left, this.held, `left to order ${units(this.hold.qty)}`, !this.lapsing);
      this.view.extendable(left <= LITTLE_TIME && !this.isFinal);
      if (left <= 0) this.alone(() => this.lapse());
    } else if (this.view.visible === "pay") {
      const due = Date.parse(this.bought.payment_due_at);
      const left = due - this.clock.now();
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
    this.sale.askAllowance();
  }

  /** Send a request with an idempotency key; after a response that never came, with the same one. */
  post(name, path, body, why) {
    return call("POST", path, { body, why, keep: name, key: keyFor(name, path, body) });
  }

  refused(answer) {
    this.sale.refused(answer);
    this.view.say("bad", ...explain(answer, this.product));
  }
}
