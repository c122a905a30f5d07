-- What is wrong with a webhook itself, as a sentence; null if nothing is. amount and currency may be
-- null, which is as if they were absent; currency may be in either case.
create or replace function flashsale_data.webhook_error(
  p_idempotency_key text, p_order_id bigint, p_status text, p_payload jsonb)
returns text
language sql immutable
as $$
  select case
    when p_idempotency_key is null or length(p_idempotency_key) not between 1 and 255
      then 'A webhook needs an idempotency_key of 1 to 255 characters.'
    when p_order_id is null or p_order_id < 1
      then 'A webhook needs a positive order_id.'
    when p_status is null or p_status not in ('success', 'failed', 'cancelled', 'declined')
      then 'The status of a webhook is success, failed, cancelled or declined.'
    when p_payload is null or jsonb_typeof(p_payload) <> 'object'
      then 'The payload of a webhook is an object.'
    -- A number of jsonb keeps its digits. -> and ->> of a null are 'null' and null.
    when jsonb_typeof(p_payload -> 'amount') not in ('string', 'number', 'null')
         or p_payload ->> 'amount' !~ '^[0-9]{1,22}([.][0-9]{1,6})?$' -- guard: amount-format
      then 'amount is a decimal string or a number, as in "99.00".'
    when jsonb_typeof(p_payload -> 'currency') not in ('string', 'null')
         or p_payload ->> 'currency' !~ '^[A-Za-z]{3}$'
      then 'currency is an ISO 4217 code, as in "USD".'
  end;
$$;
comment on function flashsale_data.webhook_error(text, bigint, text, jsonb) is
  'What is wrong with a webhook in itself; null if nothing is';
