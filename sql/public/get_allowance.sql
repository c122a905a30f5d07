-- What a buyer has of a product's limit at this instant, and may have in addition: get_allowances
-- for one request, which raises its refusal.
create or replace function flashsale.get_allowance(
  p_product_id bigint, p_buyer text, out max_per_buyer int, out taken int, out remaining int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.get_allowances(array[1], array[p_product_id], array[p_buyer]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  max_per_buyer := v.max_per_buyer;
  taken := v.taken;
  remaining := v.remaining;
end
$$;
comment on function flashsale.get_allowance(bigint, text) is
  'What a buyer has of a product''s limit, and may have in addition';
revoke execute on function flashsale.get_allowance(bigint, text) from public;
grant execute on function flashsale.get_allowance(bigint, text) to flashsale_api;
