-- Raises SA029 if one of these ids, of products, holds or orders, is of a slot that this shard does not
-- own. The whole call is undone: so it may be called late, where an id is not found. The rows of a slot are
-- here if and only if it is owned, in every snapshot. Stable: judges by the snapshot of the query that
-- did not find the id.
create or replace function flashsale_data.check_owned(p_ids bigint[])
returns void
language plpgsql stable
as $$
declare
  v_foreign bigint := (
    select min(id)
    from unnest(p_ids) as id
    cross join flashsale_data.shard s
    where id > 0 and not (id % s.slots)::int = any (s.owned)); -- guard: wrong-shard
begin
  if v_foreign is not null then
    perform flashsale_data.raise_refusal('SA029', format('Id %s is of a slot that another shard has.', v_foreign));
  end if;
end
$$;
comment on function flashsale_data.check_owned(bigint[]) is 'Raises SA029 if an id is of a slot of another shard';
