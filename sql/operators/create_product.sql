-- Puts a product on sale with p_stock units. The price is kept with the minor
-- units of its currency (ISO 4217): 99 USD is 99.00. Refuses SA009 invalid_request.
create or replace function flashsale.create_product(
  p_name text, p_stock int, p_price numeric, p_currency text default 'USD', out product_id bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_minor int := flashsale_data.minor_units(p_currency);
begin
  if p_name is null or length(p_name) not between 1 and 200 then
    perform flashsale_data.raise_refusal('SA009', 'A product has a name of 1 to 200 characters.');
  elsif not flashsale_data.is_visible(p_name) then -- guard: name-visible
    perform flashsale_data.raise_refusal('SA009', 'The name of a product has at least one visible character.');
  elsif p_stock is null or p_stock < 0 then
    perform flashsale_data.raise_refusal('SA009', 'A product has a stock of 0 or more.');
  elsif p_currency is null or p_currency !~ '^[A-Z]{3}$' then
    perform flashsale_data.raise_refusal('SA009', 'A currency is an ISO 4217 code, as in USD.');
  elsif p_price is null or not (p_price >= 0 and p_price < 1000000000000) then
    perform flashsale_data.raise_refusal('SA009', 'A price is 0 or more and below 10^12.');
  elsif p_price <> round(p_price, v_minor) then
    perform flashsale_data.raise_refusal('SA009', format('A price in %s has at most %s decimals.', p_currency, v_minor));
  end if;

  insert into flashsale_data.products as p (name, price, currency, created_at)
  values (p_name, round(p_price, v_minor), p_currency, clock_timestamp())
  returning p.product_id into product_id;
  insert into flashsale_data.stock (product_id, total_stock) values (product_id, p_stock);
  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, available_delta)
  values ('product_created', clock_timestamp(), product_id, p_stock);
end
$$;
comment on function flashsale.create_product(text, int, numeric, text) is 'Puts a product on sale; returns its id';
revoke execute on function flashsale.create_product(text, int, numeric, text) from public;
grant execute on function flashsale.create_product(text, int, numeric, text) to flashsale_ops;
