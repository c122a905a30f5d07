-- Cancels the sale of a product for good, in one transaction: from its commit on no hold is placed,
-- its active holds are released, its pending and paid orders are cancelled (sale_cancelled), and
-- what was captured for them is in refunds_due. p_refund_total is the refund_total that
-- preview_cancel_sale() has shown: if it is another one under the lock, nothing is done. Returns
-- what it has undone; of a sale that is cancelled already nothing changes.
--
-- 100,000 orders take seconds. Meanwhile the product is busy, and no other one is.
--
-- Locks    the product's orders and holds, then the product, then payments, to commit. An order or a
--          hold that came while the product was waited for is not waited for: all locks are
--          released and taken again, a few times.
-- Refuses  SA001 product_not_found, SA009 invalid_request, also above READ COMMITTED; SA022
--          preview_changed; 55P03 if rows stayed locked.
create or replace function flashsale.cancel_sale(
  p_product_id bigint, p_refund_total numeric,
  out holds int, out pending int, out paid int, out refund_total numeric, out currency text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  c_tries     constant int := 5;
  v_ctid      tid;
  v_now       timestamptz;
  v_before    flashsale_data.products;
  v_after     flashsale_data.products;
  v_order_ids bigint[];
begin
  if flashsale_data.keeps_snapshot() then -- guard: cancel-isolation
    perform flashsale_data.raise_refusal('SA009', 'A sale is cancelled at READ COMMITTED.');
  elsif p_refund_total is null then
    perform flashsale_data.raise_refusal('SA009', 'A refund total is needed: that of preview_cancel_sale().');
  elsif not exists (select from flashsale_data.stock p where p.product_id = p_product_id) then
    perform flashsale_data.raise_refusal(flashsale_data.not_found('SA001', p_product_id), format('There is no product %s.', p_product_id));
  end if;

  -- 1 Lock the orders and the holds, then the product
  for v_try in 1 .. c_tries loop
    begin
      perform from flashsale_data.orders o
      where o.product_id = p_product_id
        and (o.status <> 'cancelled' or o.cancel_reason in ('payment_failed', 'payment_overdue'))
      order by o.order_id
      for no key update;
      perform from flashsale_data.holds h
      where h.product_id = p_product_id and h.status = 'active'
      order by h.hold_id
      for no key update;
      select l.ctids[1], l.effective_nows[1] into v_ctid, v_now
      from flashsale_data.lock_stock(array[p_product_id]) l;
      -- What was committed meanwhile. Its lock may be held by a call that waits for the product.
      perform from flashsale_data.orders o
      where o.product_id = p_product_id
        and (o.status <> 'cancelled' or o.cancel_reason in ('payment_failed', 'payment_overdue'))
      for no key update nowait; -- guard: cancel-locks-all
      perform from flashsale_data.holds h
      where h.product_id = p_product_id and h.status = 'active'
      for no key update nowait;
      exit;
    exception when lock_not_available then
      if v_try = c_tries then
        raise;
      end if;
    end;
  end loop;

  -- A test product may have been forgotten meanwhile.
  if v_ctid is null then -- guard: cancelled-and-forgotten
    perform flashsale_data.raise_refusal('SA001', format('There is no product %s.', p_product_id));
  end if;

  -- 2 Compare with the preview
  select p.* into v_before from flashsale_data.products p where p.product_id = p_product_id;
  currency := v_before.currency;
  select s.holds, s.pending, s.paid, s.refund_total into holds, pending, paid, refund_total
  from flashsale_data.sale_at(p_product_id, v_now) s;
  if v_before.cancelled then
    return;
  elsif refund_total <> p_refund_total then -- guard: preview-changed
    perform flashsale_data.raise_refusal(
      'SA022', format('%s %s would be refunded now, not %s.', refund_total, currency, p_refund_total));
  end if;

  -- 3 Write each table once, the stock row three times: its ctid is that of the last write
  v_after := v_before;
  v_after.cancelled := true;
  perform flashsale_data.write_terms(v_before, v_after, v_ctid, 'sale_cancelled');
  select s.ctid into v_ctid from flashsale_data.stock s
  where s.product_id = p_product_id order by s.version desc limit 1;
  perform flashsale_data.release_locked_holds(p_product_id, v_ctid, v_now);
  select s.ctid into v_ctid from flashsale_data.stock s
  where s.product_id = p_product_id order by s.version desc limit 1;
  v_order_ids := array(
    select o.order_id from flashsale_data.orders o
    where o.product_id = p_product_id
      and (o.status <> 'cancelled' or o.cancel_reason in ('payment_failed', 'payment_overdue'))
    order by o.order_id);
  if cardinality(v_order_ids) > 0 then
    perform flashsale_data.cancel_locked_orders(
      v_order_ids, array_fill(true, array[cardinality(v_order_ids)]), 'sale_cancelled',
      array[p_product_id], array[v_ctid], array[v_now]);
  end if;
end
$$;
comment on function flashsale.cancel_sale(bigint, numeric) is 'Cancels the sale of a product for good';
revoke execute on function flashsale.cancel_sale(bigint, numeric) from public;
grant execute on function flashsale.cancel_sale(bigint, numeric) to flashsale_ops;
