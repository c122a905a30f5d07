-- For each request of apply_payments: what its idempotency key has recorded, whether that is
-- a stored webhook whose wait has ended at p_now, and whether the request is to be applied. Of
-- one key's requests the first is applied; the others are its replays. A stored webhook whose
-- wait has ended makes way for the request, unless it is a captured payment. Both are false for
-- requests with an error, or whose key is not in p_locked_keys.
create or replace function flashsale_data.recorded_payments(
  p_idempotency_keys text[], p_errors text[], p_locked_keys text[], p_now timestamptz,
  out recorded flashsale_data.payments[], out wait_ended boolean[], out to_apply boolean[])
language plpgsql stable
as $$
begin
  select array_agg(r.recorded), array_agg(r.wait_ended),
         array_agg(r.first and (r.is_new or r.wait_ended and (r.recorded).status <> 'success'))
    into recorded, wait_ended, to_apply
  from (
    select p as recorded, p.idempotency_key is null as is_new,
           p.result = 'stored' and p.wait_ends_at <= p_now and request.is_locked as wait_ended,
           request.is_locked
             -- guard: first-of-key
             and request.i = min(request.i) over (partition by request.key, request.is_locked) as first
    from (
      select u.key, u.i, u.error is null and u.key in (select unnest(p_locked_keys)) as is_locked
      from unnest(p_idempotency_keys, p_errors) with ordinality as u (key, error, i)
      offset 0) request
    left join flashsale_data.payments p on p.idempotency_key = request.key
    order by request.i) r;
end
$$;
comment on function flashsale_data.recorded_payments(text[], text[], text[], timestamptz) is
  'For each request, what its idempotency key has recorded, and whether it is to be applied';
