package http

// ErrMalformed is errMalformed.
var ErrMalformed = errMalformed

// Parse reads a response that comes in pieces of the given size and ends with
// the stream.
func Parse(wire []byte, piece int) (status int, location string, content []byte, whole bool, err error) {
	var raw []byte
	var h head
	var b *body
	for total := 0; total < len(wire) && (b == nil || !b.done); {
		in := wire[total:min(total+piece, len(wire))]
		total += len(in)
		if b == nil {
			from := len(raw) - 3
			raw = append(raw, in...)
			if h, in, err = heads(&raw, from, total); err != nil {
				return 0, "", nil, false, err
			}
			if h.status != 0 {
				b = newBody(h)
			}
		}
		if b != nil {
			if err = b.take(in); err != nil {
				return h.status, h.location, b.content, false, err
			}
		}
	}
	if b == nil {
		return 0, "", nil, false, nil
	}
	return h.status, h.location, b.content, b.whole(), nil
}
