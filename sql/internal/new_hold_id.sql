-- A hold's id is the buyer's capability, so it comes from the server's cryptographic random
-- source; the state of random() can be computed from a few ids. 53 of the last 62 bits of a
-- version 4 UUID, all of which are random (RFC 9562, section 5.4): positive, and exact as a
-- JSON number (RFC 8259, section 6).
create or replace function flashsale_data.new_hold_id()
returns bigint
language sql volatile
as $$
  select greatest(1, 9007199254740991 -- guard: hold-id-entropy
    & ('x' || encode(substr(uuid_send(gen_random_uuid()), 9), 'hex'))::bit(64)::bigint);
$$;
comment on function flashsale_data.new_hold_id() is 'An unguessable id between 1 and 2^53 - 1';
