-- Copies the token counts of an answer's `usage` object to dynamic metadata: of the last one, if there are
-- several, as in a streamed answer. The answer passes through chunk by chunk, unchanged and not held.
-- NAMESPACE and COUNTS (metadata key to the names it has in the APIs) are set above this text.

local LONGEST = 4096 -- bytes of a usage object; a longer one is not read
local LONGEST_COUNT = 15 -- digits that a number in Lua holds exactly

local function record(handle, usage)
  local metadata = handle:streamInfo():dynamicMetadata()
  for key, names in pairs(COUNTS) do
    for _, name in ipairs(names) do
      local count = usage:match('"' .. name .. '"%s*:%s*(%d+)')
      if count and #count <= LONGEST_COUNT then
        metadata:set(NAMESPACE, key, tonumber(count))
      end
    end
  end
end

-- Records every whole usage object in `text` and returns the end of it that may be the start of another. A
-- prompt or an answer that quotes one has its quotes escaped, and so is not taken for one.
local function read(handle, text)
  local from = 1
  while true do
    local at = text:find('"usage"', from, true)
    if not at then
      return text:sub(math.max(from, #text - 5))
    end
    local usage, length = text:sub(at, at + LONGEST):match('^"usage"%s*:%s*(%b{})()')
    if usage then
      record(handle, usage)
      from = at + length - 1
    elseif #text - at < LONGEST and (text:find("^%s*:?%s*$", at + 7) or text:find("^%s*:%s*{", at + 7)) then
      return text:sub(at)
    else
      from = at + 7
    end
  end
end

function envoy_on_response(handle)
  local kind = handle:headers():get("content-type") or ""
  if not (kind:find("^text/event%-stream") or kind:find("^application/json")) then
    return
  end
  local rest = ""
  for chunk in handle:bodyChunks() do
    rest = read(handle, rest .. chunk:getBytes(0, chunk:length()))
  end
end
