-- Claims an idempotency key for a call. A repeat by the same call changes nothing.
-- KEYS: claim
-- ARGV: call id, token, TTL s
-- Returns nothing if it is this call's now, else the id and token of the call that has it, and the digest of its body
local r = hmget(KEYS[1], 'call', 'token', 'body')
-- Somebody else has written it.
if not r[1] then redis.call('UNLINK', KEYS[1]) end
if r[1] and r[1] ~= ARGV[1] then return r end
redis.call('HSET', KEYS[1], 'call', ARGV[1], 'token', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {}
