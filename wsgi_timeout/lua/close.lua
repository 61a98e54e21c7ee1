-- Ends a stream: 'complete' or 'broken'. Wakes its readers.
-- KEYS: stream
-- ARGV: id, end, TTL s
although_full(KEYS[1])
if redis.call('HSETNX', KEYS[1], 'end', ARGV[2]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  wake(redis.call('HGET', KEYS[1], 'readers'), ARGV[1])
end
return 'ok'
