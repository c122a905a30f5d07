-- The time by which a view judges the rows of the statement that it stands in: when
-- that statement began, above READ COMMITTED when the transaction did. Not newer than
-- the statement's snapshot; read_clock() says why. A view, since functions in views
-- are called with the rights of the reader.
create or replace view flashsale_data.statement_clock as
select case when current_setting('transaction_isolation') in ('repeatable read', 'serializable')
            then transaction_timestamp() else statement_timestamp() end as now;
comment on view flashsale_data.statement_clock is 'A time that is not newer than this statement''s snapshot';
