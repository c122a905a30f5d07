-- POST /api/payments/webhook, a success for one order after another
dofile("bench/load/report.lua")

local headers = {["Content-Type"] = "application/json"}
local order = 0

function request()
  order = order + 1
  return wrk.format("POST", "/api/payments/webhook", headers, string.format(
    '{"idempotency_key":"pay_%d","order_id":%d,"status":"success","amount":"99.00","currency":"USD"}',
    order, order))
end
