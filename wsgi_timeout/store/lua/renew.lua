-- Renews the leases of a pool's workers, and the TTL of running calls that nobody waits for.
-- KEYS: leases
-- ARGV: now ISO, WORKER_TTL s, number of renewals after which RQ's record of a worker is renewed too, number of workers that
--       run calls, worker... (those that run calls first)
-- Returns the workers that have lost their lease, which must stop, and all leases of the name with their values
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

local all, at = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do at[all[i]] = i + 1 end

local lost, live, raised = {}, {}, {}
for i = 5, #ARGV do
  local worker = ARGV[i]
  if at[worker] then
    -- One that is no number stays as it is, and is lost like a silent worker's.
    local count = tonumber(all[at[worker]])
    if count then
      all[at[worker]] = string.format('%d', count + 1)
      raised[#raised + 1] = worker
      raised[#raised + 1] = all[at[worker]]
      live[worker] = count + 1
    end
  else
    lost[#lost + 1] = worker
  end
end

if #raised > 0 then
  local done = redis.pcall('HSET', KEYS[1], unpack(raised))
  if type(done) == 'table' and done.err then
    -- Otherwise all workers would count as dead once Redis is full.
    write_though_full(KEYS[1])
    redis.call('HSET', KEYS[1], unpack(raised))
  end
end
for i = 5, #ARGV do
  local worker = ARGV[i]
  if live[worker] and live[worker] % ARGV[3] == 0 then
    redis.call('EXPIRE', 'wt:worker:' .. worker, ARGV[2])
    if redis.call('EXPIRE', 'rq:worker:' .. worker, ARGV[2]) == 1 then
      redis.pcall('HSET', 'rq:worker:' .. worker, 'last_heartbeat', ARGV[1])
      redis.pcall('HSET', 'wt:worker:' .. worker, 'clock', ARGV[1], 'told', table.concat(redis.call('TIME'), ' '))
    end
  end
  if live[worker] and i < 5 + ARGV[4] then keep_held('wt:held:' .. worker) end
end
return {lost, all}
