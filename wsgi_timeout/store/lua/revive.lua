-- Queues a call again that a stock worker of RQ marked as failed before it began: its process was killed, or Redis was
-- away.
-- KEYS: rq failed, rq queue, record, rq job
-- ARGV: id
-- Returns 1 if it did
if hget(KEYS[3], 'state') ~= 'queued' or redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[4], 'status', 'queued')
redis.call('EXPIRE', KEYS[4], redis.call('TTL', KEYS[3]))
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
