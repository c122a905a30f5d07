-- Records what an operator's idempotency key has done, with the answer. Nothing without a key.
-- Above READ COMMITTED: raises 40001 if the key was used since the snapshot.
create or replace function flashsale_data.record_operation(
  p_operation text, p_idempotency_key text, p_arguments jsonb, p_product_id bigint,
  p_total_stock int default null, p_available_stock int default null)
returns void
language plpgsql
as $$
begin
  if p_idempotency_key is null then
    return;
  end if;
  insert into flashsale_data.operations
    (operation, idempotency_key, arguments, product_id, total_stock, available_stock, done_at)
  values (p_operation, p_idempotency_key, p_arguments, p_product_id, p_total_stock, p_available_stock,
          clock_timestamp())
  on conflict (operation, idempotency_key) do nothing;
  if not found then
    perform flashsale_data.raise_unwritten('operations');
  end if;
end
$$;
comment on function flashsale_data.record_operation(text, text, jsonb, bigint, int, int) is
  'Records what an operator''s idempotency key has done';
