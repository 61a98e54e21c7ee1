-- Notes that a browser is led from a call's result URL to its address, unless it is led there for another call.
-- KEYS: notes of this call and then of each other one that the browser waits for there
-- ARGV: TTL ms
-- Returns whether it is led there now
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
