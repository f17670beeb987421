package isp

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"ontagent/cmd/ontlab/netbox"
)

// SetMulticastVersion makes a bridge of the host speak IGMP in a version, 2 or
// 3, and MLD in the one that belongs to it, 1 or 2. It has to be called before
// SetQuerier, whose first queries are of that version.
func SetMulticastVersion(host *netbox.Host, bridge string, igmp int) error {
	for name, version := range map[string]int{"multicast_igmp_version": igmp, "multicast_mld_version": igmp - 1} {
		path := filepath.Join("/sys/class/net", bridge, "bridge", name)
		if err := host.Do(func() error { return os.WriteFile(path, []byte(strconv.Itoa(version)), 0) }); err != nil {
			return fmt.Errorf("cannot set IGMP version of %s on %s: %w", bridge, host.Name(), err)
		}
	}
	return nil
}

// StopQuerier leaves a bridge of the host snooping, with nobody who asks.
func StopQuerier(host *netbox.Host, bridge string) error {
	path := filepath.Join("/sys/class/net", bridge, "bridge", "multicast_querier")
	if err := host.Do(func() error { return os.WriteFile(path, []byte("0"), 0) }); err != nil {
		return fmt.Errorf("cannot stop querier of %s on %s: %w", bridge, host.Name(), err)
	}
	return nil
}
