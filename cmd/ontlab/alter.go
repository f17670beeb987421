package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"ontagent/agent/order"
	"ontagent/agent/record"
)

// alter writes a copy of a record in which one reading, the weak light, looks
// healthy, as somebody would do it who wants to go home.
func (d *demo) alter(from, to string) error {
	data, err := os.ReadFile(d.lab.Path(from))
	if err != nil {
		return fmt.Errorf("cannot read record: %w", err)
	}
	env, err := order.ParseEnvelope(data)
	if err != nil {
		return fmt.Errorf("cannot read record: %w", err)
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		return fmt.Errorf("cannot read record: %w", err)
	}
	altered := bytes.Replace(payload, []byte(`"rx_power_dbm","value":-27.4`), []byte(`"rx_power_dbm","value":-17.4`), 1)
	if bytes.Equal(altered, payload) {
		return errors.New("cannot alter the record: it does not hold the weak reading")
	}
	env.Payload = base64.StdEncoding.EncodeToString(altered)
	if data, err = record.Marshal(env); err != nil {
		return err
	}
	if err := os.WriteFile(d.lab.Path(to), data, 0o600); err != nil { //nolint:gosec // the demo's own file
		return fmt.Errorf("cannot write record: %w", err)
	}
	return nil
}
