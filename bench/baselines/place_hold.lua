-- One hold: returns the units of expired holds, and takes `qty` units if that many are available.
-- KEYS  the product's stock, its active holds by expiry, the new hold
-- ARGV  hold_id, product_id, qty, seconds that the hold lives
-- Returns the millisecond in which the hold expires; 0: not enough units; -1: unknown product.
local hold_id, product_id, qty = ARGV[1], ARGV[2], tonumber(ARGV[3])
local available = tonumber(redis.call('HGET', KEYS[1], 'available'))
if not available then
  return -1
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for _, member in ipairs(expired) do
  available = redis.call('HINCRBY', KEYS[1], 'available', member:match(':(%d+)$'))
  redis.call('ZREM', KEYS[2], member)
end

if available < qty then
  return 0
end
local expires_at = now + ARGV[4] * 1000
redis.call('HINCRBY', KEYS[1], 'available', -qty)
redis.call('ZADD', KEYS[2], expires_at, hold_id .. ':' .. qty)
redis.call('HSET', KEYS[3], 'product_id', product_id, 'qty', qty, 'status', 'active', 'expires_at', expires_at)
redis.call('PEXPIREAT', KEYS[3], expires_at + 86400000)
return expires_at
