-- Finds the chunk of a stream in which a byte lies, counted from the stream's beginning.
-- KEYS: stream
-- ARGV: offset
-- Returns {chunk number, bytes of the chunk before the offset}; nil if the byte was trimmed, or never written
local s = hmget(KEYS[1], 'count', 'first', 'gone')
local count, left = num(s[1], 0), tonumber(ARGV[1]) - num(s[3], 0)
if not s[1] or left < 0 then return false end
for number = num(s[2], 0), count - 1 do
  local length = redis.call('HSTRLEN', KEYS[1], number)
  if length == 0 then return false end
  if left < length then return {number, left} end
  left = left - length
end
if left > 0 then return false end
return {count, 0}
