-- Notes that the client of a page load has disconnected: a reload may now join its call.
-- KEYS: note
-- ARGV: call id, inbox of the web process that waited, TTL s
-- Returns 1 if it did, 0 if the note is not this request's any more
local r = hmget(KEYS[1], 'call', 'inbox', 'gone')
if r[1] ~= ARGV[1] or r[2] ~= ARGV[2] or num(r[3], 0) > 0 then return 0 end
redis.call('HSET', KEYS[1], 'gone', string.format('%d', server_ms()))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
