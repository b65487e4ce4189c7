-- KEYS: keys of latest values. ARGV: length of the identity prefix, then per key the document, its
-- channel and its ttl in seconds. A document begins with its identity in fixed width, so that text
-- order is identity order; only a newer one replaces, and is published if its channel has a name.
-- Returns how many did.
local width = tonumber(ARGV[1])
local written = 0
for i, key in ipairs(KEYS) do
  local document, channel, ttl = ARGV[3 * i - 1], ARGV[3 * i], tonumber(ARGV[3 * i + 1])
  local known = redis.call('GETRANGE', key, 0, width - 1)
  -- That there is none ('null') is older than any row, whatever the order of texts says.
  if known == '' or known == 'null' or known < string.sub(document, 1, width) then
    redis.call('SET', key, document, 'EX', ttl)
    if channel ~= '' then redis.call('PUBLISH', channel, document) end
    written = written + 1
  end
end
return written
