-- Moves a call that was popped and not started back to the front of the queue. One that runs is left alone.
-- KEYS: list that holds it, rq queue, record
-- ARGV: id
-- Returns 1 if it did
local state = hget(KEYS[3], 'state')
if state == 'running' or not is_list(KEYS[1]) then return 0 end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 or state ~= 'queued' then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[1])
local worker = string.match(KEYS[1], '^wt:held:(.+)')
if worker then note_left(KEYS[3], worker) end
return 1
