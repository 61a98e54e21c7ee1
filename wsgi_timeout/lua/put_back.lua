-- Moves a call that was popped and not started back to the front of the queue.
-- KEYS: list where it lies, rq queue, record
-- ARGV: id
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 and redis.call('HGET', KEYS[3], 'state') == 'queued' then
  redis.call('LPUSH', KEYS[2], ARGV[1])
end
return 'ok'
