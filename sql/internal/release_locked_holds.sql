-- Releases the active holds of a product, those that have expired left out: they are the sweep's.
-- Expects the holds to be locked, and the product, whose stock row is at p_ctid.
create or replace function flashsale_data.release_locked_holds(p_product_id bigint, p_ctid tid, p_now timestamptz)
returns void
language plpgsql
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
  perform flashsale_data.announce_ledger_write();
  with released as (
    update flashsale_data.holds h
    set status = 'released'
    where h.product_id = p_product_id and h.status = 'active' and h.expires_at > p_now
    returning h.hold_id, h.qty, h.expires_at
  ), unclaimed as (
    delete from flashsale_data.claims c using released r where c.hold_id = r.hold_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
    select 'hold_released', clock_timestamp(), p_product_id, r.hold_id, r.qty from released r
  ), lapsing as (
    -- The rows exist; on conflict finds them by their key (docs/design.md).
    insert into flashsale_data.lapses as l (product_id, lapses_at, held)
    select p_product_id, r.expires_at, sum(r.qty) from released r group by 2
    on conflict (product_id, lapses_at) do update set held = l.held - excluded.held
  )
  update flashsale_data.stock s
  set version = s.version + 1, held = s.held - r.qty
  from (select sum(r.qty)::int as qty from released r) r
  where s.ctid = p_ctid and r.qty > 0;
end
$$;
comment on function flashsale_data.release_locked_holds(bigint, tid, timestamptz) is
  'Releases the active holds of a product that is locked';
