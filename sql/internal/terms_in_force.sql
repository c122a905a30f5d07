-- The terms by which requests are judged, once their products are locked. p_product_ids are
-- distinct ids with the effective now of each (null where it is not locked), and p_slots has for
-- each request the position of its product.
--
-- By product, null where it is not locked: its row, its status, its limits, and the scope of its
-- claims (null if it has neither a limit for each buyer nor a group: claims on it are not kept).
-- By request: its claim slot, which requests of one buyer and scope share: the position of the
-- first of them (null without a buyer or a scope); at a claim slot, the units that the buyer has
-- there; and whether these claims are locked elsewhere.
create or replace function flashsale_data.terms_in_force(
  p_product_ids bigint[], p_effective_nows timestamptz[], p_slots int[], p_buyers text[],
  out products flashsale_data.products[], out sale_statuses text[],
  out max_per_buyers int[], out max_per_holds int[], out scopes text[],
  out claim_slots int[], out taken int[], out locked_elsewhere boolean[])
language plpgsql
as $$
declare
  v_counted boolean;
  v_grouped boolean;
begin
  select array_agg(locked.product), array_agg(locked.sale_status),
         array_agg(locked.max_per_buyer), array_agg(locked.max_per_hold), array_agg(locked.scope),
         bool_or(locked.scope is not null), bool_or(locked.limit_group is not null)
    into products, sale_statuses, max_per_buyers, max_per_holds, scopes, v_counted, v_grouped
  from (
    select p as product, p.max_per_buyer, p.max_per_hold, p.limit_group,
           case when p.product_id is not null
                then flashsale_data.sale_status(p.starts_at, p.ends_at, p.paused, p.cancelled, wanted.effective_now) -- guard: window-after-lock
                end as sale_status,
           case when num_nonnulls(p.max_per_buyer, p.limit_group) > 0
                then flashsale_data.claim_scope(p.product_id, p.limit_group) end as scope
    from unnest(p_product_ids, p_effective_nows) with ordinality as wanted (product_id, effective_now, slot)
    left join flashsale_data.products p
      on p.product_id = wanted.product_id and wanted.effective_now is not null
    order by wanted.slot) locked;
  if p_buyers is null or not v_counted then
    return;
  end if;
  if v_grouped then
    locked_elsewhere := flashsale_data.claims_locked_elsewhere(p_product_ids, p_slots, p_buyers);
  end if;
  -- A statement of its own, after the locks.
  select array_agg(request.claim_slot),
         array_agg(case when request.claim_slot = request.i then (
           select least(coalesce(sum(c.qty), 0), 2147483647)::int
           from flashsale_data.claims c
           where c.scope = request.scope and c.buyer = request.buyer
             and c.ends_at > p_effective_nows[request.slot]) end) -- guard: ended-claims
    into claim_slots, taken
  from (
    select r.*, case when r.scope is not null and r.buyer is not null
                     then min(r.i) over (partition by r.scope collate "C", r.buyer collate "C") end::int as claim_slot
    from (
      select u.slot, u.buyer, u.i, scopes[u.slot] as scope
      from unnest(p_slots, p_buyers) with ordinality as u (slot, buyer, i)
      offset 0) r
    order by r.i) request;
end
$$;
comment on function flashsale_data.terms_in_force(bigint[], timestamptz[], int[], text[]) is
  'The terms by which requests are judged, and what their buyers have';
