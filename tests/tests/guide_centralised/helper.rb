#!/usr/bin/env ruby
# Decides what a new server gets: one request as JSON on stdin, one answer as JSON on stdout (docs/spec/04 §10.7).

require "json"

# The public key of the Organization Issuer
ISSUER = "b3989a299278750427b00213693c2ca02146476a361667682446230842836da8"
BROKERS = "nats://broker.example.net:4222"

request = JSON.parse($stdin.read)
answer = {"defer" => false, "msg" => "", "configuration" => {}}

# Only servers that hold our provisioning token and a key of their own can be enrolled. The provisioner has verified both.
if request["jwt"].nil? || request["ed25519_pubkey"].nil?
  answer["defer"] = true
  answer["msg"] = "#{request["identity"]} came without a provisioning token or a key"
else
  # the inventory is a text that holds JSON
  inventory = JSON.parse(request["inventory"])
  answer["msg"] = "configured, agents: #{inventory["agents"].sort.join(", ")}"

  directory = request["ed25519_pubkey"]["directory"]
  answer["configuration"] = {
    "identity" => request["identity"],
    "loglevel" => "info",
    # without this line the server would begin provisioning again at its next start
    "plugin.choria.server.provision" => "false",
    "plugin.choria.middleware_hosts" => BROKERS,
    "rpcauthorization" => "1",
    "rpcauthprovider" => "aaasvc",
    "plugin.security.provider" => "choria",
    "plugin.security.choria.seed_file" => File.join(directory, "server.seed"),
    "plugin.security.choria.token_file" => File.join(directory, "server.jwt"),
    "plugin.security.issuer.names" => "choria",
    "plugin.security.issuer.choria.public" => ISSUER
  }
end

puts JSON.generate(answer)
