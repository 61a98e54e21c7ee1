-- Notes that the result URL of a call was given out earlier than its web process had announced.
-- KEYS: record
-- ARGV: result TTL s
-- Returns 'ok'
local state = hget(KEYS[1], 'state')
if not state then return 'ok' end
redis.call('HSET', KEYS[1], 'untold', '0')
if state == 'ended' and redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 'ok'
