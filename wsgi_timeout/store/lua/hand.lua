-- Notes that a browser is redirected from a call's result URL to its address, unless it is being redirected there for
-- another call.
-- KEYS: note of this call (and those of other calls that the browser waits for at that address)
-- ARGV: TTL ms
-- Returns 1 if the note was made, else 0
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
