-- SA000 is none of them, and no caller ever gets it: internal functions raise and catch it to
-- undo what a block has written or locked, which PL/pgSQL does only for an exception.
create or replace view flashsale.refusals (sqlstate, code, http_status, title) as
values
  ('SA001', 'product_not_found',      404, 'Product not found'),
  ('SA002', 'insufficient_stock',     409, 'Insufficient stock'),
  ('SA003', 'hold_not_found',         404, 'Hold not found'),
  ('SA004', 'hold_expired',           410, 'Hold expired'),
  ('SA005', 'hold_released',          409, 'Hold released'),
  ('SA006', 'hold_already_used',      409, 'Hold already used'),
  ('SA007', 'order_not_found',        404, 'Order not found'),
  ('SA008', 'idempotency_key_reused', 422, 'Idempotency key reused'),
  ('SA009', 'invalid_request',        422, 'Invalid request'),
  ('SA010', 'stock_in_use',           409, 'Stock in use'),
  ('SA011', 'inbox_full',             503, 'Too many unmatched webhooks'),
  ('SA012', 'sale_not_started',       409, 'Sale not started'),
  ('SA013', 'sale_ended',             409, 'Sale ended'),
  ('SA014', 'sale_paused',            409, 'Sale paused'),
  ('SA015', 'sale_cancelled',         410, 'Sale cancelled'),
  ('SA016', 'buyer_required',         422, 'Buyer required'),
  ('SA017', 'limit_reached',          409, 'Limit reached'),
  ('SA018', 'extension_refused',      409, 'Extension refused'),
  ('SA019', 'order_settled',          409, 'Order settled'),
  ('SA020', 'payment_not_found',      404, 'Payment not found'),
  ('SA021', 'refund_too_large',       409, 'Refund too large'),
  ('SA022', 'preview_changed',        409, 'Preview changed'),
  ('SA029', 'wrong_shard',            503, 'Wrong shard'),
  ('SA030', 'not_primary',            503, 'Not the primary');
comment on view flashsale.refusals is 'Every refusal: its SQLSTATE, stable code, HTTP status and title';
revoke all on flashsale.refusals from public;
grant select on flashsale.refusals to flashsale_api;
