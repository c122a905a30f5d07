-- A product with its exact stock at this instant. Refuses SA001 product_not_found,
-- SA009 invalid_request.
create or replace function flashsale.get_product(
  p_product_id bigint,
  out id bigint, out name text, out price numeric, out currency text,
  out total_stock int, out available_stock int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.get_products(array[1], array[p_product_id]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  id := v.id;
  name := v.name;
  price := v.price;
  currency := v.currency;
  total_stock := v.total_stock;
  available_stock := v.available_stock;
end
$$;
comment on function flashsale.get_product(bigint) is 'A product with its exact stock at this instant';
revoke execute on function flashsale.get_product(bigint) from public;
grant execute on function flashsale.get_product(bigint) to flashsale_api;
