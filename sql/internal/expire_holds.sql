-- Records at most p_limit active holds of these lapsed instants (pairs of product and time) as
-- expired; returns how many. Locked holds are left out. Expects the instants to be locked, and
-- their units to have been returned.
create or replace function flashsale_data.expire_holds(
  p_product_ids bigint[], p_instants timestamptz[], p_limit int)
returns int
language plpgsql
as $$
declare
  v_count int;
begin
  perform flashsale_data.announce_ledger_write();
  with lapsed as materialized (
    select h.hold_id, h.product_id, h.qty, h.expires_at, h.buyer
    from unnest(p_product_ids, p_instants) as d (product_id, lapses_at)
    join flashsale_data.holds h on h.expires_at = d.lapses_at and h.product_id = d.product_id
    where h.status = 'active' -- guard: only-active-expire
    limit p_limit
    for no key update of h skip locked -- guard: sweep-skips-locked
  ), unclaimed as (
    -- Ended claims count no more. One that is locked is being moved to another group, and stays.
    delete from flashsale_data.claims c
    where c.hold_id in (
      select k.hold_id
      from lapsed d
      join flashsale_data.claims k on k.hold_id = d.hold_id
      where d.buyer is not null
      for update of k skip locked)
  ), expired as (
    update flashsale_data.holds h
    set status = 'expired'
    from lapsed d
    where h.hold_id = d.hold_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
    select 'hold_expired', clock_timestamp(), d.product_id, d.hold_id, d.qty
    from lapsed d
  ), swept as (
    update flashsale_data.lapses l
    set held = l.held - d.qty
    from (select d.product_id, d.expires_at, sum(d.qty)::int as qty from lapsed d group by 1, 2) d
    where l.product_id = d.product_id and l.lapses_at = d.expires_at
  )
  select count(*)::int into v_count from lapsed;
  return v_count;
end
$$;
comment on function flashsale_data.expire_holds(bigint[], timestamptz[], int) is
  'Records active holds of lapsed instants as expired; returns how many';
