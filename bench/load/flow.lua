-- Hold, then order, then payment. A response to one is followed by a request of the next, else by a new hold.
-- A third of all requests is of each kind.
dofile("bench/load/report.lua")

local headers = {["Content-Type"] = "application/json"}
local hold
local next_requests, first, last = {}, 1, 0

local function add(path, body)
  last = last + 1
  next_requests[last] = wrk.format("POST", path, headers, body)
end

function init()
  hold = wrk.format("POST", "/api/holds", headers, '{"product_id":1,"qty":1}')
end

function request()
  if first > last then
    return hold
  end
  local waiting = next_requests[first]
  next_requests[first] = nil
  first = first + 1
  return waiting
end

function response(status, _, body)
  local hold_id = body:match('^{"hold_id":(%d+)')
  if hold_id then
    return add("/api/orders", '{"hold_id":' .. hold_id .. '}')
  end
  local order_id = body:match('^{"order_id":(%d+),"status":"pending_payment"')
  if order_id then
    add("/api/payments/webhook", '{"idempotency_key":"pay_' .. order_id .. '","order_id":' .. order_id
      .. ',"status":"success","amount":"99.00","currency":"USD"}')
  end
end
