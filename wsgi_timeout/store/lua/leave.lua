-- Removes a reader of a stream: without readers its writer may use the larger limit again.
-- KEYS: stream
-- ARGV: id, reader's inbox
local s = hmget(KEYS[1], 'readers', 'writer', 'end')
if not s[1] then return 'ok' end
local rest = {}
for word in string.gmatch(s[1], '%S+') do
  if word ~= ARGV[2] then rest[#rest + 1] = word end
end
if #rest > 0 then
  redis.call('HSET', KEYS[1], 'readers', table.concat(rest, ' '))
else
  redis.call('HDEL', KEYS[1], 'readers')
  if not s[3] then redis.call('HSET', KEYS[1], 'left', redis.call('TIME')[1]) end
  wake(s[2], ARGV[1])
end
return 'ok'
