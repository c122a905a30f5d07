// A purchase with the client that openapi-typescript and openapi-fetch make: node buy.js URL SECRET

import { createHmac, randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [url = "", secret = ""] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

function expect(isTrue: boolean, what: unknown): asserts isTrue {
  if (!isTrue) throw new Error(JSON.stringify(what));
}

function sign(text: string) {
  const id = `msg_${randomUUID()}`;
  const timestamp = String(Math.floor(Date.now() / 1000));
  const key = Buffer.from(secret.replace("whsec_", ""), "base64");
  const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${text}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": `v1,${signature}` };
}

const product = await client.GET("/api/products/{product_id}", { params: { path: { product_id: 1 } } });
expect(product.data !== undefined, product.error);

const header = { "Idempotency-Key": randomUUID() };
const body = { product_id: product.data.id, qty: 2 };
const hold = await client.POST("/api/holds", { params: { header }, body });
expect(hold.data !== undefined, hold.error);
const replay = await client.POST("/api/holds", { params: { header }, body });
expect(replay.data?.hold_id === hold.data.hold_id, replay);
const { hold_id } = hold.data;

const order = await client.POST("/api/orders", { body: { hold_id } });
expect(order.data !== undefined, order.error);
const { order_id, amount, currency } = order.data;

const again = await client.POST("/api/orders", { body: { hold_id } });
expect(again.error?.code === "hold_already_used", again);
const existing: number = again.error.order_id;
const status: "pending_payment" | "paid" | "cancelled" = again.error.order_status;
expect(existing === order_id && status === "pending_payment", again.error);

const tooMany = await client.POST("/api/holds", { body: { product_id: 1, qty: 1000 } });
expect(tooMany.error?.code === "insufficient_stock", tooMany);

const event: components["schemas"]["PaymentEvent"] = {
  idempotency_key: `pay_${randomUUID()}:success`,
  order_id,
  status: "success",
  amount,
  currency,
  payment_method: "card", // a member that the document does not name
};
const text = JSON.stringify(event);
const payment = await client.POST("/api/payments/webhook", {
  params: { header: sign(text) },
  body: event,
  bodySerializer: () => text,
});
expect(payment.data?.result === "applied", payment);

const forged = await client.POST("/api/payments/webhook", { params: { header: sign("other") }, body: event });
expect(forged.error?.code === "invalid_signature", forged);

const paid = await client.GET("/api/orders/{order_id}", { params: { path: { order_id }, query: { hold_id } } });
expect(paid.data !== undefined, paid.error);
console.log(JSON.stringify({ order_id: paid.data.order_id, qty: paid.data.qty, status: paid.data.status }));
