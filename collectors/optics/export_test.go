package optics

// Waiting is the number of events that Watch has not taken yet.
func (c *Collector) Waiting() int { return len(c.events) }

// ParseHistory is parseHistory, for fuzzing.
func ParseHistory(data []byte) error {
	_, err := parseHistory(data)
	return err
}
