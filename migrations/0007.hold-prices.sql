-- depends: 0006.operations

-- Callers wait for the tables until all of it is done, functions included: they must not meet a part.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout, adding-not-nullable-field
-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid

set local role flashsale_owner;

-- A hold keeps the price at which it was placed: its order's amount is that price times the quantity,
-- whatever the product costs by then. Price and currency are one value.
--
-- The currency comes first. A call that began before this migration and goes on after it still runs
-- the functions of the version before, which number the columns of a hold's row: where they take one
-- more column for the number of a request, a text is an error, and a number would not be.
alter table flashsale_data.holds add column currency text, add column price numeric;

-- Prices could not be changed until now.
update flashsale_data.holds h
set currency = p.currency, price = p.price
from flashsale_data.products p
where p.product_id = h.product_id;

alter table flashsale_data.holds alter column currency set not null, alter column price set not null;

-- The ledger has price changes, too.
alter table flashsale_data.events drop constraint events_kind;
alter table flashsale_data.events add constraint events_kind check (kind in (
  'product_created', 'stock_adjusted', 'price_changed',
  'hold_placed', 'hold_released', 'hold_expired',
  'order_created', 'order_paid', 'order_cancelled',
  'payment_stored', 'refund_due', 'amount_mismatch')) not valid;
alter table flashsale_data.events validate constraint events_kind;

reset role;
