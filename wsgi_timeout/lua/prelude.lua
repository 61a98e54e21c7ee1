-- Put before every script. A wake says "look again"; it may come twice, or not at all.
local INBOX_TTL = 60
-- Bytes of a response that a wake may carry: an inbox whose process has died lies there for its TTL.
local CARRIED = 4096

local function wake(inboxes, message)
  if not inboxes then return end
  for inbox in string.gmatch(inboxes, '%S+') do
    local key = 'wt:inbox:' .. inbox
    redis.call('RPUSH', key, message)
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
-- To RQ a job that has ended is gone; a stock worker of RQ is not done with it yet, and deletes it itself.
-- The request goes: headers and bodies hold credentials, and nobody runs it again.
local function finish(record, job, id, stock, now, keep, outcome, detail, fields)
  redis.call('HSET', record, 'state', 'ended', 'outcome', outcome, 'detail', detail, 'ended', now, 'request', '',
    unpack(fields))
  redis.call('EXPIRE', record, keep)
  local input, arguments = 'wt:in:' .. id, 'wt:args:' .. id
  if stock then redis.call('UNLINK', input, arguments) else redis.call('UNLINK', job, input, arguments) end
end
