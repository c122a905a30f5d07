-- Raises SA009 unless this transaction has exported the slot as this move.
create or replace function flashsale_data.check_move(p_slot int, p_move_id uuid)
returns void
language plpgsql
as $$
begin
  perform from flashsale_data.departed_slots d
  where d.slot = p_slot and d.move_id = p_move_id and d.departed_at is null
    and d.transaction_id = pg_current_xact_id(); -- guard: one-transaction-of-move
  if not found then
    perform flashsale_data.raise_refusal('SA009', 'This transaction has not exported the slot under this move_id.');
  end if;
end
$$;
comment on function flashsale_data.check_move(int, uuid) is 'Raises SA009 unless this transaction has exported the slot';
