-- What the ledger of each product of a slot adds up to: its available units, less those that have been returned
-- and not been recorded by the sweep yet.
create or replace function flashsale_data.slot_ledger(p_slot int)
returns table (product_id bigint, available int)
language sql stable
as $$
  select s.product_id,
         (s.total_stock - s.held - s.awaiting - s.paid - coalesce((
           select sum(l.held + l.awaiting) from flashsale_data.lapses l
           where l.product_id = s.product_id and l.lapses_at <= s.lapsed_through), 0))::int
  from flashsale_data.stock s
  where s.product_id % (select d.slots from flashsale_data.shard d) = p_slot;
$$;
comment on function flashsale_data.slot_ledger(int) is 'What the ledger of each product of a slot adds up to';
