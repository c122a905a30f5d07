-- depends: 0013.refunds

-- Callers wait for the table until all of it is done.
-- squawk-ignore-file require-lock-timeout, require-statement-timeout, ban-drop-not-null

set local role flashsale_owner;

-- A provider's refund, void or chargeback can overtake the webhook of the payment that it is about. A payment
-- is here from the first such outcome on, until it comes.
create table flashsale_data.awaited_payments (
  payment_key     text        collate "C" not null,
  first_refund_at timestamptz not null,
  constraint awaited_payments_pkey primary key (payment_key)
);

-- A void returns all that is left of a payment: how much that is, is known when the payment comes.
alter table flashsale_data.refunds alter column amount drop not null;
comment on column flashsale_data.refunds.amount is
  'Null: of a void whose payment has not come, or had nothing left.';

reset role;
