-- depends: 0009.byte-order-and-purged-ids

set local role flashsale_owner;
-- A table that a report reads for long is not waited for: callers would wait behind this. Migrate again.
set local lock_timeout = '3s';
set local statement_timeout = '10s';

-- A test product is sold as any other, but is not part of the shop's books. Set when it is created.
alter table flashsale_data.products add column is_test boolean not null default false;
comment on column flashsale_data.products.is_test is
  'Sold as any other, but neither listed nor counted; forget_tests() removes it with all that was sold of it.';
-- Readers look for the test products in each call: there are few or none. Products are few, too.
-- squawk-ignore require-concurrent-index-creation
create index products_tests on flashsale_data.products (product_id) where is_test;

reset role;
