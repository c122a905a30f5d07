-- A row of products with other terms. A term that is null stays; '-infinity' lifts p_starts_at,
-- 'infinity' p_ends_at, 0 the limits and the times, '' the group. Times are kept in seconds: the
-- length of a day or a month depends on the date it is added to. Refuses SA009 invalid_request; the
-- other terms are judged as a whole, by write_terms().
create or replace function flashsale_data.merge_terms(
  p_product flashsale_data.products, p_starts_at timestamptz, p_ends_at timestamptz, p_max_per_buyer int,
  p_limit_group text, p_hold_time interval, p_payment_window interval, p_listed boolean, p_max_per_hold int)
returns flashsale_data.products
language plpgsql stable
as $$
declare
  v_hold_seconds    numeric := extract(epoch from p_hold_time);
  v_payment_seconds numeric := extract(epoch from p_payment_window);
begin
  if v_hold_seconds <> 0 and v_hold_seconds not between 0.1 and 86400 then
    perform flashsale_data.raise_refusal('SA009',
      'hold_time is 100 milliseconds to 1 day, or 0 for that of the settings.');
  elsif v_payment_seconds <> 0 and v_payment_seconds not between 0.1 and 30 * 86400 then
    perform flashsale_data.raise_refusal('SA009',
      'payment_window is 100 milliseconds to 30 days, or 0 for that of the settings.');
  end if;
  p_product.starts_at := nullif(coalesce(p_starts_at, p_product.starts_at), '-infinity');
  p_product.ends_at := nullif(coalesce(p_ends_at, p_product.ends_at), 'infinity');
  p_product.max_per_buyer := nullif(coalesce(p_max_per_buyer, p_product.max_per_buyer), 0);
  p_product.limit_group := nullif(coalesce(p_limit_group, p_product.limit_group), '');
  p_product.hold_time := nullif(coalesce(v_hold_seconds * interval '1 second', p_product.hold_time), '0');
  p_product.payment_window := nullif(
    coalesce(v_payment_seconds * interval '1 second', p_product.payment_window), '0');
  p_product.listed := coalesce(p_listed, p_product.listed);
  p_product.max_per_hold := nullif(coalesce(p_max_per_hold, p_product.max_per_hold), 0);
  return p_product;
end
$$;
comment on function flashsale_data.merge_terms(
  flashsale_data.products, timestamptz, timestamptz, int, text, interval, interval, boolean, int) is
  'A product with other terms; null leaves a term alone';
