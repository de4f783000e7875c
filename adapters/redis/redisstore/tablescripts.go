package redisstore

// The scripts of tables. A row is one field of a hash: its version and stamp as text, then '-' for
// a tombstone, or '=' and the value.
//
//	KEYS  1 rows · 2 tombstones by the time of their writing
//
// A version is random and its writer's, so that none comes again: neither one that a failover lost,
// nor by a clock that is set back, nor after a removal. It is the nonce of its write too: a call
// that comes again, because its answer was lost, finds its row.
const tablePart = `
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]

local function text(n) return string.format('%.0f', n) end

local function row_of(key)
  local v = redis.call('HGET', KEYS[1], key)
  if not v then return nil end
  local version, stamp, kind, data = string.match(v, '^(%d+) (%S*) ([-=])(.*)$')
  return {version = version, stamp = stamp, deleted = kind == '-', data = data}
end

-- Replies 'full' where there is no room. The row is written first: of a script that finds no memory
-- the first write is refused, and nothing else is.
local function write(key, stamp, version, kind, data, max)
  if redis.call('HEXISTS', KEYS[1], key) == 0 and redis.call('HLEN', KEYS[1]) >= max then
    return {'full', redis.call('HLEN', KEYS[1])}
  end
  redis.call('HSET', KEYS[1], key, version .. ' ' .. stamp .. ' ' .. kind .. data)
  redis.call('ZREM', KEYS[2], key)
  if kind == '-' then redis.call('ZADD', KEYS[2], text(micros), key) end
  return {'wrote', tonumber(version)}
end
`

// getScript reads a row. It is a script so that it goes where the writes go.
//
//	ARGV   1 key
//	reply  {} = missing · {version, stamp, "-" or "=", data}
const getScript = tablePart + `
local row = row_of(ARGV[1])
if not row then return {} end
return {tonumber(row.version), row.stamp, row.deleted and '-' or '=', row.data}
`

// plainScript is Put and Swap.
//
//	ARGV   1 key · 2 bound · 3 the new version · 4 the version that is expected, or "any"
//	       5 "-" = remove, "=" = set · 6 data
//	reply  {"wrote", version} {"changed"} {"stamped"} {"full", keys}
const plainScript = tablePart + `
local key, version, old = ARGV[1], ARGV[3], ARGV[4]
local row = row_of(key)
if row and row.version == version then return {'wrote', tonumber(row.version)} end
if row and row.stamp ~= '' then return {'stamped'} end
if old ~= 'any' and old ~= (row and row.version or '0') then return {'changed'} end
if ARGV[5] == '-' then
  redis.call('HDEL', KEYS[1], key)
  return {'wrote', 0}
end
return write(key, '', version, '=', ARGV[6], tonumber(ARGV[2]))
`

// upsertScript is Upsert. It compares bytes with its own function: the server's order of texts
// depends on its locale.
//
//	ARGV   1 key · 2 bound · 3 the new version · 4 stamp · 5 "-" = delete, "=" = set · 6 data
//	reply  {"wrote", version} {"older"} {"stamped"} {"full", keys}
const upsertScript = tablePart + `
local function before(a, b)
  local same, most = 0, math.min(#a, #b)
  while same < most do
    local half = math.ceil((same + most) / 2)
    if string.sub(a, same + 1, half) == string.sub(b, same + 1, half) then
      same = half
    else
      most = half - 1
    end
  end
  return (string.byte(a, same + 1) or -1) < (string.byte(b, same + 1) or -1)
end

local function wins(stamp, deletes, data, row)
  if stamp ~= row.stamp then return before(row.stamp, stamp) end
  if row.deleted then return false end
  return deletes or before(row.data, data)
end

local key, version, stamp, kind, data = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local row = row_of(key)
if row then
  if row.version == version then return {'wrote', tonumber(row.version)} end
  if row.stamp == '' then return {'stamped'} end
  if not wins(stamp, kind == '-', data, row) then return {'older'} end
end
return write(key, stamp, version, kind, data, tonumber(ARGV[2]))
`

// purgeScript removes the oldest tombstones of a shard.
//
//	ARGV   1 the age in microseconds · 2 how many at most
//	reply  how many it removed
const purgeScript = tablePart + `
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. text(micros - ARGV[1]), 'LIMIT', 0, ARGV[2])
for _, key in ipairs(old) do
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
end
return #old
`
