-- Whether a row with this xmin may have been written by a transaction that was not over before p_since, the
-- oldest one then in progress. xmin has the lower 32 bits; a row that was frozen long ago may count as
-- written. The planner inlines it.
create or replace function flashsale_data.written_since(p_xmin xid, p_since xid8)
returns boolean
language sql stable
as $$
  select (p_xmin::text::bigint - p_since::text::bigint) & 4294967295 < 2147483648; -- guard: changes-since-copy
$$;
comment on function flashsale_data.written_since(xid, xid8) is 'Whether a row may have been written since a snapshot';
