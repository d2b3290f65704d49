-- One commit: everything is checked before the first write, for Redis undoes nothing.
--
-- KEYS: 1 last tick, 2 filings, 3 feed, 4 audit, then the records (those only read first), then
--       the lists of names.
-- ARGV: 1 how many are only read, 2 how many are written, 3 feed entries, 4 audit entries,
--       5 on which channel followers are told (none: they aren't), 6 what they are told; then a
--       version for each record; then eight values for each write (P or D, its list among KEYS,
--       its name there, its name among the filings, review, expiry, time to live, body); then the
--       entries.
-- A review is "=" (as it is), "-" (never) or an instant.

-- Before Redis 7, whoever has asked for the time may write only after this.
if redis.replicate_commands then redis.replicate_commands() end

local NONE = '0000000000000000'
local COUNTS = 65536
-- How many arguments one command is given.
local MOST = 1000
local reads, writes = tonumber(ARGV[1]), tonumber(ARGV[2])
local feeds, audits = tonumber(ARGV[3]), tonumber(ARGV[4])
local records = reads + writes

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function wrong(key, expected)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= expected then return {'type', key, found} end
end

local problem = wrong(KEYS[2], 'zset')
if not problem and feeds > 0 then problem = wrong(KEYS[3], 'stream') end
if not problem and audits > 0 then problem = wrong(KEYS[4], 'stream') end
for i = 5 + records, #KEYS do problem = problem or wrong(KEYS[i], 'zset') end
if problem then return problem end

-- Mostly nothing is where there must be nothing, and one question tells so of all.
local fresh = {}
for i = 1, records do
  if ARGV[6 + i] == NONE then fresh[#fresh + 1] = KEYS[4 + i] end
end
local is_clear = #fresh > 0 and #fresh <= MOST and redis.call('EXISTS', unpack(fresh)) == 0

for i = 1, records do
  if not (is_clear and ARGV[6 + i] == NONE) then
    local key = KEYS[4 + i]
    local head = redis.pcall('GETRANGE', key, 0, 32)
    if type(head) == 'table' then return wrong(key, 'string') or head end
    local version = NONE
    if head ~= '' then
      local expiry = tonumber(string.sub(head, 18, 33))
      if string.sub(head, 1, 1) ~= '1' or #head < 33 or not expiry then return {'format', key} end
      if expiry > now then version = string.sub(head, 2, 17) end
    end
    if version ~= ARGV[6 + i] then return {'conflict', i} end
  end
end

-- Ticks are 64 bits, numbers here 53: a tick is kept as its two parts.
local ms, count = 0, 0
local last = redis.pcall('GET', KEYS[1])
if type(last) == 'table' then return wrong(KEYS[1], 'string') or last end
if last then
  ms, count = tonumber(string.sub(last, 1, 12), 16), tonumber(string.sub(last, 13), 16)
  if #last ~= 16 or not ms or not count then return {'format', KEYS[1]} end
else
  -- Whoever removed the tick must not make a log go back.
  for i = 3, 4 do
    if redis.call('TYPE', KEYS[i]).ok == 'stream' then
      local facts = redis.call('XINFO', 'STREAM', KEYS[i])
      for at = 1, #facts, 2 do
        if facts[at] == 'last-generated-id' then
          local top, sequence = string.match(facts[at + 1], '(%d+)-(%d+)')
          top, sequence = tonumber(top), math.floor(tonumber(sequence) / COUNTS)
          if top > ms or (top == ms and sequence > count) then ms, count = top, sequence end
        end
      end
    end
  end
end
if now > ms then
  ms, count = now, 0
elseif count + 1 < COUNTS then
  count = count + 1
else
  ms, count = ms + 1, 0
end
local tick = string.format('%012x%04x', ms, count)

-- The tick comes with the first write: where a full server refuses that, nothing has happened, and
-- whatever follows is then let through.
local values, unfiled = {KEYS[1], tick}, {}
local function flush(command, before, list)
  if #list > 0 then
    if before then table.insert(list, 1, before) end
    redis.call(command, unpack(list))
  end
end
local at = 6 + records
for i = 1, writes do
  if ARGV[at + 1] ~= 'D' and ARGV[at + 7] == '' then
    values[#values + 1] = KEYS[4 + reads + i]
    values[#values + 1] = '1' .. tick .. ARGV[at + 6] .. ARGV[at + 8]
    if #values >= MOST then
      flush('MSET', nil, values)
      values = {}
    end
  end
  at = at + 8
end
flush('MSET', nil, values)

at = 6 + records
for i = 1, writes do
  local key, is_new = KEYS[4 + reads + i], ARGV[6 + reads + i] == NONE
  local list, name, filing = KEYS[tonumber(ARGV[at + 2])], ARGV[at + 3], ARGV[at + 4]
  local review, expiry, ttl = ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  if ARGV[at + 1] == 'D' then
    redis.call('DEL', key)
    redis.call('ZREM', list, name)
    unfiled[#unfiled + 1] = filing
  else
    if ttl ~= '' then
      redis.call('SET', key, '1' .. tick .. expiry .. ARGV[at + 8], 'PXAT', ttl)
    end
    if is_new then redis.call('ZADD', list, 0, name) end
    if review == '-' or (review == '=' and is_new) then
      unfiled[#unfiled + 1] = filing
    elseif review ~= '=' then
      redis.call('ZADD', KEYS[2], review, filing)
    end
  end
  if #unfiled >= MOST then
    flush('ZREM', KEYS[2], unfiled)
    unfiled = {}
  end
  at = at + 8
end
flush('ZREM', KEYS[2], unfiled)

local function log(key, entries)
  for n = 0, entries - 1 do
    at = at + 1
    local id = string.format('%.0f-%.0f', ms, count * COUNTS + n)
    redis.call('XADD', key, id, 'e', ARGV[at])
  end
end
log(KEYS[3], feeds)
log(KEYS[4], audits)
-- Whoever may not do this loses nothing but time: followers read on by themselves.
if ARGV[5] ~= '' then redis.pcall('PUBLISH', ARGV[5], ARGV[6]) end
return {'done', tick}
