package optics

import "fmt"

// Forget forgets the line's baseline, for good: the gateway is on another line,
// and what was normal on the last one says nothing of this.
func (c *Collector) Forget() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.track.memory = memory{}
	c.track.baseline = settled[string]{}
	c.track.hasRef = false
	if c.store == nil {
		return nil
	}
	if err := c.store.Save(nil); err != nil {
		return fmt.Errorf("cannot forget the optical baseline: %w", err)
	}
	return nil
}
