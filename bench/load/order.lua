-- POST /api/orders, a new one for each hold.  Arguments: a file with one hold_id a line
dofile("bench/load/report.lua")

local headers = {["Content-Type"] = "application/json"}
local file, next_hold

function init(args)
  file = args[1]
  next_hold = io.lines(file)
end

function request()
  local hold_id = next_hold()
  if not hold_id then  -- only with the ceiling, which accepts a hold that was ordered already
    next_hold = io.lines(file)
    hold_id = next_hold()
  end
  return wrk.format("POST", "/api/orders", headers, '{"hold_id":' .. hold_id .. '}')
end
