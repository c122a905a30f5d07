-- What is wrong with the record of a refund itself, as a sentence; null if nothing is.
create or replace function flashsale_data.refund_error(
  p_refund_key text, p_payment_key text, p_amount numeric, p_status text, p_kind text, p_payload jsonb)
returns text
language sql immutable
as $$
  select case
    when p_refund_key is null or length(p_refund_key) not between 1 and 255
      then 'A refund needs a refund_key of 1 to 255 characters.'
    when p_payment_key is null or length(p_payment_key) not between 1 and 255
      then 'A refund needs a payment_key of 1 to 255 characters.'
    when p_amount is null and p_kind <> 'void' or p_amount <= 0 or p_amount >= 1e22 or scale(p_amount) > 6 -- also NaN, which is larger than all
      then 'The amount of a refund is positive, with at most 6 decimals.'
    when p_status is null or p_status not in ('done', 'failed')
      then 'The status of a refund is done or failed.'
    when p_kind not in ('refund', 'void', 'chargeback')
      then 'The kind of a refund is refund, void or chargeback.'
    when jsonb_typeof(p_payload) <> 'object'
      then 'The payload of a refund is an object.'
  end;
$$;
comment on function flashsale_data.refund_error(text, text, numeric, text, text, jsonb) is
  'What is wrong with the record of a refund in itself; null if nothing is';
