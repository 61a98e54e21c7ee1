-- Describes a web process for `wsgi-timeout doctor`; processes that were silent for the TTL are removed.
-- KEYS: web processes of a name
-- ARGV: process, description, TTL s
local time = redis.call('TIME')
local now = tonumber(time[1])
local known = redis.pcall('HGETALL', KEYS[1])
if known.err then
  redis.call('UNLINK', KEYS[1])
  known = {}
end
for i = 1, #known, 2 do
  if num(string.match(known[i + 1], '^%d+'), 0) < now - ARGV[3] then redis.call('HDEL', KEYS[1], known[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s.%06d %s', time[1], time[2], ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 'ok'
