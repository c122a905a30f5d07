-- A hold's id is the buyer's capability, so it comes from the server's cryptographic random
-- source; the state of random() can be computed from a few ids. 53 of the last 62 bits of a
-- version 4 UUID, all of which are random (RFC 9562, section 5.4): positive, and exact as a
-- JSON number (RFC 8259, section 6). Of p_slots slots, a power of two, its lowest bits are those of
-- its product's id. The planner inlines it.
create or replace function flashsale_data.new_hold_id(p_slots bigint default 1, p_product_id bigint default 0)
returns bigint
language sql volatile
as $$
  select (greatest(p_slots, 9007199254740991 -- guard: hold-id-entropy
    & ('x' || encode(substr(uuid_send(gen_random_uuid()), 9), 'hex'))::bit(64)::bigint)
    & -p_slots) | p_product_id % p_slots; -- guard: slot-of-hold
$$;
comment on function flashsale_data.new_hold_id(bigint, bigint) is 'An unguessable id between 1 and 2^53 - 1';
