-- Notes that somebody waits for calls; only calls that are abandoned without a waiter are in this set.
-- KEYS: when calls are abandoned
-- ARGV: id...
-- Returns 1, or 0 if no call of this name can be abandoned
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return 0 end
local now = server_ms()
for i, id in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], id) then
    redis.call('ZADD', KEYS[1], 'XX', now + num(hget('wt:call:' .. id, 'abandon'), 0), id)
  end
end
return 1
