package main

// What is said of the speed test: its flags, as bind reads them. --help prints
// it as it is.
const (
	throughputHelp = `ontagent throughput --url URL [flags]
  how fast the line carries TCP in each direction, held against the contracted rate

`
	throughputFlags = `  --url URL               what is downloaded, lasting longer than the test: http://HOST[:PORT]/PATH,
                          or iperf3://HOST[:PORT] for both directions (throughput.url)
  --upload-url URL        where the upload goes (throughput.upload_url, or --url)
  --second-url URL        asked whether the first server was what was slow (throughput.second_url, or none)
  --direction down|up|both
                          seen from the customer; both: one after the other (both)
  --contract RATE         contracted Mbit/s: 500 for each direction, or 500/50 for down/up (none: nothing is judged)
  --layer tcp|ip|ethernet what the contract counts (tcp)
  --ratio NUMBER          part of the contract that passes, above 0 to 1 (the threshold throughput.min_ratio, or 0.9)
  --connections 1..16     TCP connections at once (throughput.connections, or 4)
  --window SECONDS        how long is measured at a time, 1 to 60 (throughput.window, or 10)
  --max-bytes NUMBER      bound of what the whole run moves, like 4e9; 0: none (0)
  --upload-method POST|PUT
                          of the upload (throughput.upload_method, or POST)
  --interface NAME        interface to connect through (as the routes say)
  --encapsulation KIND,…  what the line adds to packets: ipoe or pppoe, vlan or qinq, ds-lite
                          (as the WAN interface is made, and wan.vlan)
  --consent               the customer agrees: test also while others use the line
  --resolver ADDRESS,…    resolvers for names, with a port or without (wan.resolver, or the system's)
  --verbose               say on standard error what is going on (only to a terminal)
  --config FILE           configuration; need not be there (/etc/config/ontagent)
  --lang LANGUAGE         zh-CN or en (as configured)
  --json                  one line of JSON
`
	throughputCodes = `
Exit codes: 0 the contract is met, or there is none and a rate was measured; 1 it is not met;
2 bad input or usage; 3 inconclusive: not measured, or something else than the line explains the rate
`
)
