-- Locks an operator's idempotency key (the first lock of the call) and returns what it has
-- done before; null if it is new, or null itself. Keys of different operations are different.
--
-- Refuses SA008 idempotency_key_reused, SA009 invalid_request.
create or replace function flashsale_data.replayed_operation(
  p_operation text, p_idempotency_key text, p_arguments jsonb)
returns flashsale_data.operations
language plpgsql
as $$
declare
  v_operation flashsale_data.operations;
begin
  if p_idempotency_key is null then
    return null;
  elsif length(p_idempotency_key) not between 1 and 255 then
    perform flashsale_data.raise_refusal('SA009', 'An idempotency key has 1 to 255 characters.');
  end if;
  perform flashsale_data.lock_keys(p_operation, array[p_idempotency_key]); -- guard: operation-key-lock
  select o.* into v_operation
  from flashsale_data.operations o
  where o.operation = p_operation and o.idempotency_key = p_idempotency_key;
  if v_operation.arguments <> p_arguments then -- guard: operation-key-reused
    perform flashsale_data.raise_refusal('SA008', 'This idempotency key came with other arguments.');
  end if;
  return v_operation;
end
$$;
comment on function flashsale_data.replayed_operation(text, text, jsonb) is
  'Locks an operator''s idempotency key; returns what it has done before';
