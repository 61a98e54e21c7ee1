-- Appends one chunk to a stream, or says that it is full. A repeat of the same number changes nothing.
-- KEYS: stream, record, bytes of the calls (only if they are counted)
-- ARGV: id, number, chunk, most bytes kept of a larger body that has a reader, most bytes kept otherwise, TTL s, writer's
--       inbox, attempt ('' for a request body, which no attempt writes), head (with a response's first chunk, else ''),
--       seconds that chunks are kept after they were read (0: until room is needed), max_buffered_bytes ('': the limit
--       in the field '+'), bytes of a chunk that this transaction has stored already ('': it comes with the script)
-- Returns {'ok' | 'full' | 'over' (max_buffered_bytes is used, and the call was not accepted yet) | 'fenced' | 'lost',
--   1 if there is a reader, after an 'ok': 1 if that reader is behind by more than the limit with a reader, and 1 if a
--   chunk of the same size would fit now}
local stored = ARGV[12] ~= ''
-- Takes a chunk away that is refused, or that comes again after it was read.
local function take_away()
  if stored then redis.pcall('HDEL', KEYS[1], ARGV[2]) end
end
local inboxes
if ARGV[8] ~= '' then
  local r = hmget(KEYS[2], 'state', 'attempt', 'inboxes', 'unwanted')
  -- An unwanted response is refused too, as a server's write fails when the client has gone.
  if r[1] ~= 'running' or r[2] ~= ARGV[8] or r[4] then
    take_away()
    return {'fenced', 0}
  end
  inboxes = r[3]
end
local s = hmget(KEYS[1], 'count', 'first', 'read', 'kept', 'readers', 'gone')
local count, first, read = num(s[1], 0), math.max(0, num(s[2], 0)), num(s[3], 0)
local kept = num(s[4], 0)
-- Redis needs some 40 bytes for each chunk, so a small one counts as LEAST bytes.
local LEAST = 64
local number, size = tonumber(ARGV[2]), math.max(LEAST, tonumber(ARGV[12]) or string.len(ARGV[3]))
local reader = s[5] and 1 or 0
if number < count then
  if number < first then take_away() end
  return {'ok', reader}
end
if number > count then
  take_away()
  -- Redis was emptied, or came back without its last writes; or the call has ended, and its request body was deleted.
  return {hget(KEYS[2], 'state') == 'ended' and 'full' or 'lost', 0}
end
local before, over = kept, false
if KEYS[3] then
  local b = hmget(KEYS[3], '*', '+')
  local most = tonumber(ARGV[11]) or tonumber(b[2]) or math.huge
  over = num(b[1], 0) + size > most
  if over then
    if ARGV[8] == '' and redis.call('EXISTS', KEYS[2]) == 0 then
      take_away()
      return {'over', 0}
    end
    -- A response that is being read may go on, since reading it makes room.
    if ARGV[8] ~= '' and reader == 0 and kept > 0 then
      redis.call('HSET', KEYS[1], 'writer', ARGV[7])
      take_away()
      return {'full', 0}
    end
  end
end
local limit, gone = tonumber(reader == 1 and ARGV[4] or ARGV[5]), 0
-- Deletes the first chunks, of those before `before`, until the body fits: only what was read is deleted.
local function trim(before, most)
  -- Bounded, since others may have written these numbers.
  local last = math.min(before, first + 10000)
  while first < last and kept + size > most do
    local length = redis.call('HSTRLEN', KEYS[1], first)
    kept, gone = kept - math.max(LEAST, length), gone + length
    redis.call('HDEL', KEYS[1], first)
    first = first + 1
  end
end
-- Counts bytes that were added or deleted.
local function count_bytes(change)
  if not KEYS[3] or change == 0 then return end
  redis.call('HINCRBY', KEYS[3], '*', change)
  redis.call('HINCRBY', KEYS[3], ARGV[1], change)
end
local window = tonumber(ARGV[10])
if window > 0 then
  limit = tonumber(ARGV[5])
  local now, m = tonumber(redis.call('TIME')[1]), hmget(KEYS[1], 'marked', 'mark', 'old')
  if not m[1] or now - m[1] > window then
    redis.call('HSET', KEYS[1], 'marked', now, 'mark', count, 'old', m[2] or 0, 'window', window)
  end
  trim(math.min(read, tonumber(m[3] or 0)), tonumber(ARGV[4]))
elseif reader == 1 then
  -- Once its beginning is gone, nobody can read it anew: what was read is of no more use.
  trim(read, num(s[6], 0) > 0 and 0 or limit)
  -- A body that fits the larger limit as a whole does not wait for a slow reader.
  if not over and kept + size + gone + (s[6] or 0) <= tonumber(ARGV[5]) then limit = tonumber(ARGV[5]) end
end
if kept > 0 and kept + size > limit then
  trim(read, limit)
  if kept > 0 and kept + size > limit then
    redis.call('HSET', KEYS[1], 'writer', ARGV[7], 'first', first, 'kept', kept)
    if gone > 0 then redis.call('HINCRBY', KEYS[1], 'gone', gone) end
    count_bytes(kept - before)
    take_away()
    return {'full', reader}
  end
end
redis.call('HSET', KEYS[1], 'count', number + 1, 'first', first, 'kept', kept + size)
if not stored then redis.call('HSET', KEYS[1], number, ARGV[3]) end
if gone > 0 then redis.call('HINCRBY', KEYS[1], 'gone', gone) end
count_bytes(kept + size - before)
if number == 0 and ARGV[8] == '' then redis.call('HSET', KEYS[1], 'uploader', ARGV[7]) end
-- Never lowered: once its call is queued, a request body has the TTL of the call.
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[6]) then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[2], 'head', ARGV[9], 'begun', string.format('%d', server_ms()))
  wake(inboxes, ARGV[1])
end
-- A reader waits only for the chunk after the last one; any other looks for it by itself.
if reader == 1 and read >= number then wake(s[5], ARGV[1]) end
local behind = window == 0 and reader == 1 and kept + size > tonumber(ARGV[4])
return {'ok', reader, behind and 1 or 0, not over and kept + 2 * size <= limit and 1 or 0}
