-- Checks that nothing is oversold, leaked, duplicated or unaccounted for: returns no row if
-- every invariant holds, else one for each violation. One statement and so one snapshot, which
-- makes it correct in the middle of a sale, too. Reads every table once; takes no lock.
create or replace function flashsale.audit()
returns table (check_name text, detail text)
language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off
as $$
  with products as materialized (
    -- Those that this shard sells: what a slot that was given up has left waits for clear_slot().
    select p.* from flashsale_data.products p cross join flashsale_data.shard d
    where (p.product_id % d.slots)::int = any (d.owned)
  ), newest as materialized (
    select distinct on (s.product_id) s.* from flashsale_data.stock s order by s.product_id, s.version desc
  ), holds as materialized (
    select h.product_id, h.expires_at,
           sum(h.qty) filter (where h.status = 'active') as active
    from flashsale_data.holds h
    where h.product_id in (select p.product_id from products p) -- guard: audit-own-holds
    group by 1, 2
  ), orders as materialized (
    select o.product_id, o.payment_due_at,
           sum(o.qty) filter (where o.status = 'pending_payment') as pending,
           sum(o.qty) filter (where o.status = 'paid') as paid
    from flashsale_data.orders o
    where o.product_id in (select p.product_id from products p)
    group by 1, 2
  ), ledger as materialized (
    select e.product_id, sum(e.available_delta) as delta,
           -- Events before it are of an earlier stay: what they say may have changed elsewhere since.
           coalesce(max(e.event_id) filter (where e.kind = 'product_moved_in'), 0) as arrival
    from flashsale_data.events e group by 1
  ), money as materialized (
    select p.order_id,
           count(*) filter (where p.status = 'success' and p.result = 'applied' and p.refund_state is null) as paying
    from flashsale_data.payments p group by 1
  ), units as materialized (
    -- Each product's sums of rows, beside its counters.
    select s.*,
           coalesce((select sum(h.active) from holds h
                     where h.product_id = s.product_id and h.expires_at > s.lapsed_through), 0) as rows_held,
           coalesce((select sum(o.pending) from orders o
                     where o.product_id = s.product_id and o.payment_due_at > s.lapsed_through), 0) as rows_awaiting,
           coalesce((select sum(o.paid) from orders o where o.product_id = s.product_id), 0) as rows_paid,
           coalesce((select l.delta from ledger l where l.product_id = s.product_id), 0)
             + coalesce((select c.available_delta from flashsale_data.ledger_carried c
                         where c.product_id = s.product_id), 0) as ledger,
           coalesce((select sum(l.held + l.awaiting) from flashsale_data.lapses l
                     where l.product_id = s.product_id and l.lapses_at <= s.lapsed_through), 0) as unswept
    from newest s
  ), terms as materialized (
    -- Each product's terms, in the order in which they came to be in force. Few, as all that follows,
    -- where no product has any.
    select e.product_id, e.event_id, e.at, e.data,
           flashsale_data.claim_scope(e.product_id, e.data ->> 'limit_group') as scope,
           row_number() over (partition by e.product_id order by e.event_id) as era
    from flashsale_data.events e
    -- guard: audit-sale-cancelled
    where e.kind in ('terms_changed', 'sale_paused', 'sale_resumed', 'sale_cancelled', 'product_moved_in')
  ), taking as materialized (
    -- Each time that units of such a product were taken from its stock, with the terms in force.
    select e.event_id, e.kind, e.at, e.product_id, e.hold_id, -e.available_delta as qty, t.scope, t.data as terms
    from (
      select l.*, count(*) filter (where l.kind in ('terms_changed', 'sale_paused', 'sale_resumed',
                                                    'sale_cancelled', 'product_moved_in'))
                    over (partition by l.product_id order by l.event_id) as era
      from flashsale_data.events l
      where l.product_id in (select d.product_id from terms d)
        and l.kind in ('terms_changed', 'sale_paused', 'sale_resumed', 'sale_cancelled', 'product_moved_in',
                       'hold_placed', 'order_paid')) e
    join terms t on t.product_id = e.product_id and t.era = e.era
    join ledger l on l.product_id = e.product_id
    where e.available_delta < 0 and e.event_id > l.arrival
  ), endings as materialized (
    -- When units that were taken were given back, and whether their order was paid before: the next
    -- event of their hold, or the one after a payment in time.
    select n.event_id, 'order_paid' in (n.kind, n.next_kind) as was_paid,
           case when n.next_kind = 'order_paid' then n.second_kind else n.next_kind end as kind,
           case when n.next_kind = 'order_paid' then n.second_at else n.next_at end as at
    from (
      select e.event_id, e.kind, lead(e.kind) over hold as next_kind, lead(e.at) over hold as next_at,
             lead(e.kind, 2) over hold as second_kind, lead(e.at, 2) over hold as second_at
      from flashsale_data.events e
      where e.kind in ('hold_placed', 'hold_released', 'order_paid', 'order_cancelled')
        and e.product_id in (select d.product_id from terms d)
      window hold as (partition by e.hold_id order by e.event_id)) n
  ), spans as materialized (
    -- From when to when they counted towards a limit: from the hold to its end or its order's, and
    -- from a payment that came too late on; in the scope that their product had then.
    select s.scope, h.buyer, s.event_id, s.hold_id, s.qty, (s.terms ->> 'max_per_buyer')::int as max_per_buyer,
           case when s.kind = 'hold_placed' then h.placed_at else s.at end as since,
           least(case when ended.kind = 'hold_released' then ended.at
                      when ended.was_paid then coalesce(ended.at, 'infinity') -- guard: audit-paid-span
                      when o.order_id is null then h.expires_at
                      -- An overdue order may be cancelled for the shop later.
                      else least(ended.at, o.payment_due_at) end, -- guard: audit-overdue-span
                 (select min(t.at) from terms t
                  where t.product_id = s.product_id and t.event_id > s.event_id and t.scope <> s.scope)) as until
    from taking s
    join flashsale_data.holds h on h.hold_id = s.hold_id and h.buyer is not null
    left join flashsale_data.orders o on o.hold_id = h.hold_id
    join endings ended on ended.event_id = s.event_id
  ), claims as materialized (
    -- What the rows of holds and orders say that counts, beside what is recorded.
    select h.hold_id, flashsale_data.claim_scope(h.product_id, p.limit_group) as scope, h.buyer, h.product_id, h.qty,
           case when h.status = 'active' then h.expires_at
                when o.status = 'paid' then 'infinity' else o.payment_due_at end as ends_at
    from products p
    join flashsale_data.holds h on h.product_id = p.product_id
    left join flashsale_data.orders o on o.hold_id = h.hold_id
    where num_nonnulls(p.max_per_buyer, p.limit_group) > 0 and h.buyer is not null
      and (h.status = 'active' or o.status in ('pending_payment', 'paid'))
  )

  -- stock
  select 'one_stock_row', format('product %s has %s stock rows', p.product_id, count(s.product_id))
  from products p left join flashsale_data.stock s using (product_id)
  group by p.product_id having count(s.product_id) <> 1
  union all
  select 'never_oversold', format('product %s has %s units, and %s held, %s awaiting, %s paid',
                                  u.product_id, u.total_stock, u.rows_held, u.rows_awaiting, u.rows_paid)
  from units u where u.rows_held + u.rows_awaiting + u.rows_paid > u.total_stock
  union all
  select 'held_counter', format('product %s counts %s held, its holds add up to %s', u.product_id, u.held, u.rows_held)
  from units u where u.held <> u.rows_held -- guard: audit-held
  union all
  select 'awaiting_counter', format('product %s counts %s awaiting, its orders add up to %s',
                                    u.product_id, u.awaiting, u.rows_awaiting)
  from units u where u.awaiting <> u.rows_awaiting
  union all
  select 'paid_counter', format('product %s counts %s paid, its orders add up to %s', u.product_id, u.paid, u.rows_paid)
  from units u where u.paid <> u.rows_paid
  union all
  select 'lapses', format('product %s at %s: lapses say %s held and %s awaiting, the rows %s and %s',
                          product_id, at, l.held, l.awaiting, h.active, o.pending)
  from (select h.product_id, h.expires_at as at, h.active from holds h where h.active > 0) h
  full join (select o.product_id, o.payment_due_at as at, o.pending from orders o where o.pending > 0) o
    using (product_id, at)
  full join (select l.product_id, l.lapses_at as at, l.held, l.awaiting from flashsale_data.lapses l) l
    using (product_id, at)
  where (coalesce(l.held, 0), coalesce(l.awaiting, 0)) <> (coalesce(h.active, 0), coalesce(o.pending, 0))
  union all
  select 'ledger', format('product %s has %s available, its ledger adds up to %s, with %s still to be swept',
                          u.product_id, u.total_stock - u.held - u.awaiting - u.paid, u.ledger, u.unswept)
  from units u where u.total_stock - u.held - u.awaiting - u.paid <> u.ledger + u.unswept
  union all
  select 'event_has_its_product', format('the ledger has events of product %s, which does not exist', l.product_id)
  from ledger l
  where l.product_id is not null -- guard: audit-product
    and not exists (select from products p where p.product_id = l.product_id)
    and exists (select from flashsale_data.shard d where (l.product_id % d.slots)::int = any (d.owned))

  -- slots
  union all
  select 'slot_owned', format('product %s is sold here, its slot is not owned', s.product_id)
  from newest s where s.product_id not in (select p.product_id from products p) -- guard: audit-slot
  union all
  select 'slot_owned', format('payment %s is here, its slot is not owned', p.idempotency_key)
  from flashsale_data.payments p cross join flashsale_data.shard d
  where d.slots > 1 and not (p.order_id % d.slots)::int = any (d.owned)
  union all
  select 'slot_of_ids', format('order %s of hold %s of product %s: their slots differ', o.order_id, o.hold_id, o.product_id)
  from flashsale_data.orders o cross join flashsale_data.shard d
  where (o.order_id - o.product_id) % d.slots <> 0 or (o.hold_id - o.product_id) % d.slots <> 0
  union all
  select 'slot_of_ids', format('hold %s is of product %s: their slots differ', h.hold_id, h.product_id)
  from flashsale_data.holds h cross join flashsale_data.shard d
  where (h.hold_id - h.product_id) % d.slots <> 0 -- guard: audit-slot-of-ids
  union all
  select 'moved_out', format('product %s has moved away, its ledger adds up to %s here, not to 0', l.product_id,
                             l.delta + coalesce(c.available_delta, 0))
  from ledger l
  cross join flashsale_data.shard d
  left join flashsale_data.ledger_carried c on c.product_id = l.product_id
  where not (l.product_id % d.slots)::int = any (d.owned)
    and l.delta + coalesce(c.available_delta, 0) <> 0 -- guard: audit-moved-out

  -- terms
  union all
  select 'claims_add_up', format('hold %s: buyer %s has %s of %s until %s, the rows say %s of %s until %s',
                                 coalesce(c.hold_id, r.hold_id), coalesce(c.buyer, r.buyer), coalesce(c.qty, 0),
                                 c.scope, c.ends_at, coalesce(r.qty, 0), r.scope, r.ends_at)
  from flashsale_data.claims c
  full join claims r on r.hold_id = c.hold_id
  where (c.scope, c.buyer, c.product_id, c.qty, c.ends_at)
          is distinct from (r.scope, r.buyer, r.product_id, r.qty, r.ends_at) -- guard: audit-claims
    -- What has ended counts no more, whether or not its claim has been deleted.
    and greatest(c.ends_at, r.ends_at) > (select clock.now from flashsale_data.statement_clock clock)
  union all
  select 'limit_kept', format('hold %s: a buyer of %s had %s units at %s, where %s were allowed',
                              c.hold_id, c.scope, c.units, c.at, c.max_per_buyer)
  from (
    select d.*, sum(d.qty) over (partition by d.scope, d.buyer order by d.at, d.qty > 0, d.event_id
                                 rows unbounded preceding) as units
    from (
      select s.scope, s.buyer, s.event_id, s.hold_id, s.max_per_buyer, s.since as at, s.qty
      from spans s where s.since < s.until
      union all
      select s.scope, s.buyer, s.event_id, s.hold_id, null, s.until, -s.qty
      from spans s where s.since < s.until) d) c
  where c.qty > 0 and c.units > c.max_per_buyer -- guard: audit-limit
  union all
  select 'held_in_time', format('hold %s of product %s was placed at %s, the sale %s', t.hold_id, t.product_id,
                                h.placed_at, case when (t.terms ->> 'cancelled')::boolean then 'was cancelled'
                                when (t.terms ->> 'paused')::boolean then 'was paused'
                                else format('is from %s to %s', t.terms ->> 'starts_at', t.terms ->> 'ends_at') end)
  from taking t
  join flashsale_data.holds h on h.hold_id = t.hold_id
  where t.kind = 'hold_placed'
    and flashsale_data.sale_status((t.terms ->> 'starts_at')::timestamptz, (t.terms ->> 'ends_at')::timestamptz,
          (t.terms ->> 'paused')::boolean, (t.terms ->> 'cancelled')::boolean, h.placed_at) <> 'open' -- guard: audit-window

  -- states
  union all
  select 'hold_has_one_order', format('hold %s is %s and has %s', h.hold_id, h.status,
                                      coalesce('order ' || o.order_id, 'no order'))
  from flashsale_data.holds h
  full join flashsale_data.orders o on o.hold_id = h.hold_id
  where (h.status is not distinct from 'ordered') <> (o.order_id is not null)
  union all
  select 'order_is_its_hold', format('order %s is for %s of product %s, hold %s for %s of product %s',
                                     o.order_id, o.qty, o.product_id, h.hold_id, h.qty, h.product_id)
  from flashsale_data.orders o join flashsale_data.holds h on h.hold_id = o.hold_id
  where (o.product_id, o.qty) <> (h.product_id, h.qty)
  union all
  select 'order_amount', format('order %s is of %s %s, hold %s was placed for %s times %s %s', o.order_id,
                                o.amount, o.currency, h.hold_id, h.qty, h.price, h.currency)
  from flashsale_data.orders o join flashsale_data.holds h on h.hold_id = o.hold_id
  where (o.amount, o.currency) <> (h.price * h.qty, h.currency) -- guard: audit-amount
  union all
  select 'price_in_ledger', format('product %s costs %s, its last change was to %s', p.product_id, p.price,
                                   e.data ->> 'price')
  from products p
  join (
    select distinct on (e.product_id) e.product_id, e.event_id, e.data
    from flashsale_data.events e
    where e.kind = 'price_changed'
    order by e.product_id, e.event_id desc) e on e.product_id = p.product_id
  join ledger l on l.product_id = p.product_id
  where p.price <> (e.data ->> 'price')::numeric
    and e.event_id > l.arrival -- guard: audit-since-arrival
  union all
  select 'hold_state_in_ledger', format('hold %s is %s, its last event is %s', h.hold_id, h.status, e.kind)
  from flashsale_data.holds h
  join (
    select distinct on (e.hold_id) e.hold_id, e.event_id, e.kind
    from flashsale_data.events e
    where e.hold_id is not null
    order by e.hold_id, e.event_id desc) e on e.hold_id = h.hold_id
  join ledger l on l.product_id = h.product_id
  where e.event_id > l.arrival and h.status <> case e.kind
    when 'hold_placed' then 'active' when 'hold_extended' then 'active' when 'hold_released' then 'released'
    when 'hold_expired' then 'expired' else 'ordered' end
  union all
  select 'order_state_in_ledger', format('order %s is %s, its last event is %s', o.order_id, o.status, e.kind)
  from flashsale_data.orders o
  join (
    select distinct on (e.order_id) e.order_id, e.event_id, e.kind
    from flashsale_data.events e
    where e.kind in ('order_created', 'order_paid', 'order_cancelled')
    order by e.order_id, e.event_id desc) e on e.order_id = o.order_id
  join ledger l on l.product_id = o.product_id
  where e.event_id > l.arrival and o.status <> case e.kind
    when 'order_created' then 'pending_payment' when 'order_paid' then 'paid' else 'cancelled' end

  -- money
  union all
  select 'paid_by_one_payment', format('order %s is %s and was paid by %s payments', o.order_id, o.status,
                                       coalesce(m.paying, 0))
  from flashsale_data.orders o left join money m on m.order_id = o.order_id
  where o.product_id in (select p.product_id from products p)
    and coalesce(m.paying, 0) <> case when o.status = 'paid' then 1 else 0 end
    and (o.amount > 0 or o.status <> 'paid') -- an order of the amount 0 is paid without
  union all
  -- Of payments whose amount is known. A success for an order of the amount 0 captures nothing.
  select 'money_adds_up', format('%s: %s captured, %s kept by paid orders, %s due, %s refunded',
                                 sums.currency, sums.captured, sums.kept, sums.due, sums.refunded)
  from (
    select part.currency, sum(part.captured) as captured, sum(part.kept) as kept, sum(part.due) as due,
           sum(part.refunded) as refunded
    from (
      select coalesce(p.currency, o.currency) as currency, c.captured,
             case when p.refund_state is null then -p.refunded else 0 end as kept,
             case when p.refund_state is null then 0 else c.captured - p.refunded end as due, p.refunded
      from flashsale_data.payments p
      left join flashsale_data.orders o on o.order_id = p.order_id
      cross join lateral (select flashsale_data.captured_amount(p, o) as captured offset 0) c
      where p.status = 'success' and p.result <> 'stored' and c.captured is not null
        and (p.result = 'no_change' and o.amount = 0) is not true
      union all
      select o.currency, 0, o.amount, 0, 0 from flashsale_data.orders o
      where o.status = 'paid' and o.product_id in (select p.product_id from products p)) part
    group by 1) sums
  where sums.captured <> sums.kept + sums.due + sums.refunded -- guard: audit-money
  union all
  select 'refunds_add_up', format('payment %s counts %s refunded, its refunds add up to %s', p.idempotency_key,
                                  p.refunded, coalesce(r.refunded, 0))
  from flashsale_data.payments p
  left join (
    select r.payment_key, sum(r.amount) as refunded
    from flashsale_data.refunds r where r.status = 'done' group by 1) r
    on r.payment_key = p.idempotency_key and p.status = 'success' -- of others none is counted
  where p.refunded <> coalesce(r.refunded, 0) -- guard: audit-refunds
  union all
  select 'refund_missed_its_payment', format('payment %s %s, and is%s awaited', r.payment_key,
                                             case when p.idempotency_key is null then 'is unknown' else 'came' end,
                                             case when a.payment_key is null then ' not' end)
  from (select distinct w.payment_key from flashsale_data.refunds w) r
  left join flashsale_data.payments p on p.idempotency_key = r.payment_key and p.status = 'success'
  left join flashsale_data.awaited_payments a on a.payment_key = r.payment_key
  where (p.idempotency_key is null) <> (a.payment_key is not null) -- guard: audit-early-refunds
  union all
  select 'paid_its_amount', format('order %s of %s %s was paid by payment %s of %s %s', o.order_id, o.amount,
                                   o.currency, p.idempotency_key, p.amount, p.currency)
  from flashsale_data.payments p join flashsale_data.orders o on o.order_id = p.order_id
  where p.status = 'success' and p.result = 'applied'
    and (coalesce(p.amount, o.amount), coalesce(p.currency, o.currency)) <> (o.amount, o.currency)
  union all
  -- A payment without an amount is refunded by its order's.
  select 'refund_has_an_amount', format('payment %s is a refund due for order %s, which does not exist any more',
                                        p.idempotency_key, p.order_id)
  from flashsale_data.payments p
  where p.refund_state = 'due'
    and p.order_status is not null and (p.amount is null or p.currency is null)
    and not exists (select from flashsale_data.orders o where o.order_id = p.order_id)
  union all
  select 'inbox_counter', format('the inbox counts %s webhooks, %s are stored', i.stored, p.stored)
  from flashsale_data.inbox i,
       (select count(*) as stored from flashsale_data.payments p where p.result = 'stored') p
  where i.stored <> p.stored
  union all
  select 'webhook_missed_its_order', format('webhook %s is stored, and order %s exists', p.idempotency_key, p.order_id)
  from flashsale_data.payments p join flashsale_data.orders o on o.order_id = p.order_id
  where p.result = 'stored' and p.wait_ends_at > o.created_at;
$$;
comment on function flashsale.audit() is 'No row when every invariant holds; reads every table once';
revoke execute on function flashsale.audit() from public;
grant execute on function flashsale.audit() to flashsale_ops;
