-- Ends a stream: 'complete' or 'broken'. Wakes its readers.
-- KEYS: stream, record
-- ARGV: id, end, TTL s, chunks written
-- Returns 'ok', or 'lost': what is not whole must not look so
although_full(KEYS[1])
if ARGV[2] == 'complete' and tonumber(redis.call('HGET', KEYS[1], 'count') or 0) ~= tonumber(ARGV[4]) then
  return beginning_is_lost(KEYS[2]) and 'lost' or 'ok'
end
if redis.call('HSETNX', KEYS[1], 'end', ARGV[2]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  wake(redis.call('HGET', KEYS[1], 'readers'), ARGV[1])
end
return 'ok'
