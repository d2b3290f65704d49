-- Finds the layout, or fixes it, and tries every command that a commit uses: a privilege that is
-- missing must show at the start and not in the middle of a commit.
--
-- KEYS: 1 the layout, 2 to 4 keys to try things on. ARGV: 1 the layout of a new store.

if redis.replicate_commands then redis.replicate_commands() end
redis.call('TIME')
local layout = redis.call('GET', KEYS[1])
if not layout then
  layout = ARGV[1]
  redis.call('SET', KEYS[1], layout)
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('SET', KEYS[2], 'a', 'PXAT', '9000000000000')
redis.call('GETRANGE', KEYS[2], 0, 1)
redis.call('MGET', KEYS[2], KEYS[3])
redis.call('EXISTS', KEYS[2])
redis.call('MSET', KEYS[2], 'a')
redis.call('TYPE', KEYS[2])
redis.call('ZADD', KEYS[3], 0, 'a')
redis.call('ZRANGEBYLEX', KEYS[3], '-', '+', 'LIMIT', 0, 1)
redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(1', 'LIMIT', 0, 1)
redis.call('ZREM', KEYS[3], 'a')
redis.call('XADD', KEYS[4], '1-1', 'e', 'a')
redis.call('XINFO', 'STREAM', KEYS[4])
redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)
redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)
redis.call('XTRIM', KEYS[4], 'MINID', '2-0')
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return layout
