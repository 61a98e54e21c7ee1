-- Notes the call of a page load that waits for it, before its browser was told a URL of it.
-- KEYS: note
-- ARGV: call id, token, inbox of the web process that waits, TTL s, '1' if the client has disconnected already
-- Returns the id of an earlier call in this note whose client has disconnected: nobody can join it any more; else nothing
local r = hmget(KEYS[1], 'call', 'gone')
redis.call('UNLINK', KEYS[1])
local gone = ARGV[5] == '1' and string.format('%d', server_ms()) or ''
redis.call('HSET', KEYS[1], 'call', ARGV[1], 'token', ARGV[2], 'inbox', ARGV[3], 'began',
  string.format('%d', server_ms()), 'gone', gone, 'by', '')
redis.call('EXPIRE', KEYS[1], ARGV[4])
return r[1] and r[1] ~= ARGV[1] and num(r[2], 0) > 0 and r[1]
