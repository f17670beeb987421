package play

// noise is what faults keep running.
type noise struct{}

func (n *noise) stop() {}
