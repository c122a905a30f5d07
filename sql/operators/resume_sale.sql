-- Ends the pause of these products; their window holds as before. Repeated, it changes nothing. One row a product, by
-- ascending id: its terms as they are now.
--
-- Locks    the products, in ascending order, to commit.
-- Refuses  as change_terms().
create or replace function flashsale.resume_sale(p_product_ids bigint[])
returns table (product_id bigint, starts_at timestamptz, ends_at timestamptz, max_per_buyer int,
               limit_group text, hold_time interval, payment_window interval, listed boolean,
               max_per_hold int, sale_status text, now timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select t.* from flashsale_data.set_terms(p_product_ids, 'sale_resumed', p_paused => false) t;
end
$$;
comment on function flashsale.resume_sale(bigint[]) is 'Ends the pause of products; returns their terms';
revoke execute on function flashsale.resume_sale(bigint[]) from public;
grant execute on function flashsale.resume_sale(bigint[]) to flashsale_ops;
