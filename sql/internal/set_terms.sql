-- Changes terms of products in one transaction: change_terms(), pause_sale() and resume_sale(). A
-- term that is null stays. p_kind is the kind of the event. One row a product, by ascending id: its
-- terms as they are now.
--
-- Locks    the products, in ascending order, to commit.
-- Refuses  as lock_products(), merge_terms() and write_terms().
create or replace function flashsale_data.set_terms(
  p_product_ids bigint[], p_kind text, p_starts_at timestamptz default null, p_ends_at timestamptz default null,
  p_max_per_buyer int default null, p_limit_group text default null, p_hold_time interval default null,
  p_payment_window interval default null, p_listed boolean default null, p_max_per_hold int default null,
  p_paused boolean default null)
returns table (product_id bigint, starts_at timestamptz, ends_at timestamptz, max_per_buyer int,
               limit_group text, hold_time interval, payment_window interval, listed boolean,
               max_per_hold int, sale_status text, now timestamptz)
language plpgsql
as $$
#variable_conflict use_column
declare
  v_locked record;
  v_before flashsale_data.products;
  v_after  flashsale_data.products;
begin
  v_locked := flashsale_data.lock_products(p_product_ids);
  for v_i in 1 .. cardinality(v_locked.ids) loop
    -- A statement of its own: the one that waited for the lock has an older snapshot.
    select p.* into v_before from flashsale_data.products p where p.product_id = v_locked.ids[v_i];
    v_after := flashsale_data.merge_terms(v_before, p_starts_at, p_ends_at, p_max_per_buyer, p_limit_group,
      p_hold_time, p_payment_window, p_listed, p_max_per_hold);
    v_after.paused := coalesce(p_paused, v_before.paused);
    perform flashsale_data.write_terms(v_before, v_after, v_locked.ctids[v_i], p_kind);
    perform flashsale_data.rescope_claims(v_before, v_after);
  end loop;
  return query select t.* from flashsale_data.terms_at(v_locked.ids, clock_timestamp()) t;
end
$$;
comment on function flashsale_data.set_terms(
  bigint[], text, timestamptz, timestamptz, int, text, interval, interval, boolean, int, boolean) is
  'Changes terms of products; returns them as they are now';
