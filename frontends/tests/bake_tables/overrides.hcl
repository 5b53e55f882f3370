target "base" {
 tags=["b:1"]
 args={A="1"}
 labels={l="x"}
 platforms=["linux/amd64"]
 cache-from=["type=registry,ref=x"]
 output=["type=docker"]
 secret=["id=s,env=HOME"]
 contexts={c="d"}
 annotations=["a=b"]
 attest=["type=sbom"]
 entitlements=["network.host"]
 no-cache-filter=["s"]
 ulimits=["nofile=1:2"]
 shm-size="64m"
 extra-hosts={h="1.1.1.1"}
 resources={memory="1g"}
}
target "child" {
 inherits=["base"]
 args={B="2"}
}
target "default" { inherits=["child"] }
group "g" { targets=["base","child"] }
