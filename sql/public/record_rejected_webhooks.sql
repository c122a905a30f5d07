-- Keeps webhooks of the payment provider that were refused, so that a captured payment is never
-- lost in silence: one row a webhook_id, with the newest body as it came (at most its first
-- 256 KiB), the code and the sentence of the refusal, and how often and since when it has come.
-- For webhooks whose signature was verified, and for those that the caller vouches for. Without
-- a webhook_id one is made of the idempotency key. p_idempotency_keys, p_order_ids and
-- p_statuses are what could be read of the body, else null. One row a request, in order:
--
--   kept      stands in the view rejected_webhooks until it is understood or dismissed
--   dropped   settings.rejected_limit webhooks stand already; it was counted
--   ignored   its status is known and is not success: no money was captured
--
-- A webhook is removed by apply_payments() when the same webhook_id is served. One that was
-- dismissed stays dismissed as long as the same body is refused with the same code.
--
-- Locks    the counter of rejections, then the webhooks' rows, to commit.
-- Refuses  SA009 invalid_request.
create or replace function flashsale.record_rejected_webhooks(
  p_request_nos int[], p_webhook_ids text[], p_bodies bytea[], p_codes text[], p_details text[],
  p_idempotency_keys text[] default null, p_order_ids bigint[] default null, p_statuses text[] default null)
returns table (request_no int, sqlstate text, detail text, webhook_id text, result text, deliveries bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  c_body_size constant int := 262144;
  v_size   int;
  v_dims   text := array_dims(p_request_nos);
  v_errors text[];
  v_ids    text[];
  v_now    timestamptz;
  v_room   bigint;
begin
  v_size := flashsale_data.batch_size(cardinality(p_request_nos), v_dims, array_dims(p_webhook_ids),
    array_dims(p_bodies), array_dims(p_codes), array_dims(p_details),
    case when p_idempotency_keys is null then v_dims else array_dims(p_idempotency_keys) end,
    case when p_order_ids is null then v_dims else array_dims(p_order_ids) end,
    case when p_statuses is null then v_dims else array_dims(p_statuses) end);

  -- 1 Validate, find those that may stand for captured money
  select array_agg(request.error order by request.i),
         array_agg(case when request.error is null
                         -- guard: only-captured-kept
                         and request.status in ('failed', 'cancelled', 'declined') is not true
                     then flashsale_data.rejected_webhook_id(request.id) end order by request.i)
    into v_errors, v_ids
  from (
    select r.i, r.status, coalesce(nullif(r.webhook_id, ''), 'key:' || r.key) as id,
           case
             when coalesce(nullif(r.webhook_id, ''), r.key) is null
               then 'A rejected webhook needs a webhook_id or an idempotency_key.'
             when p_bodies[r.i] is null
               then 'A rejected webhook needs its body.'
             when r.code is null or length(r.code) not between 1 and 100
               then 'A rejected webhook needs a code of 1 to 100 characters.'
             when r.detail is null or r.detail = ''
               then 'A rejected webhook needs a detail.' end as error
    from unnest(p_webhook_ids, p_codes, p_details,
                coalesce(p_idempotency_keys, array_fill(null::text, array[v_size])),
                coalesce(p_statuses, array_fill(null::text, array[v_size])))
      with ordinality as r (webhook_id, code, detail, key, status, i)) request;

  if cardinality(array_remove(v_ids, null)) > 0 then
    -- 2 Lock the counter, which makes the limit exact; the settings and the clock are read after it
    perform from flashsale_data.rejection_counter for no key update; -- guard: rejection-lock
    perform flashsale_data.reject_stale_snapshot();
    v_now := clock_timestamp();
    select s.rejected_limit - count(r.webhook_id) into v_room
    from flashsale_data.settings s
    left join flashsale_data.rejected_webhooks r on r.dismissed_at is null
    group by s.rejected_limit;

    -- 3 Write each table once
    with wanted as (
      select w.*, row_number() over (partition by w.is_known order by w.first) as place
      from (
        select u.id, count(*) as deliveries, min(u.i) as first, max(u.i) as last,
               exists (select from flashsale_data.rejected_webhooks r where r.webhook_id = u.id) as is_known
        from unnest(v_ids) with ordinality as u (id, i)
        where u.id is not null
        group by u.id) w
    ), chosen as (
      select w.* from wanted w where w.is_known or w.place <= v_room -- guard: rejected-limit
    ), written as (
      -- A row that apply_payments() is removing is waited for, and written anew.
      insert into flashsale_data.rejected_webhooks as r
        (webhook_id, body, body_size, code, detail, idempotency_key, order_id, status, deliveries,
         first_seen_at, last_seen_at)
      select c.id, substring(p_bodies[c.last] from 1 for c_body_size), octet_length(p_bodies[c.last]),
             p_codes[c.last], left(p_details[c.last], 1000), left(p_idempotency_keys[c.last], 255),
             p_order_ids[c.last], left(p_statuses[c.last], 100), c.deliveries, v_now, v_now
      from chosen c
      order by c.id
      on conflict (webhook_id) do update
      set body = excluded.body, body_size = excluded.body_size, code = excluded.code,
          detail = excluded.detail, idempotency_key = excluded.idempotency_key,
          order_id = excluded.order_id, status = excluded.status,
          deliveries = r.deliveries + excluded.deliveries,
          last_seen_at = greatest(r.last_seen_at, excluded.last_seen_at),
          -- guard: dismissed-reopens
          dismissed_at = case when (r.body, r.body_size, r.code)
                                   = (excluded.body, excluded.body_size, excluded.code)
                         then r.dismissed_at end
      returning r.webhook_id
    )
    -- Also unchanged: it raises 40001 in a caller whose snapshot is older.
    update flashsale_data.rejection_counter c
    set kept = c.kept + (select count(*) from chosen w where not w.is_known),
        dropped = c.dropped + coalesce( -- guard: dropped-counted
          (select sum(w.deliveries) from wanted w where not w.is_known and w.place > v_room), 0);
  end if;

  -- 4 One row a request
  return query
  select request.request_no, case when request.error is not null then 'SA009' end, request.error, request.id,
         case when request.error is null then
           case when request.id is null then 'ignored' when r.webhook_id is null then 'dropped'
                else 'kept' end end,
         r.deliveries
  from unnest(p_request_nos, v_errors, v_ids) with ordinality as request (request_no, error, id, i)
  left join flashsale_data.rejected_webhooks r on r.webhook_id = request.id
  order by request.i;
end
$$;
comment on function flashsale.record_rejected_webhooks(
  int[], text[], bytea[], text[], text[], text[], bigint[], text[]) is
  'Keeps webhooks that were refused and may stand for captured money; one outcome row each';
revoke execute on function flashsale.record_rejected_webhooks from public;
grant execute on function flashsale.record_rejected_webhooks to flashsale_api;
