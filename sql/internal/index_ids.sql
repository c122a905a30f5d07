-- Numbers the distinct ids in p_ids. ids has each of them once, ascending; slots has, for
-- each element of p_ids, the position of its id in ids (null for null).
--
-- Functions keep what they know of a product or an order in arrays that line up with ids:
-- a request finds its own by subscript, at a cost that does not grow with the call.
create or replace function flashsale_data.index_ids(p_ids bigint[], out ids bigint[], out slots int[])
language plpgsql immutable
as $$
begin
  -- Most calls are about one product.
  if p_ids <@ p_ids[1:1] then
    ids := p_ids[1:1];
    slots := array_fill(1, array[cardinality(p_ids)]);
  else
    ids := array(select distinct id from unnest(p_ids) as id where id is not null order by id);
    slots := array(
      select case when wanted.id is not null then dense_rank() over (order by wanted.id) end::int
      from unnest(p_ids) with ordinality as wanted (id, i)
      order by wanted.i);
  end if;
end
$$;
comment on function flashsale_data.index_ids(bigint[]) is
  'The distinct ids among these, and for each element the position of its id among them';
