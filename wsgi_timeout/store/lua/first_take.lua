-- Gives the call in a note to a new request, if the client that waited for it has disconnected.
-- KEYS: note
-- ARGV: inbox of the web process that asks, a random word for this request, most ms since the disconnect, TTL s
-- Returns nothing if there is no such call; {ms since it began} if its client seems to be connected (its web process is
--   woken to check that); else {call id, token, what its request asked for, its route, its X-Request-ID}
local r = hmget(KEYS[1], 'call', 'token', 'inbox', 'began', 'gone', 'by')
if not r[1] then return false end
local call = hmget('wt:call:' .. r[1], 'state', 'delivered', 'asked', 'route', 'request_id')
if not call[1] or call[2] then
  redis.call('UNLINK', KEYS[1])
  return false
end
local taken, now = {r[1], r[2], call[3] or '', call[4] or '', call[5] or ''}, server_ms()
if r[6] == ARGV[2] then return taken end
local gone = num(r[5], 0)
if gone == 0 then
  wake(r[3], r[1])
  return {now - num(r[4], 0)}
end
if now - gone > tonumber(ARGV[3]) then return false end
redis.call('HSET', KEYS[1], 'inbox', ARGV[1], 'by', ARGV[2], 'gone', '')
redis.call('EXPIRE', KEYS[1], ARGV[4])
return taken
