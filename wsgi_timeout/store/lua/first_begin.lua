-- Notes the call of a navigation that goes on waiting for it, and of which its browser knows nothing yet.
-- KEYS: note
-- ARGV: call id, token, inbox of who waits, TTL s, '1' if its client has left already
-- Returns the id of another call that was left in its place and is nobody's now, else nothing
local r = hmget(KEYS[1], 'call', 'gone')
redis.call('UNLINK', KEYS[1])
local gone = ARGV[5] == '1' and string.format('%d', server_ms()) or ''
redis.call('HSET', KEYS[1], 'call', ARGV[1], 'token', ARGV[2], 'inbox', ARGV[3], 'began',
  string.format('%d', server_ms()), 'gone', gone, 'by', '')
redis.call('EXPIRE', KEYS[1], ARGV[4])
return r[1] and r[1] ~= ARGV[1] and num(r[2], 0) > 0 and r[1]
