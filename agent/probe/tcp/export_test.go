package tcp

// StatusLine is statusLine.
func StatusLine(b []byte) (line []byte, code int, more bool) { return statusLine(b) }
