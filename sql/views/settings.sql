create or replace view flashsale.settings as
select s.hold_time, s.payment_window, s.inbox_limit, s.inbox_keep, s.rejected_limit,
       s.extension_time, s.max_extensions
from flashsale_data.settings s;
comment on view flashsale.settings is 'Behaviour that all callers share; change_settings() edits it';
revoke all on flashsale.settings from public;
grant select on flashsale.settings to flashsale_ops;
