// What the checkout shows: its steps, their clocks, a request in progress, and the message about the last one.

import { countdown, units } from "./words.js";

const STEPS = ["reserve", "order", "pay", "done"];
const REASONS = {
  payment_failed: "The payment failed",
  payment_cancelled: "The payment was cancelled",
  payment_overdue: "The payment was overdue",
  buyer_cancelled: "You gave it back",
  shop_cancelled: "The shop cancelled it",
  sale_cancelled: "The sale was cancelled",
};
const BY_SHOP = ["shop_cancelled", "sale_cancelled"];
const REVIVABLE = ["payment_failed", "payment_overdue"];
const $ = (id) => document.getElementById(id);

const BUTTONS = "#steps button, #tests button";
const LONG_WAIT = 1000; // milliseconds until the page says that it waits

export class CheckoutView {
  constructor() {
    this.visible = null; // the step that is shown
    this.announced = null; // the last time left that was announced
    this.pressed = null; // the button whose requests are in progress
    this.most = null; // units that can be reserved; null: no limit
    $("qty").addEventListener("change", () => this.bound());
    $("fewer").addEventListener("click", () => this.changeQuantity(-1));
    $("more").addEventListener("click", () => this.changeQuantity(+1));
  }

  /** @param {(button: HTMLElement, act: () => any) => void} press @param {Record<string, () => any>} actions by the id of their button */
  listen(press, { "do-reserve": reserve, ...actions }) {
    $("reserve-form").addEventListener("submit", (event) => {
      event.preventDefault();
      press($("do-reserve"), reserve);
    });
    for (const [id, act] of Object.entries(actions)) $(id).addEventListener("click", ({ currentTarget }) => press(currentTarget, act));
  }

  changeQuantity(by) {
    const qty = Number($("qty").value) || 0;
    $("qty").value = Math.max(1, qty + by);
    this.bound();
  }

  /** @param {boolean} isOpen whether units can be reserved @param {number | null} most how many; null: no limit */
  offer(isOpen, most) {
    this.most = most;
    $("do-reserve").disabled = !isOpen || most === 0; // guard: page-closed
    this.bound();
  }

  /** No more than the buyer may have. */
  bound() {
    if (this.most !== null && this.quantity > this.most) this.quantity = Math.max(1, this.most); // guard: page-bounds-quantity
  }

  /** A number if it is one; other text is sent as it is: the server's response explains the error. */
  get quantity() {
    const text = $("qty").value.trim();
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  }

  set quantity(qty) {
    $("qty").value = qty;
  }

  /** A request is in progress: of a button, or one that the page repeats by itself. */
  busy(button = null) {
    if (button) {
      this.pressed = button;
      button.setAttribute("data-pressed", "");
    }
    for (const part of [$("steps"), $("tests")]) part.setAttribute("aria-busy", "true");
    for (const each of document.querySelectorAll(BUTTONS)) each.setAttribute("aria-disabled", "true");
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => ($("waiting").textContent = "Waiting for the server…"), LONG_WAIT);
  }

  idle() {
    clearTimeout(this.waiting);
    $("waiting").textContent = "";
    for (const each of document.querySelectorAll(BUTTONS)) each.removeAttribute("aria-disabled");
    for (const part of [$("steps"), $("tests")]) part.removeAttribute("aria-busy");
    if (!this.pressed) return;
    this.pressed.removeAttribute("data-pressed");
    this.pressed = null;
    // On a small screen: the result of the press, and what comes next.
    for (const part of [$("message"), $(this.visible).querySelector(".primary"), $(this.visible).querySelector("h2")]) {
      part.scrollIntoView({ block: "nearest" }); // guard: page-next-in-sight
    }
  }

  step(name) {
    const { activeElement } = document;
    const moved = name !== this.visible && (this.pressed !== null || $("steps").contains(activeElement) || $("tests").contains(activeElement));
    this.visible = name;
    for (const each of STEPS) $(each).hidden = each !== name;
    for (const button of $("tests").querySelectorAll("[data-step] button")) button.disabled = button.closest("[data-step]").dataset.step !== name;
    for (const item of document.querySelectorAll(".steps li")) {
      const at = STEPS.indexOf(item.dataset.step) - STEPS.indexOf(name);
      item.toggleAttribute("data-past", at < 0);
      if (at === 0) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    $("signed").hidden = true;
    // The focused button is hidden or disabled: move the focus to the new step.
    if (moved) $(name).querySelector("h2").focus({ preventScroll: true });
  }

  /** Show the order's step. @param {boolean} repeatable whether its last webhook can be sent again */
  order(order, repeatable) {
    if (order.status === "pending_payment") {
      $("pay-title").textContent = `Order ${order.order_id}: ${order.amount} ${order.currency}`;
      return this.step("pay");
    }
    const paid = order.status === "paid";
    $("done-title").textContent = paid ? `Order ${order.order_id} is paid` : `Order ${order.order_id} is cancelled`;
    $("done-what").textContent = paid
      ? `${units(order.qty)} for ${order.amount} ${order.currency}.`
      : BY_SHOP.includes(order.cancel_reason)
        ? `${REASONS[order.cancel_reason]}. What was paid for its ${units(order.qty)} is paid back.`
        : `${REASONS[order.cancel_reason]}. ${units(order.qty)} went back on sale.`;
    $("do-more").textContent = paid ? "Pay a second time" : "Pay after all";
    $("done-hint").textContent = paid
      ? "A second payment with another key is a refund due."
      : REVIVABLE.includes(order.cancel_reason)
        ? "A late payment takes its units again if there are any; otherwise it is a refund due."
        : "An order that the buyer or the shop has cancelled stays so: a later payment is a refund due.";
    this.step("done");
    $("do-repeat").disabled = !repeatable;
  }

  lapsing(lapsing) {
    $("do-lapse").setAttribute("aria-pressed", String(lapsing));
  }

  /** Offer to extend the hold. */
  extendable(isOffered) {
    const button = $("do-extend");
    if (button.hidden === !isOffered) return;
    const isFocused = button === document.activeElement;
    button.hidden = !isOffered;
    if (isFocused) $("order").querySelector("h2").focus({ preventScroll: true });
  }

  /** Show how to send a signed webhook. orderId null: for the next order. */
  signedCommand(orderId, status, more = "") {
    const which = orderId === null ? "--early" : `--order ${orderId} --status ${status}`;
    const where = ["127.0.0.1:8000", "localhost:8000"].includes(location.host) ? "" : `--url ${location.origin}`;
    const words = [".venv/bin/flashsale webhook send", which, more, where];
    $("signed-command").textContent = words.filter(Boolean).join(" ");
    $("signed-next").textContent = orderId === null ? "Then press Order." : "This page shows it when it has arrived.";
    $("signed").hidden = false;
  }

  /** @param {"hold" | "due"} name @param {boolean} announces whether screen readers hear of its end */
  clock(name, left, whole, what, announces) {
    const seconds = Math.max(0, Math.ceil(left / 1000));
    const text = countdown(left);
    if ($(`${name}-left`).textContent !== text) $(`${name}-left`).textContent = text;
    $(`${name}-what`).textContent = what;
    $(`${name}-left`).parentElement.classList.toggle("short", seconds <= 15);
    $(`${name}-meter`).style.transform = `scaleX(${Math.min(1, Math.max(0, left / whole)).toFixed(3)})`;
    // Screen readers announce 30 and 10 seconds only.
    const mark = seconds <= 10 ? 10 : seconds <= 30 ? 30 : null;
    if (mark && this.announced !== `${name} ${mark}` && seconds > mark - 2 && announces) {
      this.announced = `${name} ${mark}`;
      this.say("", `${seconds} seconds left.`);
    }
  }

  say(tone, title = "", text = "") {
    const message = $("message");
    message.dataset.tone = tone;
    const bold = document.createElement("b");
    bold.textContent = title;
    message.replaceChildren(...(title ? [bold, ` ${text}`] : []));
  }

  /** Say what has become of the order. */
  sayOrder(order) {
    if (order.status === "paid") this.say("good", `Order ${order.order_id} is paid.`);
    else if (order.status === "cancelled") {
      this.say(order.cancel_reason === "buyer_cancelled" ? "good" : "bad", `${REASONS[order.cancel_reason]}.`, BY_SHOP.includes(order.cancel_reason) ? "What was paid is paid back." : "Its units are back on sale.");
    }
  }
}
