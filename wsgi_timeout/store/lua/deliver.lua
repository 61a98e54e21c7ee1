-- Notes that a response whose URL was given out was sent in full: it is kept for the grace period, then a tombstone is.
-- KEYS: record, request body, response body, tombstones, their ids
-- ARGV: now ms, grace ms, tombstone, tombstone TTL s, redirects that led to it, id, most tombstones
if hget(KEYS[1], 'state') ~= 'ended' then return 'not ended' end
-- First, since a full Redis accepts the writes of a script that began by freeing memory: see `finish`.
redis.call('UNLINK', KEYS[2])
if redis.call('HSETNX', KEYS[1], 'delivered', ARGV[1]) == 0 then return 'delivered' end
redis.call('HSET', KEYS[1], 'hops', ARGV[5])
for i, key in ipairs({KEYS[1], KEYS[3]}) do redis.call('PEXPIRE', key, ARGV[2]) end
redis.pcall('HSET', KEYS[4], ARGV[6], ARGV[3])
local kept = redis.pcall('RPUSH', KEYS[5], ARGV[1] .. ' ' .. ARGV[6])
if type(kept) ~= 'number' then kept = 0 end
for i = 4, 5 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
-- Deletes expired and surplus tombstones: two at most, so that each delivery costs the same.
for i = 1, 2 do
  local delivered, id = string.match(read('LINDEX', KEYS[5], 0) or '', '^(%d+) (.*)$')
  if not id or kept <= tonumber(ARGV[7]) and ARGV[1] - delivered <= ARGV[4] * 1000 then break end
  redis.call('LPOP', KEYS[5])
  redis.pcall('HDEL', KEYS[4], id)
  kept = kept - 1
end
return 'delivered'
