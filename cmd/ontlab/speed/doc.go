// Package speed measures the gateway's speed test: how far it is off the truth
// of a shaped link, and what it costs beside iperf3, curl and Go's net/http on
// that link. It is what `make bench-throughput` runs.
//
// Two hosts of cmd/ontlab/netbox are joined by a cable without offloads, so
// that packets are those of a wire, and both ends shape what they send by tbf.
// On the server are nginx and Debian's iperf3. The truth is the shaper's own:
// it counts a frame of 1514 bytes for 1448 bytes of payload (Ethernet 14,
// IPv4 20, TCP 20 and its time stamps 12). Delay needs netem, and is measured
// in the guest of cmd/ontlab/vm.
//
// The same program runs itself again: in namespaces (netbox.Enter), in the
// guest, and as the client made of net/http.
package speed
