-- What a successful payment has captured. One that names no amount has captured its order's, if
-- the currency is the order's: otherwise the amount is not known, and null.
create or replace function flashsale_data.captured_amount(
  p_payment flashsale_data.payments, p_order flashsale_data.orders)
returns numeric
language sql immutable
as $$
  select coalesce(p_payment.amount,
                  case when coalesce(p_payment.currency, p_order.currency) = p_order.currency -- guard: amount-in-its-currency
                       then p_order.amount end);
$$;
comment on function flashsale_data.captured_amount(flashsale_data.payments, flashsale_data.orders) is
  'What a payment has captured; null if it is not known';
