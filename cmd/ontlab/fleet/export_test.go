package fleet

// ReadPacket is readPacket.
var ReadPacket = readPacket //nolint:gochecknoglobals // a test's door inside
