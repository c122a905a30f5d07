-- depends: 0005.rejected-webhooks
-- squawk-ignore-file prefer-bigint-over-int, require-lock-timeout, require-statement-timeout

set local role flashsale_owner;

-- What an operator's idempotency key has done, so that a repetition after a lost answer adds nothing
-- and gets the same answer. Kept until purge().
create table flashsale_data.operations (
  operation       text        not null,
  idempotency_key text        not null,
  arguments       jsonb       not null,
  product_id      bigint      not null,
  total_stock     int,
  available_stock int,
  done_at         timestamptz not null,
  constraint operations_pkey primary key (operation, idempotency_key),
  constraint operations_product_fkey foreign key (product_id) references flashsale_data.products,
  constraint operations_idempotency_key check (length(idempotency_key) between 1 and 255)
);
comment on column flashsale_data.operations.operation is 'The function that was called.';
comment on column flashsale_data.operations.total_stock is 'With available_stock: what adjust_stock() has returned.';

reset role;
