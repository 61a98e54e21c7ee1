-- Claims an idempotency key for a call. Claiming it again for the same call changes nothing.
-- KEYS: claim
-- ARGV: call id, token, TTL s
-- Returns {} if the key now belongs to this call, else {id, token, body digest} of the call that has it
local r = hmget(KEYS[1], 'call', 'token', 'body')
-- A key without the field `call` was not written by us.
if not r[1] then redis.call('UNLINK', KEYS[1]) end
if r[1] and r[1] ~= ARGV[1] then return r end
redis.call('HSET', KEYS[1], 'call', ARGV[1], 'token', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {}
