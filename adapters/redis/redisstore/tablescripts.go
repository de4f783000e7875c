package redisstore

// The scripts of tables. A row is one field of a hash: its version, stamp and writer's nonce as
// text, then '-' for a tombstone, or '=' and the value.
//
//	KEYS  1 rows · 2 tombstones by the time of their writing · 3 meta
//	meta  version: the greatest so far
//
// A version is above all that the shard gave before, and not below the server's clock in
// microseconds, so that one that a failover lost does not come again.
const tablePart = `
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]

local function text(n) return string.format('%.0f', n) end

local function row_of(key)
  local v = redis.call('HGET', KEYS[1], key)
  if not v then return nil end
  local version, stamp, nonce, kind, data = string.match(v, '^(%d+) (%S*) (%x+) ([-=])(.*)$')
  return {version = version, stamp = stamp, nonce = nonce, deleted = kind == '-', data = data}
end

-- Replies 'full' where there is no room. The row is written first: of a script that finds no memory
-- the first write is refused, and nothing else is.
local function write(key, stamp, nonce, kind, data, max)
  if redis.call('HEXISTS', KEYS[1], key) == 0 and redis.call('HLEN', KEYS[1]) >= max then
    return {'full', redis.call('HLEN', KEYS[1])}
  end
  local version = math.max(tonumber(redis.call('HGET', KEYS[3], 'version') or 0) + 1, micros)
  redis.call('HSET', KEYS[1], key, text(version) .. ' ' .. stamp .. ' ' .. nonce .. ' ' .. kind .. data)
  redis.call('HSET', KEYS[3], 'version', text(version))
  redis.call('ZREM', KEYS[2], key)
  if kind == '-' then redis.call('ZADD', KEYS[2], text(micros), key) end
  return {'wrote', version}
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
//	ARGV   1 key · 2 bound · 3 nonce · 4 the version that is expected, or "any"
//	       5 "-" = remove, "=" = set · 6 data
//	reply  {"wrote", version} {"changed"} {"stamped"} {"full", keys}
//
// The nonce belongs to the call: one that comes again, because its answer was lost, finds its row.
const plainScript = tablePart + `
local key, nonce, old = ARGV[1], ARGV[3], ARGV[4]
local row = row_of(key)
if row and row.nonce == nonce then return {'wrote', tonumber(row.version)} end
if row and row.stamp ~= '' then return {'stamped'} end
if old ~= 'any' and old ~= (row and row.version or '0') then return {'changed'} end
if ARGV[5] == '-' then
  redis.call('HDEL', KEYS[1], key)
  return {'wrote', 0}
end
return write(key, '', nonce, '=', ARGV[6], tonumber(ARGV[2]))
`

// upsertScript is Upsert. It compares bytes with its own function: the server's order of texts
// depends on its locale.
//
//	ARGV   1 key · 2 bound · 3 nonce · 4 stamp · 5 "-" = delete, "=" = set · 6 data
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

local key, nonce, stamp, kind, data = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local row = row_of(key)
if row then
  if row.nonce == nonce then return {'wrote', tonumber(row.version)} end
  if row.stamp == '' then return {'stamped'} end
  if not wins(stamp, kind == '-', data, row) then return {'older'} end
end
return write(key, stamp, nonce, kind, data, tonumber(ARGV[2]))
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
