-- What cancel_sale() would do to a product now: how many active holds, pending and paid orders it has,
-- and how much money would become due for refunds. Takes no lock. Refuses SA001 product_not_found.
create or replace function flashsale.preview_cancel_sale(
  p_product_id bigint, out holds int, out pending int, out paid int, out refund_total numeric, out currency text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  currency := (
    select p.currency from flashsale_data.products p
    where p.product_id = p_product_id
      and exists (select from flashsale_data.stock s where s.product_id = p.product_id));
  if currency is null then
    perform flashsale_data.raise_refusal(flashsale_data.not_found('SA001', p_product_id), format('There is no product %s.', p_product_id));
  end if;
  select s.holds, s.pending, s.paid, s.refund_total into holds, pending, paid, refund_total
  from flashsale_data.sale_at(p_product_id, flashsale_data.read_clock()) s;
end
$$;
comment on function flashsale.preview_cancel_sale(bigint) is 'What cancelling the sale of a product would undo';
revoke execute on function flashsale.preview_cancel_sale(bigint) from public;
grant execute on function flashsale.preview_cancel_sale(bigint) to flashsale_ops;
