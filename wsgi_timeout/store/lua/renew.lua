-- Renews the leases of a pool's workers, and the TTL of running calls that nobody waits for.
-- Returns the workers that have lost their lease: they must stop.
-- KEYS: leases
-- ARGV: now ISO, WORKER_TTL s, number of renewals after which RQ's record of a worker is renewed too, worker...
local function keep_held(held)
  if not is_list(held) then return end
  for _, id in ipairs(redis.call('LRANGE', held, 0, -1)) do
    local record = 'wt:call:' .. id
    local ttl = redis.call('TTL', record)
    if ttl >= 0 and ttl < UNWANTED_TTL and hget(record, 'state') == 'running' then
      redis.call('EXPIRE', record, UNWANTED_TTL)
      redis.call('EXPIRE', 'rq:job:' .. id, UNWANTED_TTL)
    end
  end
end

-- Otherwise all workers would count as dead once Redis is full.
write_though_full(KEYS[1])
local lost = {}
for i = 4, #ARGV do
  local worker = ARGV[i]
  if redis.call('HEXISTS', KEYS[1], worker) == 1 then
    if redis.call('HINCRBY', KEYS[1], worker, 1) % ARGV[3] == 0 then
      redis.call('EXPIRE', 'wt:worker:' .. worker, ARGV[2])
      if redis.call('EXPIRE', 'rq:worker:' .. worker, ARGV[2]) == 1 then
        redis.pcall('HSET', 'rq:worker:' .. worker, 'last_heartbeat', ARGV[1])
      end
    end
    keep_held('wt:held:' .. worker)
  else
    lost[#lost + 1] = worker
  end
end
return lost
