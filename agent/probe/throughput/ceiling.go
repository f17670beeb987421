package throughput

// What packets carry beside the payload of TCP, in bytes.
const (
	ethernetHeader = 14 // two addresses and a type
	vlanTag        = 4  // IEEE 802.1Q
	pppoeHeader    = 8  // RFC 2516 and the protocol field of PPP
	// wireOverhead is frame check sequence 4, preamble with start of frame 8 and
	// the gap between frames 12: a port is busy with them and counts none.
	wireOverhead = 24
	ethernetMTU  = 1500
	// The headers of TCP and IP, with the option of timestamps (RFC 7323), that
	// all current systems send.
	headers4 = 20 + 20 + 12
	headers6 = 40 + 20 + 12
)

// frameOverhead is what a frame has beside its packet: as interface counters and
// Linux's shapers count, without frame check sequence.
func (e Encapsulation) frameOverhead() int {
	n := ethernetHeader + e.VLANTags*vlanTag + e.TunnelBytes
	if e.PPPoE {
		n += pppoeHeader
	}
	return n
}

// fullSegment is the payload and the headers of a full packet, if all that is
// known is how it is packed: in frames of 1500 bytes.
func (e Encapsulation) fullSegment(v6 bool) (payload, headers int) {
	headers = headers4
	if v6 {
		headers = headers6
	}
	payload = ethernetMTU - e.TunnelBytes - headers
	if e.PPPoE {
		payload -= pppoeHeader
	}
	return payload, headers
}

// ceilingMbps is the payload of TCP that a port of a speed can carry at most, in
// Mbit/s. mss is the payload of a full packet, as a connection has it, and
// headerBytes what IP and TCP put before it; where one of them is 0, packets
// fill frames of 1500 bytes. 0 if there is no speed.
func ceilingMbps(linkMbps int, e Encapsulation, v6 bool, mss uint32, headerBytes int) float64 {
	payload, headers := int(mss), headerBytes
	if mss == 0 || mss > 1<<16 || headers <= 0 {
		payload, headers = e.fullSegment(v6)
	}
	wire := payload + headers + e.frameOverhead() + wireOverhead
	if linkMbps <= 0 || payload <= 0 || wire <= payload {
		return 0
	}
	return float64(linkMbps) * float64(payload) / float64(wire)
}

// layerBytes is what a number of bytes of payload in a number of segments is at
// the layers below TCP. headerBytes is what IP and TCP put before each.
func layerBytes(payload, segments uint64, headerBytes int, e Encapsulation) (ip, ethernet float64) {
	ip = float64(payload) + float64(segments)*float64(headerBytes)
	return ip, ip + float64(segments)*float64(e.frameOverhead())
}

// mbps is the measured rate at a layer, in Mbit/s; nil if there is none.
func (m *Measurement) mbps(l Layer) *float64 {
	switch l {
	case LayerIP:
		return m.IPMbps
	case LayerEthernet:
		return m.EthernetMbps
	case LayerTCP:
	}
	return m.TCPMbps
}
