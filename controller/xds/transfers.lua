-- Takes out of a request what belongs to a transfer of a KV cache, on attempts that must not carry it: those at
-- endpoints that it was not made for, beyond as many as it is good for, or after an answer that was an error.
-- What is out stays out, for Envoy's next attempt begins with the headers that this one leaves. A request without
-- a transfer passes as it comes.
-- The names in capitals are set above this text.

local function noted(handle, namespace, key)
  return (handle:streamInfo():dynamicMetadata():get(namespace) or {})[key]
end

local function spend(handle)
  handle:streamInfo():dynamicMetadata():set(OWN_NAMESPACE, SPENT, true)
end

local function may_carry(handle, transfer, host, attempt)
  return host and attempt
    and not noted(handle, OWN_NAMESPACE, SPENT)
    and (transfer.tries == 0 or attempt <= transfer.tries)
    and transfer.partners:find("," .. host .. ",", 1, true) ~= nil
end

-- Waits for the whole body, which Envoy holds anyway: a worker has decided on it. Envoy states its new length.
local function cut(handle, start, length)
  local body = handle:body()
  local rest = start + length
  body:setBytes(body:getBytes(0, start) .. body:getBytes(rest, body:length() - rest))
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local host, attempt = headers:get(HOST_HEADER), tonumber(headers:get(ATTEMPT_HEADER))
  headers:remove(HOST_HEADER)
  headers:remove(ATTEMPT_HEADER)
  local transfer = noted(handle, NAMESPACE, TRANSFER)
  if not transfer or may_carry(handle, transfer, host, attempt) then
    return
  end
  if transfer.needed then
    handle:respond({ [":status"] = "502" }, "")
    return
  end
  spend(handle)
  if transfer.length == 0 then
    headers:remove(PREFILLER_HEADER)
  else
    cut(handle, transfer.start, transfer.length)
  end
end

function envoy_on_response(handle)
  if tonumber(handle:headers():get(":status")) >= 500 then
    spend(handle)
  end
end
