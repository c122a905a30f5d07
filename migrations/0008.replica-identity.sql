-- depends: 0007.hold-prices

set local role flashsale_owner;
-- A table that a report reads for long is not waited for: callers would wait behind this. Migrate again.
set local lock_timeout = '3s';
set local statement_timeout = '10s';

-- A publication for all tables (logical replication, change data capture) refuses updates of a table
-- without a replica identity, and so would stop the sale. All other tables have a primary key.
alter table flashsale_data.stock replica identity using index stock_version_key;

reset role;
