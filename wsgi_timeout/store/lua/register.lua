-- Registers a worker: its lease, what it serves, and its birth as RQ records it.
-- KEYS: leases, worker, rq workers, rq workers of the queue, rq queues, rq worker, held
-- ARGV: worker, pool's inbox, WORKER_TTL s, rq queue's key, rq worker's key, number of info values, info..., birth...
redis.call('HSETNX', KEYS[1], ARGV[1], '1')
-- A worker sends nothing before this, so nothing of it can arrive late: it may hold calls even if an earlier try of this
-- was followed by `recover`.
if not is_list(KEYS[7]) then redis.call('UNLINK', KEYS[7]) end
redis.call('SADD', KEYS[5], ARGV[4])
local split = 6 + tonumber(ARGV[6])
-- With Redis' clock, beside the worker's own that is in the info: the doctor compares them.
redis.call('HSET', KEYS[2], 'pool', ARGV[2], 'told', table.concat(redis.call('TIME'), ' '), unpack(ARGV, 7, split))
redis.call('EXPIRE', KEYS[2], ARGV[3])
-- A stock worker of RQ records its birth itself.
if split == #ARGV then return 'ok' end
redis.call('SADD', KEYS[3], ARGV[5])
redis.call('SADD', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[6], unpack(ARGV, split + 1))
redis.call('EXPIRE', KEYS[6], ARGV[3])
return 'ok'
