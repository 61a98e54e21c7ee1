-- Put before every script. A wake says "look again", never what has happened: it may come twice.
local INBOX_TTL = 60

local function wake(inboxes, id)
  if not inboxes then return end
  for inbox in string.gmatch(inboxes, '%S+') do
    local key = 'wt:inbox:' .. inbox
    redis.call('RPUSH', key, id)
    redis.call('EXPIRE', key, INBOX_TTL)
  end
end

-- Adds a word to a space-separated list; returns nil if it stands there already.
local function joined(list, word)
  if not list or list == '' then return word end
  if string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true) then return nil end
  return list .. ' ' .. word
end

-- Ends a call: the one place that writes an outcome. `keep` is the seconds that it is kept unread.
local function finish(record, job, id, now, iso, keep, outcome, detail, fields)
  redis.call('HSET', record, 'state', 'ended', 'outcome', outcome, 'detail', detail, 'ended', now, unpack(fields))
  redis.call('EXPIRE', record, keep)
  redis.call('HSET', job, 'status', outcome == 'done' and 'finished' or outcome == 'cancelled' and 'canceled' or 'failed',
    'ended_at', iso)
  redis.call('EXPIRE', job, keep)
end
