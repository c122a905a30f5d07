-- depends: 0003.inbox-deadlines

-- The deadlines of stored webhooks are on whole tenths of a second, as the functions have set them since:
-- transactions that may still apply a webhook announce their time in tenths. A wait that has ended stays
-- ended.
set local role flashsale_owner;

update flashsale_data.payments p
set wait_ends_at = date_bin('100 milliseconds', p.wait_ends_at + interval '99.999 milliseconds',
                            timestamptz 'epoch')
where p.result = 'stored' and p.wait_ends_at > clock_timestamp();

reset role;
