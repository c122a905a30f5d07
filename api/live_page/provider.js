// The payment provider, which the page plays: it sends the webhooks of an order in time, early, twice, and of declined cards.

import { call } from "./api.js";
import { eventFor, lastOrder } from "./memory.js";
import { moment } from "./words.js";

const REPORTS = {
  success: "The provider reports a successful payment.",
  declined: "The provider reports that the card was declined: the order stays pending.",
  failed: "The provider reports a failure.",
  cancelled: "The provider reports that the buyer cancelled.",
};

export class Provider {
  /** @param {Checkout} checkout whose order is paid */
  constructor(checkout) {
    this.checkout = checkout;
    this.view = checkout.view;
    this.webhook = null; // the last one that was accepted
  }

  async send(event, why) {
    const answer = await call("POST", "/api/payments/webhook", { body: event, why, keep: `payment ${event.order_id}` });
    if (answer.ok) this.webhook = event;
    return answer;
  }

  async report(status) {
    const order = this.checkout.bought;
    const answer = await this.send(eventFor(order, status), REPORTS[status]);
    if (!answer.ok) return this.refused(answer, order.order_id, status);
    await this.settled(answer);
  }

  async payTwice() {
    const order = this.checkout.bought;
    const event = eventFor(order, "success");
    const first = await this.send(event, "The provider reports the payment…");
    if (!first.ok) return this.refused(first, order.order_id, "success", "--times 2");
    const second = await this.send(event, "…and reports it again, with the same key: a replay, with no second effect.");
    await this.settled(second.ok ? second : first);
  }

  async repeat() {
    const answer = await this.send(this.webhook, "The same webhook once more: a replay, answered as before.");
    if (!answer.ok) return this.checkout.refused(answer);
    await this.settled(answer);
  }

  /** Send the payment before its order: the server stores the webhook, and applies it when the order is created. */
  async payEarly() {
    const { product, hold } = this.checkout;
    let last = lastOrder.get();
    if (!last) {
      // Order ids are sequential: a trial order, cancelled at once, shows the current one.
      const trial = await this.checkout.post(`trial hold ${product.id}`, "/api/holds", await this.checkout.wanted(1), "To find the current order id: a trial hold…");
      if (!trial.ok) return this.checkout.refused(trial);
      const order = await this.checkout.post(`trial order ${product.id}`, "/api/orders", { hold_id: trial.body.hold_id }, "…which becomes a trial order…");
      if (!order.ok) return this.checkout.refused(order);
      const given = await this.send(eventFor(order.body, "cancelled"), "…whose payment is cancelled: its unit is available again.");
      if (!given.ok) return this.refused(given, null);
      last = order.body.order_id;
    }
    const next = last + 1;
    const amount = ((Math.round(Number(product.price) * 1000) * hold.qty) / 1000).toFixed((product.price.split(".")[1] ?? "").length);
    const expected = { order_id: next, amount, currency: product.currency };
    const early = await this.send(eventFor(expected, "success"), `The payment of order ${next}, which does not exist yet: stored.`);
    if (!early.ok) return this.refused(early, null);
    const order = await this.checkout.placeOrder("Now the order. The stored webhook is applied as it is created.");
    if (!order) return;
    if (order.status === "paid") this.view.say("good", `Order ${next} was paid as it was created.`, "The webhook had come first.");
    else this.view.say("bad", "Another buyer was faster.", `Order ${next} belongs to another buyer; yours is ${order.order_id}.`);
  }

  /** Show what the webhook that was sent last has done. */
  async settled(answer) {
    await this.checkout.askOrder(this.checkout.bought.order_id);
    this.checkout.showOrder();
    const { result } = answer.body;
    const order = this.checkout.bought;
    if (this.webhook.status === "declined" && order.status === "pending_payment") {
      const until = moment(Date.parse(order.payment_due_at), this.checkout.clock.now());
      this.view.say("bad", "The card was declined.", `Order ${order.order_id} stays pending until ${until}: pay it with another card.`);
    } else if (answer.replayed) this.view.say("good", "The replay changed nothing.", `The response is the recorded result (Idempotency-Replayed: true). Order ${order.order_id} is ${order.status}, once.`);
    else if (result === "refund_due") this.view.say("bad", "Refund due.", `Order ${order.order_id} is ${order.status === "paid" ? "paid already" : "cancelled"}, so this payment is recorded as a refund due.`);
    else if (result === "amount_mismatch") this.view.say("bad", "The amount differs from the order’s.", "The order is unchanged; the webhook is recorded.");
    else this.view.sayOrder(order);
  }

  /** A webhook was refused. If it has no valid signature, show how to send it. orderId null: for the next order. */
  refused(answer, orderId, status, more = "") {
    this.checkout.refused(answer);
    if (answer.body?.code !== "invalid_signature") return;
    this.view.signedCommand(orderId, status, more);
    this.checkout.watching = orderId !== null;
  }
}
