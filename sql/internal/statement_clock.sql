-- The time for views and functions in SQL that measure how long something has waited: the
-- start of the statement; above READ COMMITTED, of the transaction. A view, because functions
-- in views run with the rights of the reader.
create or replace view flashsale_data.statement_clock as
select case when current_setting('transaction_isolation') in ('repeatable read', 'serializable')
            then transaction_timestamp() else statement_timestamp() end as now;
comment on view flashsale_data.statement_clock is 'When this statement began; above READ COMMITTED, when its transaction did';
