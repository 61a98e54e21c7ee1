-- Returns the chunks from a number on, and acknowledges all before it. Wakes a writer that waits for room.
-- KEYS: stream, record
-- ARGV: id, number, how many at most, reader's inbox, '1' if it is a response, attempt that reads its request or '',
--       '1' to return the number of chunks only
-- Returns {'ok' | 'trimmed' | 'missing', 'complete' | 'broken' | '' (not ended), ms when its attempt ended or '',
--   chunk... | how many}
write_though_full(KEYS[1])
local s = hmget(KEYS[1], 'count', 'first', 'read', 'end', 'readers', 'writer', 'ended')
if not s[1] and not s[4] then return {'missing', '', ''} end
-- A worker that was taken for dead must not acknowledge chunks that the next attempt has yet to read.
if ARGV[6] ~= '' then
  local r = hmget(KEYS[2], 'state', 'attempt')
  if r[1] ~= 'running' or r[2] ~= ARGV[6] then return {'missing', '', ''} end
end
local number, count = tonumber(ARGV[2]), num(s[1], 0)
if number < num(s[2], 0) then return {'trimmed', '', ''} end
local list = with_word(s[5], ARGV[4])
if list then redis.call('HSET', KEYS[1], 'readers', list) end
-- Once its first byte was read, a response must not be replaced by another run's. The record may have expired.
if ARGV[5] == '1' and number == 0 and count > 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'handed', '1')
  if num(hget(KEYS[2], 'untold'), 0) > server_ms() then redis.call('HSET', KEYS[2], 'untold', NEVER_TOLD) end
end
if number > num(s[3], 0) then
  redis.call('HSET', KEYS[1], 'read', number)
  list = true
end
-- An acknowledgement makes room, and a first reader changes the limit: wake the writer.
if list and s[6] then
  redis.call('HDEL', KEYS[1], 'writer')
  wake(s[6], ARGV[1])
end
local last = math.min(number + tonumber(ARGV[3]), count) - 1
-- The end is returned with the last chunk, never before it.
local answer = {'ok', last + 1 < count and '' or s[4] or '', s[7] or ''}
if ARGV[7] == '1' then
  answer[4] = last - number + 1
  return answer
end
for i = number, last do answer[#answer + 1] = hget(KEYS[1], i) end
return answer
