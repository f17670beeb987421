package wan

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// maxResolvConf bounds how much of a resolver file is read, in bytes.
const maxResolvConf = 64 << 10

// resolvers returns the resolvers of the first file that names any.
func (c *Collector) resolvers() (found []netip.Addr, file string) {
	for _, path := range c.resolvConf {
		text, err := readFile(path)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				c.log.Debug("cannot read resolver file", "path", path, "error", err)
			}
			continue
		}
		if found := parseResolvConf(text); len(found) > 0 {
			return found, path
		}
	}
	return nil, ""
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	return string(b), err
}

// parseResolvConf returns the name servers in a resolv.conf, each once, in their
// order. What is no address is skipped.
func parseResolvConf(text string) []netip.Addr {
	var found []netip.Addr
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // a comment has # or ; for its first word or in it
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.IsUnspecified() || a.IsMulticast() || slices.Contains(found, a) {
			continue
		}
		found = append(found, a)
	}
	return found
}
