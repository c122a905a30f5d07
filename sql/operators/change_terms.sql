-- Changes when, how and to whom these products are sold, in one transaction. A term that is left
-- out, or null, stays as it is; '-infinity' lifts p_starts_at, 'infinity' p_ends_at, 0 the limits
-- and the times, '' the group. Once it has committed, no hold is placed by the old terms. Holds and
-- orders that exist keep their times and their units, also where these are more than a new limit;
-- a limit counts them, whenever they were placed, as far as they have a buyer. One row a product,
-- by ascending id: its terms as they are now.
--
-- p_starts_at, p_ends_at  holds are placed from p_starts_at on and before p_ends_at
-- p_max_per_buyer         units that a buyer has at most, in holds, pending and paid orders
-- p_limit_group           products with the same group count together towards the limit of each
-- p_hold_time, p_payment_window  instead of those of the settings
-- p_listed                whether list_products() shows it
-- p_max_per_hold          units of one hold, at most
--
-- Locks    the products, in ascending order, to commit.
-- Refuses  SA001 product_not_found, SA009 invalid_request, and then changes nothing; 40001 above
--          READ COMMITTED if a product has changed since the snapshot.
create or replace function flashsale.change_terms(
  p_product_ids bigint[], p_starts_at timestamptz default null, p_ends_at timestamptz default null,
  p_max_per_buyer int default null, p_limit_group text default null, p_hold_time interval default null,
  p_payment_window interval default null, p_listed boolean default null, p_max_per_hold int default null)
returns table (product_id bigint, starts_at timestamptz, ends_at timestamptz, max_per_buyer int,
               limit_group text, hold_time interval, payment_window interval, listed boolean,
               max_per_hold int, sale_status text, now timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select t.*
  from flashsale_data.set_terms(p_product_ids, 'terms_changed', p_starts_at, p_ends_at, p_max_per_buyer,
    p_limit_group, p_hold_time, p_payment_window, p_listed, p_max_per_hold) t;
end
$$;
comment on function flashsale.change_terms(bigint[], timestamptz, timestamptz, int, text, interval, interval, boolean, int) is
  'Changes when, how and to whom products are sold; returns their terms';
revoke execute on function flashsale.change_terms(bigint[], timestamptz, timestamptz, int, text, interval, interval, boolean, int) from public;
grant execute on function flashsale.change_terms(bigint[], timestamptz, timestamptz, int, text, interval, interval, boolean, int) to flashsale_ops;
