-- The terms of every product at the instant of the call. For the view flashsale.terms, as
-- list_stock() is for flashsale.stock. Takes no lock.
create or replace function flashsale.list_terms()
returns table (product_id bigint, starts_at timestamptz, ends_at timestamptz, max_per_buyer int,
               limit_group text, hold_time interval, payment_window interval, listed boolean,
               max_per_hold int, sale_status text, now timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  return query
  select t.* from flashsale_data.terms_at(array(select s.product_id from flashsale_data.stock s), v_now) t;
end
$$;
comment on function flashsale.list_terms() is 'The terms of every product at this instant';
revoke execute on function flashsale.list_terms() from public;
grant execute on function flashsale.list_terms() to flashsale_ops;
