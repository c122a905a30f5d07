-- Locks order ids that may have no row yet, until commit. create_orders locks the ids it has
-- drawn, apply_payments the ids it finds no order for: the second of the two to lock an id
-- sees what the first has committed, so a stored webhook and its order cannot miss each other.
-- Returns the ids it locked.
--
-- With p_wait it waits for each id in ascending order: for create_orders, whose ids no other
-- transaction creates. Without, ids that are locked are left out.
create or replace function flashsale_data.lock_order_ids(p_order_ids bigint[], p_wait boolean)
returns bigint[]
language plpgsql
as $$
declare
  c_space  constant int := hashtext('flashsale.order_id');
  v_locked bigint[];
begin
  if p_wait then
    -- The subquery sorts before the first lock is requested.
    perform pg_advisory_xact_lock(c_space, (id % 2147483648)::int) -- guard: order-id-lock
    from (select distinct wanted from unnest(p_order_ids) wanted order by wanted) as sorted (id);
    return p_order_ids;
  end if;
  v_locked := array(
    select id
    from (select distinct wanted from unnest(p_order_ids) wanted) as each (id)
    where pg_try_advisory_xact_lock(c_space, (id % 2147483648)::int));
  return v_locked;
end
$$;
comment on function flashsale_data.lock_order_ids(bigint[], boolean) is
  'Locks order ids, whether or not there is such an order; returns those it locked';
