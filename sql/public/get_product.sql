-- A product with its exact stock and its terms at this instant, now. Refuses SA001 product_not_found,
-- SA009 invalid_request.
create or replace function flashsale.get_product(
  p_product_id bigint,
  out id bigint, out name text, out price numeric, out currency text,
  out total_stock int, out available_stock int,
  out sale_status text, out starts_at timestamptz, out ends_at timestamptz, out max_per_buyer int,
  out now timestamptz)
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
  sale_status := v.sale_status;
  starts_at := v.starts_at;
  ends_at := v.ends_at;
  max_per_buyer := v.max_per_buyer;
  now := v.now;
end
$$;
comment on function flashsale.get_product(bigint) is 'A product with its exact stock at this instant';
revoke execute on function flashsale.get_product(bigint) from public;
grant execute on function flashsale.get_product(bigint) to flashsale_api;
