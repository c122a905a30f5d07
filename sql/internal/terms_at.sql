-- The terms of these products as they stand at p_now, by ascending id. hold_time and payment_window
-- are null where the settings hold.
create or replace function flashsale_data.terms_at(p_product_ids bigint[], p_now timestamptz)
returns table (product_id bigint, starts_at timestamptz, ends_at timestamptz, max_per_buyer int,
               limit_group text, hold_time interval, payment_window interval, listed boolean,
               max_per_hold int, sale_status text, now timestamptz)
language sql stable
as $$
  select p.product_id, p.starts_at, p.ends_at, p.max_per_buyer, p.limit_group, p.hold_time,
         p.payment_window, p.listed, p.max_per_hold,
         flashsale_data.sale_status(p.starts_at, p.ends_at, p.paused, p.cancelled, p_now), p_now
  from flashsale_data.products p
  where p.product_id = any (p_product_ids)
  order by p.product_id;
$$;
comment on function flashsale_data.terms_at(bigint[], timestamptz) is 'The terms of products as they stand at an instant';
