package netbox

import "errors"

type registry struct{}

func register(string, string) (*registry, error) {
	return nil, errors.New("labs with names are not built yet")
}

func (*registry) add(*Host) error { return nil }
func (*registry) remove() error   { return nil }
