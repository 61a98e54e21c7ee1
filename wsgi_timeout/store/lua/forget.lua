-- Deletes the keys of calls for which nobody can ask any more.
-- KEYS: bytes of the calls (and keys to delete)
-- ARGV: id...
local counted, bytes = hmget(KEYS[1], unpack(ARGV)), 0
for i = 1, #ARGV do bytes = bytes + num(counted[i], 0) end
redis.call('UNLINK', unpack(KEYS, 2))
if redis.pcall('HDEL', KEYS[1], unpack(ARGV)) ~= 0 and bytes > 0 then redis.pcall('HINCRBY', KEYS[1], '*', -bytes) end
return 'ok'
