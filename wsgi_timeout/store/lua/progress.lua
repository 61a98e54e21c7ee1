-- Records the progress of the current attempt; that of an older attempt is ignored.
-- KEYS: record
-- ARGV: attempt, progress as JSON
local r = hmget(KEYS[1], 'state', 'attempt')
if r[1] == 'running' and r[2] == ARGV[1] then redis.call('HSET', KEYS[1], 'progress', ARGV[2]) end
return 'ok'
