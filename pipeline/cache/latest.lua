-- KEYS: keys of latest values. ARGV: ttl in seconds, length of the identity prefix, then per key
-- the document and its channel. A document begins with its identity in fixed width, so that text
-- order is identity order; only a newer one replaces and is published. Returns how many did.
local ttl, width = tonumber(ARGV[1]), tonumber(ARGV[2])
local written = 0
for i, key in ipairs(KEYS) do
  local document, channel = ARGV[2 * i + 1], ARGV[2 * i + 2]
  local known = redis.call('GETRANGE', key, 0, width - 1)
  if known == '' or known < string.sub(document, 1, width) then
    redis.call('SET', key, document, 'EX', ttl)
    redis.call('PUBLISH', channel, document)
    written = written + 1
  end
end
return written
