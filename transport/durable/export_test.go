package durable

// What the tests see of the inside.
var (
	FormatSlot = formatSlot
	ReadSlot   = readSlot
)
