-- Stores one chunk of a function's large result; one of an old attempt is refused. A repeat changes nothing.
-- KEYS: value, record, bytes of the calls
-- ARGV: attempt, number, chunk
-- Returns 'ok' or 'fenced'
local r = hmget(KEYS[2], 'state', 'attempt')
if r[1] ~= 'running' or r[2] ~= ARGV[1] then return 'fenced' end
if redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) == 1 then
  for _, field in ipairs({'*', string.sub(KEYS[2], #'wt:call:' + 1)}) do redis.pcall('HINCRBY', KEYS[3], field, #ARGV[3]) end
end
-- When the call ends, the chunks get its result TTL, or are deleted.
redis.call('EXPIRE', KEYS[1], redis.call('TTL', KEYS[2]))
return 'ok'
