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
#variable_conflict use_column
declare
  v_locked record;
  v_before flashsale_data.products;
  v_after  flashsale_data.products;
begin
  v_locked := flashsale_data.lock_products(p_product_ids);
  for v_i in 1 .. cardinality(v_locked.ids) loop
    select p.* into v_before from flashsale_data.products p where p.product_id = v_locked.ids[v_i];
    v_after := v_before;
    v_after.paused := false;
    perform flashsale_data.write_terms(v_before, v_after, v_locked.ctids[v_i], 'sale_resumed');
  end loop;
  return query select t.* from flashsale_data.terms_at(v_locked.ids, clock_timestamp()) t;
end
$$;
comment on function flashsale.resume_sale(bigint[]) is 'Ends the pause of products; returns their terms';
revoke execute on function flashsale.resume_sale(bigint[]) from public;
grant execute on function flashsale.resume_sale(bigint[]) to flashsale_ops;
