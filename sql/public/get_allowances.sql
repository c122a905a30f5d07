-- What each buyer has of a product's limit at this instant, and may have in addition; all null
-- without a limit. Units of the other products of its limit group count, too. One row a request, in
-- order. Refuses SA001 product_not_found, SA009 invalid_request; SA029 wrong_shard for the whole call.
create or replace function flashsale.get_allowances(p_request_nos int[], p_product_ids bigint[], p_buyers text[])
returns table (request_no int, sqlstate text, detail text, max_per_buyer int, taken int, remaining int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_product_ids), array_dims(p_buyers));
  return query
  select r.request_no, outcome.refusal,
         case outcome.refusal
           when 'SA001' then format('There is no product %s.', r.product_id)
           when 'SA009' then 'An allowance is of a product and a buyer, a text of 1 to 255 characters.' end,
         allowance.max_per_buyer, allowance.taken,
         case when allowance.taken is not null then greatest(allowance.max_per_buyer - allowance.taken, 0) end
  from unnest(p_request_nos, p_product_ids, p_buyers) with ordinality as r (request_no, product_id, buyer, i)
  -- A product that has moved to another shard has no stock here.
  left join flashsale_data.products p
    on p.product_id = r.product_id
    and exists (select from flashsale_data.stock s where s.product_id = p.product_id)
  cross join lateral (
    select case
      when r.product_id is null or r.buyer is null or length(r.buyer) not between 1 and 255 then 'SA009'
      when p.product_id is null then flashsale_data.not_found('SA001', r.product_id) end as refusal
    offset 0) outcome
  left join lateral (
    select p.max_per_buyer, (
      select least(coalesce(sum(c.qty), 0), 2147483647)::int
      from flashsale_data.claims c
      where c.scope = flashsale_data.claim_scope(p.product_id, p.limit_group) and c.buyer = r.buyer
        and c.ends_at > v_now) as taken
    where outcome.refusal is null and p.max_per_buyer is not null) allowance on true
  order by r.i;
end
$$;
comment on function flashsale.get_allowances(int[], bigint[], text[]) is
  'What each buyer has of a limit, and may have in addition; one outcome row each';
revoke execute on function flashsale.get_allowances(int[], bigint[], text[]) from public;
grant execute on function flashsale.get_allowances(int[], bigint[], text[]) to flashsale_api;
