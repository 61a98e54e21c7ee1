-- Ends a stream: 'complete' or 'broken'. Wakes its readers.
-- KEYS: stream, record
-- ARGV: id, end, TTL s, chunks written
-- Returns 'ok', or 'lost': chunks are missing, so the stream is not marked as complete
write_though_full(KEYS[1])
-- When a call ends its request body is deleted.
if hget(KEYS[2], 'state') == 'ended' then return 'ok' end
local count = num(hget(KEYS[1], 'count'), 0)
if ARGV[2] == 'complete' and count ~= tonumber(ARGV[4]) then return 'lost' end
if redis.call('HSETNX', KEYS[1], 'end', ARGV[2]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  wake(hget(KEYS[1], 'readers'), ARGV[1])
else
  touch(KEYS[1])
end
return 'ok'
