package pon

// Waiting is the number of events that Watch has not taken yet.
func (c *Collector) Waiting() int { return len(c.events) }
