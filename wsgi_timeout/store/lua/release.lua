-- Queues the delayed calls that are due. Any pool of the name may run this, at any time.
-- KEYS: delayed, rq queue, bytes of the calls (with the sequence number)
-- ARGV: how many at most
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', KEYS[1], id)
  if hget('wt:call:' .. id, 'state') == 'delayed' then
    requeue('wt:call:' .. id, now)
    redis.call('HSET', 'wt:call:' .. id, 'seq', redis.call('HINCRBY', KEYS[3], '#', 1))
    redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
    redis.call('RPUSH', KEYS[2], id)
  end
end
return 'ok'
